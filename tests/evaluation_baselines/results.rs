//! `eval --paper all`: what it says before it begins, what it makes, what it does when it is given again.

use serde_json::Value;

use super::{eval, json, run::finished_run, stderr, succeed};

const ALL: [&str; 6] = ["--paper", "all", "--runs", "2", "--set", "task.name=lcd30"];

#[test]
fn the_whole_results_section_is_listed_made_and_gone_on_with() {
    let fixture = finished_run();
    let document = succeed(&fixture, &[&ALL[..], &["--dry-run", "--json"]].concat()).stdout;
    let parts = serde_json::from_slice::<Value>(&document).unwrap()["dry_run"]["--paper all"].clone();
    let part = |name: &str| {
        let found = parts.as_array().unwrap().iter().find(|part| part["part"].as_str().unwrap().starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {parts:#}")).clone()
    };
    for (name, answers) in
        [("predictions", 12), ("base model", 12), ("baseline verbalized", 24), ("baseline label", 24)]
    {
        assert_eq!(part(name)["answers"], answers, "{name}");
    }
    for (name, key) in [("baseline cnn", "cnn.embeddings"), ("judge", "eval.judge"), ("table7", "clsgen construct")] {
        assert!(part(name)["missing"].as_str().unwrap().contains(key), "{name}: {parts:#}");
    }
    assert!(!fixture.path("run/eval").exists());

    let told = stderr(&succeed(&fixture, &[&ALL[..], &["--card"]].concat()));
    for line in ["baseline label: 24 answers to write", "judge: RLI", "left out, eval.judge names no model"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    for table in ["table1", "table2", "table3", "table4", "table7", "compare_base", "baselines"] {
        assert!(fixture.path(&format!("run/eval/test/tables/{table}.md")).is_file(), "{table}");
    }
    // The card names what was compared.
    let card = String::from_utf8(fixture.read("run/eval/test/tripod-llm.md")).unwrap();
    assert!(
        card.contains("`baselines.json`): `verbalized`, `label`, `self_consistency`, `token_probability`"),
        "{card}"
    );
    let metrics = fixture.read("run/eval/test/metrics.json");
    let baselines = fixture.read("run/eval/test/baselines.json");

    // What other settings made is not there.
    let other = ["--set", "generate.temperature=0.9", "--overwrite", "--dry-run", "--json"];
    let document = succeed(&fixture, &[&ALL[..], &other].concat()).stdout;
    let parts = serde_json::from_slice::<Value>(&document).unwrap()["dry_run"]["--paper all"].clone();
    let answers = |part: &Value| Some((part["part"].as_str()?.to_owned(), part["answers"].as_u64()?));
    let listed: Vec<(String, u64)> = parts.as_array().unwrap().iter().filter_map(answers).collect();
    assert_eq!(listed.iter().map(|(_, answers)| answers).sum::<u64>(), 84, "{listed:?}");

    // Everything is there: nothing is asked of a model again, which is gone.
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    let told = stderr(&succeed(&fixture, &ALL));
    for line in ["predictions: there", "base model before tuning: there", "baseline verbalized: there"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(fixture.read("run/eval/test/metrics.json"), metrics);
    assert_eq!(fixture.read("run/eval/test/baselines.json"), baselines);
}

/// What the config names, and no flag, is left out where it cannot be made.
#[test]
fn a_cnn_without_word_embeddings_is_left_out_unless_a_flag_names_it() {
    let fixture = finished_run();
    let config = [&ALL[..], &["--set", r#"eval.baselines=["label","cnn"]"#]].concat();
    let told = stderr(&succeed(&fixture, &config));
    assert!(told.contains("baseline cnn: left out") && told.contains("cnn.embeddings"), "{told}");
    let output = eval(&fixture, &[&ALL[..], &["--baselines", "cnn"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("cnn.embeddings is not set"), "{}", stderr(&output));
}

#[test]
fn of_prediction_files_all_is_what_needs_no_model() {
    let fixture = finished_run();
    let flags = ["--predictions", "dev.out", "--paper", "all", "--set", "task.name=clinifact"];
    let output = eval(&fixture, &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("baseline label: left out, --predictions hold no records"), "{}", stderr(&output));
    assert!(fixture.path("run/eval/predictions/tables/table2.md").is_file());
}

/// What is refused for its records is refused before a record is predicted, and nothing else is.
#[test]
fn a_dry_run_knows_the_papers_task_by_the_records() {
    let fixture = finished_run();
    let note = |i: usize, positives: usize| {
        serde_json::json!({"id": format!("n{i}"), "text": "SECRET fever", "label": usize::from(i < positives)})
            .to_string()
            + "\n"
    };
    // CliniFact's test split by its counts, and one positive fewer.
    for (positives, code) in [(113, 0), (112, 2)] {
        fixture.write("test.jsonl", (0..394).map(|i| note(i, positives)).collect::<String>());
        let output = eval(&fixture, &["--dry-run", "--paper", "table2"]);
        assert_eq!(output.status.code(), Some(code), "{positives}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("hint: say which one with --set task.name=lcd30"), code == 2);
    }
    assert!(!fixture.path("run/eval").exists());
}

/// The time of dev's scoring, which training logs, is what the time of the answers is told by.
#[test]
fn the_time_is_told_by_what_dev_took() {
    let fixture = finished_run();
    let line = r#"{"type":"epoch","epoch":1,"dev_seconds":30.0,"dev":{"n":10}}"#;
    fixture.write("run/metrics.jsonl", format!("{line}\n"));
    let told = stderr(&succeed(&fixture, &[&ALL[..], &["--dry-run"]].concat()));
    let document = succeed(&fixture, &[&ALL[..], &["--dry-run", "--json"]].concat()).stdout;
    let parts = serde_json::from_slice::<Value>(&document).unwrap()["dry_run"]["--paper all"].clone();
    let seconds: f64 = parts.as_array().unwrap().iter().filter_map(|part| part["seconds"].as_f64()).sum();
    // Predictions and base 12 each, two baselines 24 each, the token probability 12, at 3 s.
    assert_eq!(seconds, 3.0 * 84.0, "{told}");
}

#[test]
fn the_texts_of_other_splits_are_those_that_the_prompt_names() {
    let fixture = finished_run();
    // The same run with `note` for `text`, and a train split that shares notes with both.
    let checkpoint = "run/checkpoints/epoch-01/clsgen.json";
    let mut info: Value = serde_json::from_slice(&fixture.read(checkpoint)).unwrap();
    info["prompt"]["user"] = "Note: {note}".into();
    info["prompt"]["document"] = "note".into();
    fixture.write(checkpoint, info.to_string());
    for split in ["dev.jsonl", "test.jsonl"] {
        let renamed = String::from_utf8(fixture.read(split)).unwrap().replace("\"text\"", "\"note\"");
        fixture.write(split, renamed);
    }
    fixture.write("train.jsonl", fixture.read("test.jsonl"));
    let splits = ["--set", "data.train=train.jsonl", "--set", "data.dev=dev.jsonl"];
    let told = stderr(&succeed(&fixture, &[&["--paper", "table1", "--set", "task.name=lcd30"], &splits[..]].concat()));
    assert!(!told.contains("by their ids alone"), "{told}");
    let table = |name: &str| String::from_utf8(fixture.read(&format!("run/eval/test/tables/{name}.md"))).unwrap();
    let leakage = table("leakage");
    for row in ["train and dev | 0 | 10 | 10 in note", "train and test | 0 | 12 | 12 in note"] {
        let found: Vec<&str> = leakage.split_whitespace().collect();
        assert!(found.join(" ").contains(row), "{row}: {leakage}");
    }
    assert!(table("table1").contains("12"), "{}", table("table1"));
    assert_eq!(json(&fixture, "metrics.json")["dev_overlap"], 10);
}
