//! `clsgen eval --baselines` and `eval.judge`, on a tiny random checkpoint.

mod common;
#[path = "evaluation_baselines/kept.rs"]
mod kept;
#[path = "evaluation_baselines/results.rs"]
mod results;
#[path = "evaluation/run.rs"]
mod run;
#[path = "evaluation_baselines/thoughts.rs"]
mod thoughts;

use std::process::Output;

use run::{Fixture, finished_run, json, json_of, mode, notes, parse_lines, stderr};
use serde_json::{Value, json};

/// The test split, and a window for the paper's long questions, which the byte tokenizer makes many tokens.
const WINDOW: [&str; 4] = ["--set", "data.test=test.jsonl", "--set", "model.max_input_tokens=1200"];

fn eval(fixture: &Fixture, flags: &[&str]) -> Output {
    run::eval(fixture, &[&WINDOW[..], flags].concat())
}

fn succeed(fixture: &Fixture, flags: &[&str]) -> Output {
    run::succeed(fixture, &[&WINDOW[..], flags].concat())
}

const PROMPTED: &str = "verbalized,label,self_consistency,token_probability";

#[test]
fn baselines_run_on_the_base_model_and_are_compared_with_the_tuned_one() {
    let fixture = finished_run();
    let output = succeed(
        &fixture,
        &["--baselines", PROMPTED, "--runs", "3", "--paper", "table2,table4", "--set", "task.name=lcd30"],
    );
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    for head in ["Baselines:", "Model against baselines:", "Table 2, performance", "Table 4, standard deviation"] {
        assert!(stdout.contains(head), "{head}: {stdout}");
    }
    let verbalized = fixture.lines("run/eval/test/baselines/verbalized.jsonl");
    assert_eq!(verbalized.len(), 12);
    assert_eq!(verbalized[3]["id"], "n3");
    assert_eq!(verbalized[3]["runs"].as_array().unwrap().len(), 3);
    assert_ne!(verbalized[3]["runs"][0]["text"], verbalized[3]["runs"][1]["text"]);
    let baselines = json(&fixture, "baselines.json");
    let names: Vec<&str> =
        baselines["methods"].as_array().unwrap().iter().map(|method| method["name"].as_str().unwrap()).collect();
    assert_eq!(names.join(","), PROMPTED);
    // Random weights write no verdict: unparsable, counted, with a reason where nothing follows.
    let label = &baselines["methods"][1]["metrics"];
    // Unparsable everywhere is no positive call anywhere: nothing is found of the positives, and precision has no calls
    // to be over.
    assert_eq!(
        (&label["parsable"]["value"], &label["f1"]["value"], &label["recall"]["value"]),
        (&json!(0.0), &json!(0.0), &json!(0.0))
    );
    assert_eq!(
        (&label["precision"]["reason"], &label["auroc"]["reason"]),
        (&json!("nothing is predicted positive"), &json!("no answer could be parsed"))
    );
    // The token probability needs no text: it compares with the model by every test.
    let token = &baselines["methods"][3];
    assert_eq!(token["metrics"]["auroc"]["n"], 12);
    assert!(token["metrics"]["auroc"]["ci95"].is_array() && token["metrics"]["parsable"]["value"].is_null());
    let tests: Vec<&str> =
        token["comparisons"].as_array().unwrap().iter().map(|c| c["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["DeLong", "paired bootstrap", "paired bootstrap", "paired bootstrap", "McNemar, exact"]);
    for line in fixture.lines("run/eval/test/baselines/token_probability.jsonl") {
        let probability = line["runs"][0]["probability"].as_f64().unwrap();
        assert!(probability > 0.0 && probability < 1.0);
    }
    let votes = fixture.lines("run/eval/test/baselines/self_consistency.jsonl");
    assert_eq!((votes.len(), &votes[0]["unparsable"], &votes[0]["verbalized_label"]), (12, &json!(3), &Value::Null));
    assert!(
        fixture.path("run/eval/test/tables/baselines.md").exists()
            && fixture.path("run/eval/test/tables/comparisons.tex").exists()
    );
    assert_eq!(mode(&fixture.path("run/eval/test/baselines/label.jsonl")), 0o600);
}

#[test]
fn stopped_baselines_go_on_and_finished_ones_need_no_model() {
    let fixture = finished_run();
    let flags = ["--baselines", "label,token_probability", "--runs", "2"];
    succeed(&fixture, &flags);
    let label = fixture.read("run/eval/test/baselines/label.jsonl");
    let token = fixture.read("run/eval/test/baselines/token_probability.jsonl");
    let result = fixture.read("run/eval/test/baselines.json");
    for (name, whole) in [("label", &label), ("token_probability", &token)] {
        let fourth = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(3).unwrap().0;
        fixture.write(&format!("run/eval/test/baselines/{name}.jsonl"), &whole[..fourth + 9]);
    }
    let output = succeed(&fixture, &flags);
    assert!(stderr(&output).contains("label: 4 of 12 records are done already"), "{}", stderr(&output));
    assert_eq!(fixture.read("run/eval/test/baselines/label.jsonl"), label);
    assert_eq!(fixture.read("run/eval/test/baselines/token_probability.jsonl"), token);
    assert_eq!(fixture.read("run/eval/test/baselines.json"), result);
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    succeed(&fixture, &flags);
    assert_eq!(fixture.read("run/eval/test/baselines.json"), result);
    // A command without baselines keeps theirs, and its document holds them.
    let output = succeed(&fixture, &["--json"]);
    assert_eq!(fixture.read("run/eval/test/baselines.json"), result);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["baselines"], serde_json::from_slice::<Value>(&result).unwrap());
    // Other runs are another baseline: refused; replaced on demand, the base model is missed.
    let other = ["--baselines", "label", "--runs", "1"];
    assert_eq!(eval(&fixture, &other).status.code(), Some(2));
    assert_eq!(eval(&fixture, &[&other[..], &["--overwrite"]].concat()).status.code(), Some(4));
}

#[test]
fn what_cannot_be_run_is_said_before_any_work() {
    let fixture = finished_run();
    for (flags, told) in [
        (&["--baselines", "svm"][..], "verbalized"),
        (&["--runs", "3"], "--baselines"),
        (&["--baselines", "label", "--predictions", "dev.out"], "--predictions"),
        (&["--baselines", "cnn"], "cnn.embeddings"),
        (&["--baselines", "verbalized", "--set", "eval.verbalized_prompt=missing.toml"], "missing.toml"),
        (&["--set", "eval.judge_prompt=missing.toml", "--set", "eval.judge=base"], "missing.toml"),
    ] {
        let output = eval(&fixture, flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{flags:?}: {}", stderr(&output));
        assert!(!fixture.path("run/eval").exists(), "{flags:?}");
    }
    assert_eq!(eval(&fixture, &["--set", "eval.judge=nowhere"]).status.code(), Some(4));
}

/// Predictions of some tool, with explanations. Record 3 is not parsable, nor is 5, which names a label all the same.
fn explained() -> String {
    let line = |i: usize| {
        json!({"id": format!("n{i}"), "label": i % 2, "probability": 0.1 * (i % 10) as f64,
            "verbalized_label": if i == 3 { Value::Null } else { json!(i % 2) }, "parsable": ![3, 5].contains(&i),
            "explanation": if i == 3 { Value::Null } else { json!(format!("SECRET words, {i}.")) },
            "text": format!("SECRET words, {i}.")})
    };
    (0..8).map(|i| line(i).to_string() + "\n").collect()
}

#[test]
fn a_judge_reads_the_explanations_of_any_prediction_file_and_goes_on_where_it_stopped() {
    let fixture = finished_run();
    fixture.write("told.jsonl", explained());
    let flags = ["--predictions", "told.jsonl", "--set", "eval.judge=base"];
    let output = succeed(&fixture, &flags);
    assert!(stderr(&output).contains("14 of 14 answers unparsable"), "{}", stderr(&output));
    let whole = fixture.read("run/eval/predictions/judge.jsonl");
    let lines = parse_lines(&whole);
    assert_eq!(lines.len(), 8, "of an unparsable record it is asked whether the text can be read");
    for i in [3, 5] {
        let asked = json!({"id": format!("n{i}"), "verbalized_label": null, "inferred_label": null, "readable": null});
        assert_eq!(lines[i], asked);
    }
    let judge = json_of(&fixture, "predictions/metrics.json")["judge"].clone();
    assert_eq!((&judge["unparsable"]["value"], &judge["unparsable"]["n"]), (&json!(1.0), &json!(14)));
    assert_eq!(
        (&judge["readability"]["value"], &judge["readability"]["n"]),
        (&json!(0.0), &json!(8)),
        "unread is not readable"
    );
    assert!(judge["rli"]["reason"].as_str().unwrap().contains("no answer of the judge"));
    assert!(!String::from_utf8(whole.clone()).unwrap().contains("SECRET"));
    // A judgement that was made is not made again; it counts.
    let mut first = lines[0].clone();
    (first["inferred_label"], first["readable"]) = (json!(1), json!(true));
    fixture.write("run/eval/predictions/judge.jsonl", format!("{first}\n"));
    // An edit is refused, unless its hash was edited too.
    assert_eq!(eval(&fixture, &flags).status.code(), Some(3));
    let hash = blake3::hash(first.to_string().as_bytes()).to_hex();
    fixture.write("run/eval/predictions/judge.hashes", format!("\"{}\"\n", &hash[..32]));
    let output = succeed(&fixture, &flags);
    assert!(stderr(&output).contains("judge: 1 of 8 records are done already"), "{}", stderr(&output));
    let judge = json_of(&fixture, "predictions/metrics.json")["judge"].clone();
    assert_eq!(
        (&judge["rli"]["value"], &judge["rli"]["n"], &judge["readability"]["value"]),
        (&json!(1.0), &json!(1), &json!(0.125))
    );
    // A command without a judge keeps its numbers.
    succeed(&fixture, &flags[..2]);
    assert_eq!(json_of(&fixture, "predictions/metrics.json")["judge"], judge);
    // A judge's unparsable answers have a ceiling, not a floor.
    fixture.write("gate.toml", "judge.unparsable = 0.5\n");
    let output = eval(&fixture, &[&flags[..], &["--gate", "gate.toml"]].concat());
    assert!(
        output.status.code() == Some(1) && stderr(&output).contains("judge.unparsable = 0.8571, above 0.5"),
        "{}",
        stderr(&output)
    );
}

/// A folder as BERT's: word pieces and their vectors under a prefix, beside a tensor that is not read.
fn word_embeddings(fixture: &Fixture) {
    use candle_core::{Device, Tensor, safetensors};
    let words = ["[UNK]", "[SEP]", "SECRET", "fever"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null,
        "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    fixture.write("bert/tokenizer.json", tokenizer.to_string());
    let table: Vec<f32> = (0..4 * 5).map(|i| ((i * 37) % 11) as f32 / 11.0 - 0.5).collect();
    let tensors = std::collections::HashMap::from([
        ("bert.embeddings.word_embeddings.weight".to_owned(), Tensor::from_vec(table, (4, 5), &Device::Cpu).unwrap()),
        ("bert.pooler.dense.bias".to_owned(), Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu).unwrap()),
    ]);
    safetensors::save(&tensors, fixture.path("bert/model.safetensors")).unwrap();
}

#[test]
fn the_cnn_is_trained_on_train_picked_on_dev_and_kept_seed_by_seed() {
    let fixture = finished_run();
    word_embeddings(&fixture);
    fixture.write("train.jsonl", notes(20));
    let mut flags = vec!["--baselines", "cnn", "--paper", "table2", "--set", "task.name=lcd30"];
    for set in [
        "data.train=train.jsonl",
        "data.dev=dev.jsonl",
        "cnn.embeddings=bert",
        "cnn.filters=4",
        "cnn.projection=4",
        "cnn.epochs=2",
        "cnn.seeds=2",
        "cnn.batch_size=8",
    ] {
        flags.extend(["--set", set]);
    }
    succeed(&fixture, &flags);
    let grid = fixture.lines("run/eval/test/baselines/cnn/grid.jsonl");
    let rates: Vec<f64> = grid.iter().map(|line| line["learning_rate"].as_f64().unwrap()).collect();
    assert_eq!(rates, [5e-4, 5e-4, 1e-4, 1e-4, 5e-5, 5e-5]);
    assert!(grid.iter().all(|line| line["seed"] == 42 && line["score"].is_f64()));
    let method = json(&fixture, "baselines.json")["methods"][0].clone();
    assert_eq!(
        (&method["name"], &method["runs"]["auroc"]["runs"], &method["metrics"]["parsable"]["value"]),
        (&json!("cnn"), &json!(2), &Value::Null)
    );
    let seed = fixture.read("run/eval/test/baselines/cnn/seed-1.jsonl");
    let result = fixture.read("run/eval/test/baselines.json");
    assert_eq!(parse_lines(&seed).len(), 12);
    assert!(!fixture.path("run/eval/test/baselines/cnn/state").exists());
    // Fewer seeds use what is there, and leave the rest.
    succeed(&fixture, &[&flags[..], &["--set", "cnn.seeds=1"]].concat());
    assert_eq!(json(&fixture, "baselines.json")["methods"][0]["runs"]["auroc"]["runs"], 1);
    assert_eq!(fixture.read("run/eval/test/baselines/cnn/seed-1.jsonl"), seed);
    succeed(&fixture, &flags);
    // Stopped before its second seed and in the midst of its grid, it ends the same.
    std::fs::remove_file(fixture.path("run/eval/test/baselines/cnn/seed-1.jsonl")).unwrap();
    succeed(&fixture, &flags);
    assert_eq!(
        (fixture.read("run/eval/test/baselines/cnn/seed-1.jsonl"), fixture.read("run/eval/test/baselines.json")),
        (seed.clone(), result)
    );
    std::fs::remove_file(fixture.path("run/eval/test/baselines/cnn/seed-1.jsonl")).unwrap();
    let whole = fixture.read("run/eval/test/baselines/cnn/grid.jsonl");
    let third = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0;
    fixture.write("run/eval/test/baselines/cnn/grid.jsonl", &whole[..third + 20]);
    succeed(&fixture, &flags);
    assert_eq!(
        (
            fixture.read("run/eval/test/baselines/cnn/grid.jsonl"),
            fixture.read("run/eval/test/baselines/cnn/seed-1.jsonl")
        ),
        (whole, seed)
    );
    assert_eq!(eval(&fixture, &[&flags[..], &["--set", "cnn.embeddings=nowhere"]].concat()).status.code(), Some(4));
}

/// CliniFact's test split, decoded from the paper's Table 2: 394 records, 113 positive; ten label runs find
/// 900 of 1,130 positives, their majority calls 109 and is right of 95; three positives get no vote at all. A vote of
/// run r for record i.
fn vote(i: usize, run: usize) -> Option<u8> {
    match i {
        0..95 => Some(u8::from(run < 9)),
        95..110 => Some(u8::from(run < 3)),
        110..113 => None,
        113..127 => Some(u8::from(run < 6)),
        _ => Some(0),
    }
}

#[test]
fn baselines_decode_like_the_papers_counts() {
    let fixture = finished_run();
    let mut records = String::new();
    let mut predictions = String::new();
    let mut answers = String::new();
    for i in 0..394 {
        let id = format!("n{i}");
        let label = u8::from(i < 113);
        records += &format!("{}\n", json!({"id": id, "text": "SECRET", "label": label}));
        let probability = 0.2 + 0.5 * f64::from(label) + 0.001 * f64::from(i as u16 % 300);
        predictions +=
            &format!("{}\n", json!({"id": id, "label": label, "probability": probability, "parsable": false}));
        let runs: Vec<Value> =
            (0..10).map(|run| json!({"text": "", "probability": null, "verbalized_label": vote(i, run)})).collect();
        answers += &format!(
            "{}\n",
            json!({"id": id, "label": label, "prompt_tokens": 1, "truncated_tokens": 0, "runs": runs})
        );
    }
    fixture.write("dev.jsonl", records);
    fixture.write("run/checkpoints/epoch-01/dev.predictions.jsonl", predictions);
    run::write_trained(&fixture, json!({ "model.max_input_tokens": 1200 }));
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    let flags =
        ["--split", "dev", "--set", "data.dev=dev.jsonl", "--baselines", "label,self_consistency", "--paper", "table2"];
    let flags = [&flags[..], &["--set", "task.name=clinifact"]].concat();
    // The model is missed, once the log is open; with its answers there, none is needed.
    assert_eq!(eval(&fixture, &flags).status.code(), Some(4));
    let hashes: String =
        answers.lines().map(|line| format!("\"{}\"\n", &blake3::hash(line.as_bytes()).to_hex()[..32])).collect();
    fixture.write("run/eval/dev/baselines/label.jsonl", answers);
    fixture.write("run/eval/dev/baselines/label.hashes", hashes);
    succeed(&fixture, &flags);
    let methods = json_of(&fixture, "dev/baselines.json")["methods"].clone();
    let value = |method: usize, metric: &str| methods[method]["metrics"][metric]["value"].as_f64().unwrap();
    assert!((value(0, "recall") * 10.0 * 113.0 - 900.0).abs() < 1e-9, "{}", value(0, "recall"));
    let voted = ["precision", "recall", "f1"].map(|metric| value(1, metric));
    assert_eq!(voted, [95.0 / 109.0, 95.0 / 113.0, 190.0 / 222.0]);
    assert_eq!((&methods[1]["metrics"]["auroc"]["n"], &methods[1]["metrics"]["f1"]["n"]), (&json!(391), &json!(394)));
    let table = json_of(&fixture, "dev/tables/table2.json");
    let row = |metric: &str, method: &str| {
        let row = table["rows"].as_array().unwrap().iter().find(|row| row[0] == metric && row[1] == method).unwrap();
        (row[3].as_str().unwrap().to_owned(), row[4].as_str().unwrap().to_owned())
    };
    for (metric, method) in [
        ("Recall", "Label prediction"),
        ("Precision", "Self-consistency"),
        ("Recall", "Self-consistency"),
        ("F1", "Self-consistency"),
    ] {
        let (ours, delta) = row(metric, method);
        assert!(delta == "+0.0000" && ours.contains(" to "), "{metric} {method}: {ours} {delta}");
    }
    assert!(row("AUROC", "Self-consistency").0.ends_with(", n = 391"), "{:?}", row("AUROC", "Self-consistency"));
}
