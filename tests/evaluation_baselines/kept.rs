//! What later commands keep of baselines that an earlier one asked, by flag or key; and the CNN's folder.

use super::*;

#[test]
fn baselines_that_the_config_named_stay_with_later_commands() {
    let fixture = finished_run();
    succeed(&fixture, &["--set", r#"eval.baselines=["label"]"#, "--set", "eval.runs=2"]);
    let result = json(&fixture, "baselines.json");
    let table = fixture.read("run/eval/test/tables/baselines.md");
    assert!(!table.is_empty());
    succeed(&fixture, &[]);
    assert_eq!(json(&fixture, "baselines.json"), result);
    assert!(fixture.read("run/eval/test/tables/baselines.md") == table);
    // Prediction files have no records to ask of.
    let output = succeed(&fixture, &["--predictions", "dev.out", "--set", r#"eval.baselines=["label"]"#]);
    assert!(stderr(&output).contains("eval.baselines are left out"), "{}", stderr(&output));
}

#[test]
fn baselines_added_later_leave_the_runs_of_those_that_are_there() {
    let fixture = finished_run();
    succeed(&fixture, &["--baselines", "label", "--runs", "2"]);
    let label = fixture.read("run/eval/test/baselines/label.jsonl");
    succeed(&fixture, &["--baselines", "token_probability"]);
    succeed(&fixture, &["--baselines", "verbalized", "--runs", "1"]);
    // Its votes are those of label.
    succeed(&fixture, &["--baselines", "self_consistency"]);
    succeed(&fixture, &[]);
    assert!(fixture.read("run/eval/test/baselines/label.jsonl") == label);
    assert_eq!(fixture.lines("run/eval/test/baselines/verbalized.jsonl")[0]["runs"].as_array().unwrap().len(), 1);
    let methods = json(&fixture, "baselines.json")["methods"].clone();
    let names: Vec<&str> = methods.as_array().unwrap().iter().map(|method| method["name"].as_str().unwrap()).collect();
    assert_eq!(names.join(","), PROMPTED);
    // Named again with other runs, it is another.
    let output = eval(&fixture, &["--baselines", "label", "--runs", "3"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("eval.runs (2 → 3)"), "{}", stderr(&output));
}

#[test]
fn runs_that_one_command_gives_its_baselines_are_not_those_of_others() {
    let fixture = finished_run();
    let named = ["--set", r#"eval.baselines=["label"]"#, "--set", "eval.runs=2"];
    let runs = |name: &str| {
        let lines = fixture.lines(&format!("run/eval/test/baselines/{name}.jsonl"));
        lines[0]["runs"].as_array().unwrap().len()
    };
    succeed(&fixture, &["--baselines", "verbalized", "--runs", "1"]);
    for flags in [&[][..], &["--baselines", "verbalized", "--runs", "1"], &[]] {
        let flags = if flags.is_empty() { &named[..] } else { flags };
        succeed(&fixture, flags);
        assert_eq!((runs("label"), runs("verbalized")), (2, 1), "{flags:?}");
    }
    // Named again without a number of runs, they keep theirs; another number is another setting.
    succeed(&fixture, &["--baselines", "label,verbalized"]);
    assert_eq!((runs("label"), runs("verbalized")), (2, 1));
    let output = eval(&fixture, &["--baselines", "label,verbalized", "--set", "eval.runs=2"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("eval.runs (1 → 2)"), "{}", stderr(&output));
}

#[test]
fn what_no_command_names_counts_as_it_was_asked() {
    let fixture = finished_run();
    fixture.write("asked.toml", "system = \"\"\nquestion = \"How likely is death? Probability: 0 to 100\"\n");
    let keys = ["--set", "eval.temperature=0.3", "--set", "eval.verbalized_prompt=asked.toml"];
    let asked = ["--baselines", "verbalized,label,self_consistency", "--runs", "1"];
    succeed(&fixture, &[&asked[..], &keys].concat());
    let methods = json(&fixture, "baselines.json")["methods"].clone();
    std::fs::remove_file(fixture.path("asked.toml")).unwrap();
    for flags in [&[][..], &["--card"]] {
        succeed(&fixture, flags);
        assert_eq!(json(&fixture, "baselines.json")["methods"], methods, "{flags:?}");
    }
    // What this command gives for it, and it was not asked by, is told.
    let told = |flags: &[&str]| stderr(&succeed(&fixture, flags));
    for name in ["verbalized", "label"] {
        assert!(told(&["--set", "eval.runs=3"]).contains(&format!("{name}: its 1 runs of an earlier command stay")));
        let other = told(&["--set", "eval.baseline_model=base"]);
        assert!(other.contains(&format!("{name}: its answers of an earlier command stay, which another model")));
    }
    assert_eq!(json(&fixture, "baselines.json")["methods"], methods);
    // Named again, one is asked by the keys of today.
    let output = eval(&fixture, &["--baselines", "self_consistency"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("eval.temperature (0.3 → 0.6)"), "{}", stderr(&output));
}

#[test]
fn a_finished_cnn_needs_nothing_that_it_was_trained_with() {
    let fixture = finished_run();
    word_embeddings(&fixture);
    fixture.write("train.jsonl", notes(20));
    succeed(&fixture, &CNN);
    let methods = json(&fixture, "baselines.json")["methods"].clone();
    std::fs::remove_dir_all(fixture.path("bert")).unwrap();
    std::fs::remove_file(fixture.path("train.jsonl")).unwrap();
    for flags in [&[][..], &["--card"]] {
        succeed(&fixture, flags);
        assert_eq!(json(&fixture, "baselines.json")["methods"], methods, "{flags:?}");
    }
    let output = eval(&fixture, &["--baselines", "cnn"]);
    assert_ne!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A small CNN.
const CNN: [&str; 18] = [
    "--baselines",
    "cnn",
    "--set",
    "data.train=train.jsonl",
    "--set",
    "data.dev=dev.jsonl",
    "--set",
    "cnn.embeddings=bert",
    "--set",
    "cnn.filters=2",
    "--set",
    "cnn.projection=2",
    "--set",
    "cnn.epochs=1",
    "--set",
    "cnn.seeds=1",
    "--set",
    "cnn.learning_rate=1e-3",
];

#[test]
fn the_cnns_folder_is_kept_where_nothing_says_what_made_it() {
    let fixture = finished_run();
    word_embeddings(&fixture);
    fixture.write("train.jsonl", notes(20));
    succeed(&fixture, &CNN);
    let folder = "run/eval/test/baselines/cnn";
    let seed = fixture.read(&format!("{folder}/seed-0.jsonl"));
    std::fs::remove_file(fixture.path(&format!("{folder}/meta.json"))).unwrap();
    let output = eval(&fixture, &CNN);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("meta.json does not say what made it"), "{}", stderr(&output));
    assert!(!seed.is_empty() && fixture.read(&format!("{folder}/seed-0.jsonl")) == seed);
    succeed(&fixture, &[&CNN[..], &["--overwrite"]].concat());
    assert!(fixture.read(&format!("{folder}/seed-0.jsonl")) == seed);
}

#[test]
fn word_embeddings_in_shards_are_known_by_them() {
    let fixture = finished_run();
    word_embeddings(&fixture);
    fixture.write("train.jsonl", notes(20));
    let shard = "model-00001-of-00001.safetensors";
    std::fs::rename(fixture.path("bert/model.safetensors"), fixture.path(&format!("bert/{shard}"))).unwrap();
    let map = json!({"bert.embeddings.word_embeddings.weight": shard, "bert.pooler.dense.bias": shard});
    fixture.write("bert/model.safetensors.index.json", json!({"weight_map": map}).to_string());
    succeed(&fixture, &CNN);
    // Others under the same names.
    let mut bytes = fixture.read(&format!("bert/{shard}"));
    *bytes.last_mut().unwrap() ^= 1;
    fixture.write(&format!("bert/{shard}"), bytes);
    let output = eval(&fixture, &CNN);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("cnn.embeddings (its content differs)"), "{}", stderr(&output));
    // An older clsgen kept no hash of shards.
    let meta = "run/eval/test/baselines/cnn/meta.json";
    let mut older: Value = serde_json::from_slice(&fixture.read(meta)).unwrap();
    older["cnn.embeddings"] = Value::Null;
    fixture.write(meta, older.to_string());
    succeed(&fixture, &CNN);
}
