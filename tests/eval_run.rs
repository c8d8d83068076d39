//! `clsgen eval` of a run directory, on a tiny random checkpoint.

#[path = "eval/run.rs"]
mod run;

use run::{Fixture, eval, finished_run, json, notes, stderr, succeed};
use serde_json::Value;

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

/// Fits Platt's calibrator on dev: the tiny random model may be no better than chance, where no temperature exists.
const PLATT: [&str; 4] = ["--set", "data.test=test.jsonl", "--set", "eval.calibrate=platt"];

#[test]
fn predict_applies_the_calibrator_that_eval_saved_for_this_checkpoint() {
    let fixture = finished_run();
    let refused = |flags: &[&str], text: &str| {
        let output = fixture.predict("test.jsonl", "refused.out", flags);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(text) && stderr(&output).contains("hint: run `clsgen eval`"), "{}", stderr(&output));
    };
    refused(&["--calibrated"], "there is no eval/calibration.json");
    succeed(&fixture, &PLATT);
    fixture.succeed("test.jsonl", "plain.out", &[]);
    fixture.succeed("test.jsonl", "calibrated.out", &["--calibrated"]);
    let saved = json(&fixture, "calibration.json");
    assert_eq!(saved["checkpoint"]["path"], "checkpoints/epoch-01");
    let platt = &saved["methods"]["platt"]["calibrator"];
    let (a, b) = (platt["intercept"].as_f64().unwrap(), platt["slope"].as_f64().unwrap());
    for (plain, calibrated) in fixture.lines("plain.out").iter().zip(fixture.lines("calibrated.out")) {
        let p = plain["probability"].as_f64().unwrap();
        let want = 1.0 / (1.0 + (-(a + b * (p / (1.0 - p)).ln())).exp());
        assert!((calibrated["calibrated_probability"].as_f64().unwrap() - want).abs() < 1e-12);
        assert_eq!((&plain["probability"], &plain["calibrated_probability"]), (&calibrated["probability"], &Value::Null));
    }
    // What was made without a calibrator is not continued with one.
    let output = fixture.predict("test.jsonl", "plain.out", &["--calibrated"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("another settings"), "{}", stderr(&output));
    // Another checkpoint has none.
    let config = String::from_utf8(fixture.read("run/checkpoints/epoch-01/clsgen.json")).unwrap();
    fixture.write("run/checkpoints/epoch-01/clsgen.json", config.replace("\"max_output_tokens\":48", "\"max_output_tokens\":47"));
    refused(&["--calibrated"], "was fitted for another checkpoint");
    // A prediction file names no checkpoint.
    let files = ["--predictions", "calibrated.out", "--dev-predictions", "plain.out", "--set", "eval.calibrate=platt"];
    succeed(&fixture, &files);
    refused(&["--calibrated"], "was fitted to a prediction file");
}

#[test]
fn the_report_of_a_run_holds_notes_only_when_asked_and_says_what_the_splits_share() {
    let fixture = finished_run();
    let page = |fixture: &Fixture| String::from_utf8(fixture.read("run/eval/report.html")).unwrap();
    succeed(&fixture, &[&TEST[..], &["--set", "data.dev=dev.jsonl"]].concat());
    assert!(!page(&fixture).contains("SECRET") && page(&fixture).contains("dev and test") && page(&fixture).contains("epoch-01"));
    assert!(String::from_utf8(fixture.read("run/eval/tables/leakage.md")).is_ok_and(|table| !table.contains("SECRET")));
    succeed(&fixture, &[&TEST[..], &["--include-text"]].concat());
    assert!(page(&fixture).contains("SECRET"));
}
