//! `clsgen eval` of a run directory, on a tiny random checkpoint.

mod common;
#[path = "evaluation/kept.rs"]
mod kept;
#[path = "evaluation/run.rs"]
mod run;

use std::{collections::BTreeMap, mem::MaybeUninit};

use run::{Fixture, eval, finished_run, json, json_of, notes, stderr, succeed, write_trained};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use serde_json::Value;

const TEST: [&str; 2] = ["--set", "data.test=test.jsonl"];

#[test]
fn test_is_scored_as_predict_scores_it_with_thresholds_of_the_checkpoints_dev() {
    let fixture = finished_run();
    fixture.succeed("test.jsonl", "test.out", &[]);
    succeed(&fixture, &TEST);
    assert_eq!(fixture.read("run/eval/test/predictions.jsonl"), fixture.read("test.out"));
    let metrics = json(&fixture, "metrics.json");
    let thresholds = json_of(&fixture, "thresholds.json");
    assert_eq!(metrics["n"], 12);
    assert_eq!(thresholds["checkpoint"]["path"], "checkpoints/epoch-01");
    assert_eq!(thresholds["dev"]["blake3"], blake3::hash(&fixture.read("dev.out")).to_hex().to_string());
    assert_eq!(thresholds["n"], 10);
    assert_eq!(metrics["tuned"]["f1"]["threshold"], thresholds["thresholds"]["f1"]["threshold"]);
    let run: Value = serde_json::from_slice(&fixture.read("run/run.json")).unwrap();
    assert_eq!(run["command"], "eval");
}

/// A checkpoint stays as it was written: what names it by its content would no longer find it.
#[test]
fn a_checkpoint_is_no_run_directory() {
    let fixture = finished_run();
    let mut command = common::clsgen();
    command.current_dir(fixture.path(".")).args(["eval", "--run", "run/checkpoints/epoch-01"]).args(TEST);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("is a checkpoint, not a run directory"), "{}", stderr(&output));
    for made in ["run.json", "eval"] {
        assert!(!fixture.path(&format!("run/checkpoints/epoch-01/{made}")).exists(), "{made}");
    }
}

/// The split that is scored needs no dev file: thresholds come from the checkpoint.
#[test]
fn a_dev_file_that_is_gone_is_told_and_not_taken_for_another() {
    let fixture = finished_run();
    fixture.write("run/train.json", r#"{"data.dev": "00ff"}"#);
    let output = succeed(&fixture, &[&TEST[..], &["--set", "data.dev=gone.jsonl"]].concat());
    assert!(stderr(&output).contains("gone.jsonl is not there"), "{}", stderr(&output));
}

#[test]
fn thresholds_of_an_older_clsgen_gain_the_operating_points() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let whole = fixture.read("run/eval/thresholds.json");
    let mut older: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(older.as_object_mut().unwrap().remove("operating_points").unwrap().as_array().unwrap().len(), 5);
    fixture.write("run/eval/thresholds.json", older.to_string());
    succeed(&fixture, &TEST);
    assert_eq!(fixture.read("run/eval/thresholds.json"), whole);
    // Anything else is somebody's edit.
    older["n"] = 11.into();
    fixture.write("run/eval/thresholds.json", older.to_string());
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn a_stopped_evaluation_goes_on_and_a_finished_one_needs_no_model() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let whole = fixture.read("run/eval/test/predictions.jsonl");
    let metrics = fixture.read("run/eval/test/metrics.json");
    let third = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0;
    fixture.write("run/eval/test/predictions.jsonl", &whole[..third + 20]);
    let output = succeed(&fixture, &TEST);
    assert!(stderr(&output).contains("3 of 12 records are scored already"), "{}", stderr(&output));
    assert_eq!(fixture.read("run/eval/test/predictions.jsonl"), whole);
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    succeed(&fixture, &TEST);
    assert_eq!(fixture.read("run/eval/test/metrics.json"), metrics);
    // Other records are another evaluation: refused, and nothing is touched.
    fixture.write("test.jsonl", notes(11));
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("records (its content differs)") && stderr(&output).contains("hint: --overwrite"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fixture.read("run/eval/test/predictions.jsonl"), whole);
    // Replaced on demand: nothing is kept, and the model is missed.
    assert_eq!(eval(&fixture, &[&TEST[..], &["--overwrite"]].concat()).status.code(), Some(4));
}

