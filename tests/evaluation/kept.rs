//! What an evaluation keeps, refuses or gives back: never another's work, never for a name alone.

use super::*;

/// `clsgen eval` of the run, killed before it has the hash of its second line.
fn killed(fixture: &Fixture, flags: &[&str]) {
    killed_at(fixture, 4, flags);
}

/// The same, killed before that append: two of them are a line and its hash.
fn killed_at(fixture: &Fixture, append: usize, flags: &[&str]) {
    let mut command = common::clsgen();
    command.current_dir(fixture.path(".")).args(["eval", "--run", "run", "--set", "eval.bootstrap=300"]);
    let output = command.args(flags).env("CLSGEN_FAULT", format!("log.append:{append}")).output().unwrap();
    assert_eq!(output.status.code(), None, "{}", stderr(&output));
}

#[test]
fn what_an_interrupted_overwrite_was_to_replace_comes_back() {
    let fixture = finished_run();
    succeed(&fixture, &[&TEST[..], &["--compare-base"]].concat());
    let names = ["predictions.jsonl", "metrics.json", "base.metrics.json"];
    let read = || names.map(|name| fixture.read(&format!("run/eval/test/{name}")));
    let whole = read();
    fixture.write("run/eval/test/tables/mine.txt", "mine");
    // Neither the first nor the next costs it.
    for (name, count) in [("other.jsonl", 11), ("third.jsonl", 9)] {
        fixture.write(name, notes(count));
        killed(&fixture, &["--overwrite", "--set", &format!("data.test={name}")]);
        assert!(fixture.read("run/eval/.test.replaced/predictions.jsonl") == whole[0], "{name}");
    }
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--overwrite brings back run/eval/.test.replaced"), "{}", stderr(&output));
    // What waits is known before it is back.
    let all = ["--overwrite", "--paper", "all", "--set", "task.name=lcd30", "--dry-run", "--json"];
    let document: Value = serde_json::from_slice(&succeed(&fixture, &[&TEST[..], &all].concat()).stdout).unwrap();
    let parts = document["dry_run"]["--paper all"].as_array().unwrap();
    let predictions = parts.iter().find(|part| part["part"] == "predictions").unwrap();
    assert_eq!(predictions["answers"], 0, "{document:#}");
    let output = succeed(&fixture, &[&TEST[..], &["--overwrite"]].concat());
    assert!(stderr(&output).contains("12 of 12 records are scored already"), "{}", stderr(&output));
    assert!(read() == whole, "{}", stderr(&output));
    assert_eq!(fixture.read("run/eval/test/tables/mine.txt"), b"mine");
    assert!(!fixture.path("run/eval/.test.replaced").exists());
}

#[test]
fn what_splits_share_comes_back_with_the_folder() {
    let fixture = finished_run();
    let plain = [&TEST[..], &["--set", "eval.calibrate=none"]].concat();
    succeed(&fixture, &[&plain[..], &["--compare-base"]].concat());
    let read = || ["thresholds.json", "test/base.metrics.json"].map(|name| fixture.read(&format!("run/eval/{name}")));
    let whole = read();
    fixture.write("other.jsonl", notes(11));
    // It tunes and fits anew, and is killed before it keeps a line.
    killed_at(&fixture, 1, &["--overwrite", "--set", "data.test=other.jsonl", "--set", "eval.cost_fp=3"]);
    assert!(fixture.path("run/eval/.test.replaced").exists() && fixture.path("run/eval/calibration.json").exists());
    assert!(fixture.read("run/eval/thresholds.json") != whole[0]);
    succeed(&fixture, &plain);
    assert!(read() == whole);
    assert!(!fixture.path("run/eval/calibration.json").exists());
    assert!(!fixture.path("run/eval/test/calibration.json").exists());
}

