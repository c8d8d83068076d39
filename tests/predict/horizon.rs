//! Which of the LCD benchmark's labels stands in a prediction.

use serde_json::Value;

use super::{Fixture, common, json, parse_lines, stderr};

/// A checkpoint does not say which of the labels it predicts: its run does, or the command.
#[test]
fn the_label_of_a_prediction_is_the_runs_or_refused() {
    const TASK: &str = "out_hospital_mortality_30";
    const LATER: &str = "out_hospital_mortality_90";
    let fixture = Fixture::new();
    fixture.write("one.json", json!({ "data": [{ "id": 1, "text": "a note", TASK: 0 }] }).to_string());
    fixture.write("other.json", json!({ "data": [{ "id": 1, "text": "a note", LATER: 1 }] }).to_string());
    let both = |id: usize| json!({ "id": id, "text": "a note", TASK: 0, LATER: 1 });
    fixture.write("both.json", json!({ "data": [both(1), both(2)] }).to_string());
    let labels = |input: &str, flags: &[&str]| -> Vec<Value> {
        fixture.succeed(input, "out.jsonl", &[&["--no-explanation", "--overwrite"], flags].concat());
        fixture.lines("out.jsonl").iter().map(|line| line["label"].clone()).collect()
    };
    for input in ["both.json", "one.json", "other.json"] {
        let refused = fixture.predict(input, "refused.jsonl", &["--no-explanation"]);
        let told = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("record 1, field label: ") && told.contains("--set data.horizon=90"), "{input}: {told}");
        assert!(!fixture.path("refused.jsonl").exists());
    }
    assert_eq!(labels("both.json", &["--set", "data.horizon=30"]), [0, 0]);
    assert_eq!(labels("both.json", &["--set", &format!("data.fields.label={LATER}")]), [1, 1]);
    // What a run says without having read such a label, it does not say: a default, or a name of its own.
    for unsaid in [json!({ "data.horizon": 30 }), json!({ "data.horizon": 90, "data.fields.label": LATER })] {
        fixture.write("run/train.json", unsaid.to_string());
        assert_eq!(labels("one.json", &[]), [0], "no other is there");
        assert_eq!(fixture.predict("both.json", "refused.jsonl", &["--no-explanation"]).status.code(), Some(2));
    }
    fixture.write("run/train.json", json!({ "data.horizon": 30, "data.format": "lcd" }).to_string());
    assert_eq!(labels("both.json", &[]), [0, 0]);
    fixture.write("run/train.json", json!({ "data.horizon": 90 }).to_string());
    assert_eq!(labels("both.json", &[]), [1, 1]);
    assert_eq!(labels("both.json", &["--set", "data.horizon=30"]), [0, 0]);
    let mut by_run = common::clsgen();
    by_run.current_dir(fixture.path("")).args(["predict", "--model", "run", "--no-explanation"]);
    let told = common::outcome(by_run.args(["--input", "both.json", "--output", "-"]));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(parse_lines(told.stdout.as_bytes())[1]["label"], 1);
}

/// An input that has a column of the usual name beside the one that the run read would be predicted by the wrong one.
#[test]
fn columns_that_the_run_read_by_other_names_are_told() {
    let fixture = Fixture::new();
    let told = |flags: &[&str]| {
        let result = fixture.predict("in.csv", "out.jsonl", &[&["--no-explanation", "--overwrite"], flags].concat());
        assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
        stderr(&result).contains("its run read other columns (text=full_note) than this command does")
    };
    fixture.write("in.csv", "id,text,full_note\n1,short,whole\n");
    assert!(!told(&[]));
    fixture.write(
        "run/train.json",
        json!({ "data.fields.text": "full_note", "data.fields.explanation": "why" }).to_string(),
    );
    assert!(told(&[]));
    assert!(!told(&["--set", "data.fields.text=full_note"]) && !told(&["--set", "data.fields.text=text"]));
}