#[test]
fn dev_keeps_the_checkpoints_predictions_and_is_called_in_sample() {
    let fixture = finished_run();
    write_trained(&fixture, serde_json::json!({}));
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    let output = succeed(&fixture, &["--split", "dev", "--set", "data.dev=dev.jsonl"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("in-sample"));
    assert_eq!(fixture.read("run/eval/dev/predictions.jsonl"), fixture.read("dev.out"));
    assert!(
        json_of(&fixture, "dev/metrics.json")["tuned"]["f1"]["f1"]["reason"].as_str().unwrap().contains("in-sample")
    );
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
        assert!(
            stderr(&output).contains(text) && stderr(&output).contains("hint: run `clsgen eval`"),
            "{}",
            stderr(&output)
        );
    };
    refused(&["--calibrated"], "there is no eval/calibration.json");
    succeed(&fixture, &PLATT);
    fixture.succeed("test.jsonl", "plain.out", &[]);
    fixture.succeed("test.jsonl", "calibrated.out", &["--calibrated"]);
    let saved = json_of(&fixture, "calibration.json");
    assert_eq!(saved["checkpoint"]["path"], "checkpoints/epoch-01");
    let platt = &saved["methods"]["platt"]["calibrator"];
    let a = platt["intercept"].as_f64().unwrap();
    let b = platt["slope"].as_f64().unwrap();
    for (plain, calibrated) in fixture.lines("plain.out").iter().zip(fixture.lines("calibrated.out")) {
        let p = plain["probability"].as_f64().unwrap();
        let want = 1.0 / (1.0 + (-(a + b * (p / (1.0 - p)).ln())).exp());
        assert!((calibrated["calibrated_probability"].as_f64().unwrap() - want).abs() < 1e-12);
        assert_eq!(
            (&plain["probability"], &plain["calibrated_probability"]),
            (&calibrated["probability"], &Value::Null)
        );
    }
    // What was made without a calibrator is not continued with one.
    let output = fixture.predict("test.jsonl", "plain.out", &["--calibrated"]);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("other settings: calibration"),
        "{}",
        stderr(&output)
    );
    // Another checkpoint has none.
    let config = String::from_utf8(fixture.read("run/checkpoints/epoch-01/clsgen.json")).unwrap();
    fixture.write(
        "run/checkpoints/epoch-01/clsgen.json",
        config.replace("\"max_output_tokens\":48", "\"max_output_tokens\":47"),
    );
    refused(&["--calibrated"], "was fitted for another checkpoint");
    // A prediction file names no checkpoint, and replaces nothing of one.
    let files = ["--predictions", "calibrated.out", "--dev-predictions", "plain.out", "--set", "eval.calibrate=platt"];
    succeed(&fixture, &files);
    // It keeps its calibrator in a folder of its own.
    assert!(json_of(&fixture, "predictions/calibration.json")["checkpoint"].is_null());
    assert_eq!(json_of(&fixture, "calibration.json"), saved);
}

#[test]
fn the_report_of_a_run_holds_notes_only_when_asked_and_says_what_the_splits_share() {
    let fixture = finished_run();
    let page = |fixture: &Fixture| String::from_utf8(fixture.read("run/eval/test/report.html")).unwrap();
    succeed(&fixture, &[&TEST[..], &["--set", "data.dev=dev.jsonl"]].concat());
    assert!(
        !page(&fixture).contains("SECRET")
            && page(&fixture).contains("dev and test")
            && page(&fixture).contains("epoch-01")
    );
    assert!(
        String::from_utf8(fixture.read("run/eval/test/tables/leakage.md")).is_ok_and(|table| !table.contains("SECRET"))
    );
    succeed(&fixture, &[&TEST[..], &["--include-text"]].concat());
    assert!(page(&fixture).contains("SECRET"));
}