#[test]
fn labels_in_another_order_are_another_evaluation_of_prediction_files() {
    let fixture = finished_run();
    let line = |i: usize| {
        let mut probabilities = [0.2; 3];
        probabilities[i * 7 % 3] = 0.6;
        serde_json::json!({"id": format!("n{i}"), "label": i / 2 % 3, "probabilities": probabilities}).to_string()
            + "\n"
    };
    fixture.write("three.jsonl", (0..30).map(line).collect::<String>());
    let labelled = |labels: &str| eval(&fixture, &["--predictions", "three.jsonl", "--set", labels]);
    let labels = r#"task.labels=["a","b","c"]"#;
    let output = labelled(labels);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let metrics = fixture.read("run/eval/predictions/metrics.json");
    let output = labelled(r#"task.labels=["c","b","a"]"#);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let told = r#"task.labels (["a","b","c"] → ["c","b","a"])"#;
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    assert!(fixture.read("run/eval/predictions/metrics.json") == metrics);
    // What an older clsgen made does not tell its own.
    let mut older = json_of(&fixture, "predictions/settings.json");
    assert!(older["made"]["measuring"].as_object_mut().unwrap().remove("task.labels").is_some());
    fixture.write("run/eval/predictions/settings.json", older.to_string());
    assert_eq!(labelled(labels).status.code(), Some(0));
}

#[test]
fn lines_without_their_hashes_are_refused_but_where_the_power_may_have_failed() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let whole = fixture.read("run/eval/test/predictions.jsonl");
    fixture.write("run/eval/test/predictions.hashes", "");
    let output = eval(&fixture, &TEST);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("12 of its lines have no hash"), "{}", stderr(&output));
    assert!(fixture.read("run/eval/test/predictions.jsonl") == whole);
    // Nothing was measured yet: the disk may not have had what was written last.
    std::fs::remove_file(fixture.path("run/eval/test/metrics.json")).unwrap();
    let output = succeed(&fixture, &TEST);
    assert!(stderr(&output).contains("12 of its lines have no hash"), "{}", stderr(&output));
    assert!(fixture.read("run/eval/test/predictions.jsonl") == whole);
}

#[test]
fn what_is_called_dev_is_in_sample_by_its_records() {
    let fixture = finished_run();
    fixture.write("other.jsonl", notes(12).replace("\"n", "\"other"));
    let output = succeed(&fixture, &["--split", "dev", "--set", "data.dev=other.jsonl"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("in-sample"));
    assert!(!json_of(&fixture, "dev/metrics.json").to_string().contains("in-sample"));
    // Ten of these are dev's.
    succeed(&fixture, &["--split", "dev", "--set", "data.dev=test.jsonl", "--overwrite"]);
    assert_eq!(json_of(&fixture, "dev/metrics.json")["dev_overlap"], 10);
}

/// What a checkpoint without its run said of dev may be of other windows and other decoding: neither ids nor labels
/// tell.
#[test]
fn dev_of_a_checkpoint_without_its_run_is_predicted_anew() {
    const DEV: [&str; 4] = ["--split", "dev", "--set", "data.dev=dev.jsonl"];
    for known in [false, true] {
        let fixture = finished_run();
        fixture.succeed("dev.jsonl", "other.out", &["--set", "model.max_input_tokens=100"]);
        let [now, then] = ["dev.out", "other.out"].map(|name| fixture.read(name));
        assert!(now != then, "some notes are longer than the window");
        fixture.write("run/checkpoints/epoch-01/dev.predictions.jsonl", &then);
        if known {
            write_trained(&fixture, serde_json::json!({}));
        }
        let output = succeed(&fixture, &DEV);
        assert!(fixture.read("run/eval/dev/predictions.jsonl") == if known { then } else { now }, "{known}");
        assert_eq!(stderr(&output).contains("no train.json says how"), !known, "{}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("in-sample"), "{known}");
        // What is finished needs no model, whoever made it.
        std::fs::remove_dir_all(fixture.path("base")).unwrap();
        succeed(&fixture, &DEV);
    }
}

/// What `--paper all` has still to write of dev is what will be written.
#[test]
fn the_plan_counts_dev_where_it_is_predicted_anew() {
    let fixture = finished_run();
    let plan = || -> Value {
        let all = ["--split", "dev", "--set", "data.dev=dev.jsonl", "--paper", "all", "--set", "task.name=lcd30"];
        let output = succeed(&fixture, &[&all[..], &["--dry-run", "--json"]].concat());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let parts = document["dry_run"]["--paper all"].as_array().unwrap().clone();
        parts.into_iter().find(|part| part["part"] == "predictions").unwrap()["answers"].clone()
    };
    assert_eq!(plan(), 10);
    write_trained(&fixture, serde_json::json!({}));
    assert_eq!(plan(), Value::Null);
}
