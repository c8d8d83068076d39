//! `clsgen eval` of a run directory, on a tiny random checkpoint.

#[allow(dead_code)]
#[path = "predict/fixture.rs"]
mod fixture;

use std::process::{Command, Output};

use fixture::{Fixture, notes, stderr};
use serde_json::Value;

/// A run with one epoch, its dev predictions (of the first 10 notes), and a test split of 12 notes.
fn finished_run() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("dev.jsonl", notes(10));
    fixture.write("test.jsonl", notes(12));
    fixture.succeed("dev.jsonl", "dev.out", &[]);
    let dev = fixture.read("dev.out");
    fixture.write("run/checkpoints/epoch-01/dev.predictions.jsonl", dev);
    fixture
}

fn eval(fixture: &Fixture, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command
        .current_dir(fixture.path("."))
        .args(["eval", "--run", "run", "--set", "eval.bootstrap=50"])
        .args(flags)
        .env("RUST_BACKTRACE", "0");
    let output = command.output().unwrap();
    assert!(!stderr(&output).contains("SECRET"), "{}", stderr(&output));
    output
}

fn succeed(fixture: &Fixture, flags: &[&str]) -> Output {
    let output = eval(fixture, flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

fn json(fixture: &Fixture, name: &str) -> Value {
    serde_json::from_slice(&fixture.read(&format!("run/eval/{name}"))).unwrap()
}

const TEST: [&str; 2] = ["--set", "data.test=test.jsonl"];

#[test]
fn test_is_scored_as_predict_scores_it_with_thresholds_of_the_checkpoints_dev() {
    let fixture = finished_run();
    fixture.succeed("test.jsonl", "test.out", &[]);
    succeed(&fixture, &TEST);
    assert_eq!(fixture.read("run/eval/predictions.jsonl"), fixture.read("test.out"));
    let (metrics, thresholds) = (json(&fixture, "metrics.json"), json(&fixture, "thresholds.json"));
    assert_eq!(metrics["n"], 12);
    assert_eq!(thresholds["checkpoint"]["path"], "checkpoints/epoch-01");
    assert_eq!(thresholds["dev"]["blake3"], blake3::hash(&fixture.read("dev.out")).to_hex().to_string());
    assert_eq!((&thresholds["n"], &thresholds["in_sample"]), (&Value::from(10), &Value::from(false)));
    assert_eq!(metrics["tuned"]["f1"]["threshold"], thresholds["thresholds"]["f1"]["threshold"]);
    let run: Value = serde_json::from_slice(&fixture.read("run/run.json")).unwrap();
    assert_eq!(run["command"], "eval");
}

#[test]
fn a_stopped_evaluation_goes_on_and_a_finished_one_needs_no_model() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let whole = fixture.read("run/eval/predictions.jsonl");
    let metrics = fixture.read("run/eval/metrics.json");
    let third = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0;
    fixture.write("run/eval/predictions.jsonl", &whole[..third + 20]);
    let output = succeed(&fixture, &TEST);
    assert!(stderr(&output).contains("3 of 12 records are scored already"), "{}", stderr(&output));
    assert_eq!(fixture.read("run/eval/predictions.jsonl"), whole);
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    succeed(&fixture, &TEST);
    assert_eq!(fixture.read("run/eval/metrics.json"), metrics);
    // Other records are another evaluation: nothing is kept, and the model is missed.
    fixture.write("test.jsonl", notes(11));
    assert_eq!(eval(&fixture, &TEST).status.code(), Some(4));
}

#[test]
fn dev_keeps_the_checkpoints_predictions_and_is_called_in_sample() {
    let fixture = finished_run();
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    let output = succeed(&fixture, &["--split", "dev", "--set", "data.dev=dev.jsonl"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("in-sample"));
    assert_eq!(fixture.read("run/eval/predictions.jsonl"), fixture.read("dev.out"));
    assert_eq!(json(&fixture, "thresholds.json")["in_sample"], true);
    assert!(json(&fixture, "metrics.json")["tuned"]["f1"]["f1"]["reason"].as_str().unwrap().contains("in-sample"));
}

#[test]
fn without_test_or_dev_predictions_the_message_says_what_to_do() {
    let fixture = finished_run();
    let output = eval(&fixture, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("data.test") && stderr(&output).contains("--split dev"), "{}", stderr(&output));
    std::fs::remove_file(fixture.path("run/checkpoints/epoch-01/dev.predictions.jsonl")).unwrap();
    let output = succeed(&fixture, &TEST);
    assert!(stderr(&output).contains("no thresholds"), "{}", stderr(&output));
    assert!(json(&fixture, "metrics.json")["tuned"].is_null());
    std::fs::remove_file(fixture.path("run/best.json")).unwrap();
    assert_eq!(eval(&fixture, &TEST).status.code(), Some(4));
}

#[test]
fn records_without_a_label_stop_it_before_any_work() {
    let fixture = finished_run();
    fixture.write("test.jsonl", "{\"id\": \"a\", \"text\": \"SECRET\"}\n");
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("test.jsonl") && stderr(&output).contains("label"), "{}", stderr(&output));
}