#[test]
fn a_split_leaves_the_others_alone_and_its_predictions_give_its_numbers() {
    let fixture = finished_run();
    let grouped: String = (0..12)
        .map(|i| {
            format!(
                "{{\"id\": \"n{i}\", \"text\": \"SECRET note {i}\", \"label\": {}, \"group\": \"p{}\", \"sex\": \
                \"F\"}}\n",
                i % 2,
                i / 3
            )
        })
        .collect();
    fixture.write("test.jsonl", grouped);
    let flags = [&TEST[..], &["--set", "eval.subgroups=[\"sex\"]"]].concat();
    succeed(&fixture, &flags);
    let first = fixture.lines("run/eval/test/predictions.jsonl")[3].clone();
    assert_eq!((&first["group"], &first["sex"]), (&Value::from("p1"), &Value::from("F")));
    let kept = ["metrics.json", "predictions.jsonl", "report.html", "tables/metrics.md", "figures/roc.svg"];
    let read = |fixture: &Fixture| kept.map(|name| fixture.read(&format!("run/eval/test/{name}")));
    let before = read(&fixture);
    succeed(&fixture, &["--split", "dev", "--set", "data.dev=dev.jsonl"]);
    let own = "run/eval/test/predictions.jsonl";
    let files = ["--predictions", own, "--dev-predictions", "run/checkpoints/epoch-01/dev.predictions.jsonl"];
    succeed(&fixture, &[&files[..], &flags[2..]].concat());
    assert!(read(&fixture) == before, "another split's command touches nothing of test");
    // Clustered by the groups it carries, the run's own file gives the run's bytes.
    assert_eq!(fixture.read("run/eval/predictions/metrics.json"), before[0]);
}

#[test]
fn what_was_changed_since_is_refused_and_overwrite_makes_it_again() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let whole = fixture.read("run/eval/test/predictions.jsonl");
    let edited = String::from_utf8(whole.clone()).unwrap().replacen("\"probability\":0.", "\"probability\":0.9", 1);
    fixture.write("run/eval/test/predictions.jsonl", edited);
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("predictions.jsonl, line 1: was changed"), "{}", stderr(&output));
    succeed(&fixture, &[&TEST[..], &["--overwrite"]].concat());
    assert_eq!(fixture.read("run/eval/test/predictions.jsonl"), whole);
    // Thresholds that dev does not give are somebody's edit.
    let thresholds = fixture.read("run/eval/thresholds.json");
    fixture.write(
        "run/eval/thresholds.json",
        String::from_utf8(thresholds.clone()).unwrap().replace("\"n\": 10", "\"n\": 11"),
    );
    let output = eval(&fixture, &TEST);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("thresholds.json"), "{}", stderr(&output));
    succeed(&fixture, &[&TEST[..], &["--overwrite"]].concat());
    assert_eq!(fixture.read("run/eval/thresholds.json"), thresholds);
    // The older layout is neither read nor destroyed.
    fixture.write("run/eval/metrics.json", "{}");
    let output = eval(&fixture, &TEST);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("older clsgen"), "{}", stderr(&output));
    assert_eq!(fixture.read("run/eval/metrics.json"), b"{}");
}

#[test]
fn a_copy_of_dev_is_in_sample_under_any_name() {
    let fixture = finished_run();
    let other_ids = notes(10).replace("\"n", "\"copy");
    for (name, lines) in [("same.jsonl", notes(10)), ("renamed.jsonl", other_ids)] {
        fixture.write("copy.jsonl", lines);
        let flags = ["--set", "data.test=copy.jsonl", "--set", "data.dev=dev.jsonl", "--overwrite"];
        let output = succeed(&fixture, &flags);
        assert!(String::from_utf8_lossy(&output.stdout).contains("in-sample"), "{name}");
    }
    succeed(&fixture, &[&TEST[..], &["--set", "data.dev=dev.jsonl", "--overwrite"]].concat());
    assert!(!json(&fixture, "metrics.json")["tuned"].to_string().contains("in-sample"));
}

/// How often each file in these folders is opened while `work` runs, by its name.
fn opened(fixture: &Fixture, folders: &[&str], work: impl FnOnce()) -> BTreeMap<String, usize> {
    let watched = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for folder in folders {
        // With what closes it between, two openings are two events.
        let events = WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watched, fixture.path(folder), events).unwrap();
    }
    work();
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let mut events = inotify::Reader::new(watched, &mut buffer);
    let mut opened = BTreeMap::new();
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_str().unwrap().to_owned()).unwrap_or_default();
        *opened.entry(name).or_default() += usize::from(event.events().contains(ReadFlags::OPEN));
    }
    opened
}

#[test]
fn an_evaluation_reads_each_of_its_files_once() {
    let fixture = finished_run();
    let judged = [&TEST[..], &["--set", "eval.judge=base", "--set", "model.allow_long=true"]].concat();
    succeed(&fixture, &judged);
    let folders = ["run/checkpoints/epoch-01", "run/eval/test"];
    for flags in [&judged[..], &TEST] {
        let opened = opened(&fixture, &folders, || drop(succeed(&fixture, flags)));
        // For what it says, and for the checkpoint's hash.
        assert_eq!(opened["clsgen.json"], 2, "{opened:?}");
        assert_eq!(opened["dev.predictions.jsonl"], 1, "{opened:?}");
        // To be read, and to be gone on with.
        assert_eq!(opened["predictions.jsonl"], 2, "{opened:?}");
        assert!(opened["judge.jsonl"] <= 2, "{opened:?}");
    }
}

#[test]
fn a_judge_reads_the_texts_of_the_base_before_tuning_too() {
    let fixture = finished_run();
    let judge = ["--compare-base", "--set", "eval.judge=base", "--set", "model.allow_long=true"];
    succeed(&fixture, &[&TEST[..], &judge].concat());
    let judged = fixture.lines("run/eval/test/base.judge.jsonl");
    assert!(!judged.is_empty() && judged.len() <= 12, "{judged:?}");
    let base = json(&fixture, "base.metrics.json")["judge"].clone();
    assert_eq!(base["readability"]["n"], 12, "every text counts: {base}");
    let table = json(&fixture, "tables/compare_base.json");
    let row = |name: &str| table["rows"].as_array().unwrap().iter().find(|row| row[0] == name).cloned();
    for name in ["RLI", "κ rationale, label", "Readability"] {
        assert!(row(name).is_some(), "{name}: {table}");
    }
    // A command without a judge keeps what was judged of both.
    succeed(&fixture, &[&TEST[..], &["--compare-base"]].concat());
    assert_eq!(json(&fixture, "base.metrics.json")["judge"], base);
    assert_eq!(json(&fixture, "tables/compare_base.json"), table);
}

#[test]
fn dev_predictions_are_those_of_the_checkpoints_manifest() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let dev = "run/checkpoints/epoch-01/dev.predictions.jsonl";
    let bytes = fixture.read(dev);
    let entry = serde_json::json!({"length": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().to_string()});
    let manifest = serde_json::json!({"schema": 1, "files": {"dev.predictions.jsonl": entry}});
    fixture.write("run/checkpoints/epoch-01/manifest.json", manifest.to_string());
    succeed(&fixture, &TEST);
    let edited = String::from_utf8(bytes).unwrap().replacen("\"label\":0", "\"label\":1", 1);
    fixture.write(dev, edited);
    let output = eval(&fixture, &[&TEST[..], &["--overwrite"]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("dev.predictions.jsonl: its BLAKE3 differs"), "{}", stderr(&output));
}
