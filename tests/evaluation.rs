//! `clsgen eval --predictions`: from prediction files of any tool to `RUN/eval`.

#[path = "evaluation/against.rs"]
mod against;
#[path = "common/mod.rs"]
mod common;
#[path = "evaluation/gate.rs"]
mod gate;
#[path = "evaluation/honest.rs"]
mod honest;
#[path = "evaluation/intervals.rs"]
mod intervals;
#[path = "evaluation/journal.rs"]
mod journal;
#[path = "evaluation/saturated.rs"]
mod saturated;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use clsgen::metrics::agreement::landis_koch;
use common::{Scratch, in_scratch};
use serde_json::{Value, json};

/// A directory, and files in it.
struct Bench(Scratch);

in_scratch!(Bench);

impl Bench {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn file(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, lines).unwrap();
        path
    }

    fn eval(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("clsgen").unwrap();
        command
            .current_dir(self.path(""))
            .args(["eval", "--run", "run", "--set", "eval.bootstrap=200", "--overwrite"])
            .args(arguments);
        command
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    /// A file of the evaluation.
    fn text(&self, name: &str) -> String {
        self.0.text(&format!("run/eval/predictions/{name}"))
    }
}

/// One prediction line of our own kind.
fn line(id: usize, label: u8, probability: f64, verbalized: Option<u8>) -> String {
    let value = json!({
        "id": format!("r{id}"), "label": label, "probability": probability, "logits": [0.0, 1.0],
        "verbalized_label": verbalized,
        "parsable": verbalized.is_some(), "explanation": verbalized.map(|_| "a secret of the patient"),
        "text": "a secret of the patient",
        "error": null,
    });
    value.to_string() + "\n"
}

/// Predictions whose counts at 0.5 are these, with text that mostly agrees.
fn counted(n: usize, positives: usize, true_positives: usize, predicted: usize) -> String {
    let mut lines = String::new();
    for i in 0..n {
        let label = i < positives;
        let called = i < true_positives || (i >= positives && i < positives + predicted - true_positives);
        let step = (i % 97) as f64 / 97.0;
        let probability = if called { 0.5 + 0.45 * step } else { 0.45 * step };
        let verbalized = (i % 41 != 0).then_some(u8::from(called ^ (i % 19 == 0)));
        lines += &line(i, u8::from(label), probability, verbalized);
    }
    lines
}

fn rounded(leaf: &Value) -> String {
    format!("{:.4}", leaf["value"].as_f64().unwrap())
}

#[test]
fn the_papers_default_rows_come_out_of_prediction_files() {
    for (n, positives, true_positives, predicted, want) in
        [(7568, 261, 37, 66, ["0.5606", "0.1418", "0.2263"]), (394, 113, 95, 108, ["0.8796", "0.8407", "0.8597"])]
    {
        let bench = Bench::new();
        bench.file("test.jsonl", &counted(n, positives, true_positives, predicted));
        bench.eval(&["--predictions", "test.jsonl"]).assert().success();
        let metrics = bench.json("metrics.json");
        let default = &metrics["default"];
        assert_eq!([rounded(&default["precision"]), rounded(&default["recall"]), rounded(&default["f1"])], want);
        assert_eq!((metrics["schema"].as_u64(), metrics["n"].as_u64()), (Some(1), Some(n as u64)));
        assert!(metrics["tuned"].is_null(), "no dev, no tuned values");
    }
}

/// Every leaf is `{value, ci95, n, reason?}`; only `threshold`, `schema` and `n` at the top are bare.
fn check_leaves(path: &str, value: &Value) {
    let Some(object) = value.as_object() else { panic!("{path} is bare: {value}") };
    if object.contains_key("value") {
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert!(
            keys.iter().all(|key| ["value", "ci95", "n", "reason"].contains(key)) && keys.len() >= 3,
            "{path}: {keys:?}"
        );
        assert!(object["n"].is_u64(), "{path}");
        match &object["value"] {
            Value::Null => {
                assert!(object["reason"].is_string() && object["ci95"].is_null(), "{path}: null needs a reason")
            }
            number => assert!(number.is_f64() || number.is_u64(), "{path}"),
        }
        return;
    }
    for (key, child) in object.iter().filter(|(key, _)| *key != "threshold") {
        check_leaves(&format!("{path}.{key}"), child);
    }
}

#[test]
fn metrics_json_has_the_contracts_shape_and_stdout_says_the_same() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(300, 90, 60, 100));
    bench.file("dev.jsonl", &counted(200, 50, 30, 70));
    let arguments = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"];
    let output = bench.eval(&arguments).arg("--json").assert().success();
    let metrics = bench.json("metrics.json");
    assert_eq!(String::from_utf8_lossy(&output.get_output().stdout), bench.text("metrics.json"));
    let object = metrics.as_object().unwrap();
    for key in ["auroc", "auprc", "aurc", "default", "tuned", "auroc_align", "parsable", "judge", "calibration"] {
        check_leaves(key, &object[key]);
    }
    assert_eq!(metrics["default"]["threshold"], 0.5);
    for leaf in [
        &metrics["auroc"],
        &metrics["tuned"]["f1"]["f1"],
        &metrics["tuned"]["kappa"]["kappa"],
        &metrics["calibration"]["ece"],
    ] {
        let value = leaf["value"].as_f64().unwrap();
        let ci95 = leaf["ci95"].as_array().unwrap();
        assert!(ci95[0].as_f64().unwrap() < ci95[1].as_f64().unwrap(), "{value} {ci95:?}");
    }
    let table = bench.eval(&arguments).assert().success();
    let table = String::from_utf8_lossy(&table.get_output().stdout).into_owned();
    let auroc = format!("{:.4}", metrics["auroc"]["value"].as_f64().unwrap());
    let band = landis_koch(metrics["default"]["kappa"]["value"].as_f64().unwrap());
    assert!(table.contains("| AUROC ") && table.contains(&auroc) && table.contains(band), "{table}");
    for extension in ["md", "tex", "csv", "json"] {
        assert!(bench.text(&format!("tables/metrics.{extension}")).contains(&auroc));
    }
}

#[test]
fn thresholds_come_from_dev_alone_and_are_written_before_test_is_read() {
    let bench = Bench::new();
    let dev = bench.file("dev.jsonl", &counted(200, 50, 30, 70));
    bench.file("test.jsonl", &counted(300, 90, 60, 100));
    let flipped = bench
        .0
        .text("test.jsonl")
        .replace("\"label\":0", "\"label\":x")
        .replace("\"label\":1", "\"label\":0")
        .replace("\"label\":x", "\"label\":1");
    bench.file("flipped.jsonl", &flipped);
    let mut frozen = Vec::new();
    for test in ["test.jsonl", "flipped.jsonl"] {
        bench.eval(&["--predictions", test, "--dev-predictions", "dev.jsonl"]).assert().success();
        frozen.push(bench.text("thresholds.json"));
    }
    assert_eq!(frozen[0], frozen[1], "test labels must not move a threshold");
    let thresholds = bench.json("thresholds.json");
    assert_eq!(thresholds["dev"]["blake3"], blake3::hash(&std::fs::read(dev).unwrap()).to_hex().to_string());
    assert!(thresholds["checkpoint"].is_null());
    assert_eq!(bench.json("metrics.json")["tuned"]["f1"]["threshold"], thresholds["thresholds"]["f1"]["threshold"]);

    std::fs::remove_dir_all(bench.path("run")).unwrap();
    bench.file("broken.jsonl", "{\"id\": \"a\"\n");
    bench.eval(&["--predictions", "broken.jsonl", "--dev-predictions", "dev.jsonl"]).assert().code(3);
    assert_eq!(bench.text("thresholds.json"), frozen[0]);
    assert!(!bench.path("run/eval/predictions/metrics.json").exists());
}

#[test]
fn thresholds_tuned_on_the_scored_records_are_called_in_sample() {
    let bench = Bench::new();
    bench.file("dev.jsonl", &counted(200, 50, 30, 70));
    std::fs::copy(bench.path("dev.jsonl"), bench.path("copy.jsonl")).unwrap();
    let output = bench.eval(&["--predictions", "copy.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    assert!(String::from_utf8_lossy(&output.get_output().stdout).contains("in-sample"));
    let metrics = bench.json("metrics.json");
    assert!(metrics["tuned"]["f1"]["f1"]["reason"].as_str().unwrap().contains("in-sample"));
    assert!(metrics["default"]["f1"]["reason"].is_null());
    assert!(metrics["calibration"]["brier"]["reason"].is_null());
    let after = metrics["calibration"]["brier_after"]["reason"].as_str().unwrap();
    assert_eq!(after, "in-sample: the calibrator was fitted on these records");
}

#[test]
fn numbers_do_not_depend_on_threads() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(300, 90, 60, 100));
    let mut written = Vec::new();
    for threads in ["1", "2"] {
        bench.eval(&["--predictions", "test.jsonl", "--threads", threads]).assert().success();
        written.push(bench.text("metrics.json"));
    }
    assert_eq!(written[0], written[1]);
}

#[test]
fn groups_in_the_file_widen_the_interval() {
    let bench = Bench::new();
    let plain = counted(200, 60, 40, 60);
    let mut grouped = String::new();
    for (i, line) in plain.lines().enumerate() {
        let group = format!(",\"group\":\"g{}\"}}", i / 20);
        let _ = writeln!(grouped, "{}{group}", &line[..line.len() - 1]);
    }
    let mut widths = Vec::new();
    for lines in [plain, grouped] {
        bench.file("test.jsonl", &lines);
        bench.eval(&["--predictions", "test.jsonl"]).assert().success();
        let ci95 = bench.json("metrics.json")["auroc"]["ci95"].clone();
        widths.push(ci95[1].as_f64().unwrap() - ci95[0].as_f64().unwrap());
    }
    assert!(widths[1] > 1.2 * widths[0], "{widths:?}");
}

#[test]
fn files_of_other_tools_need_only_id_label_and_probability() {
    let bench = Bench::new();
    bench.file(
        "test.jsonl",
        "\u{feff}{\"id\": 1, \"label\": 1, \"probability\": 0.9, \"mine\": []}\r\n\r\n{\"id\": 2, \"label\": 0, \
        \"probability\": 0}\n",
    );
    bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    let metrics = bench.json("metrics.json");
    assert_eq!(metrics["auroc"]["value"], 1.0);
    assert!(metrics["parsable"]["value"].is_null() && metrics["parsable"]["reason"].is_string());
    assert!(metrics["auroc_align"]["value"].is_null());
}

#[test]
fn bad_predictions_exit_3_with_file_record_and_field_and_no_text() {
    let good = line(0, 1, 0.5, Some(1));
    let cases: [(&str, String, &str); 9] = [
        ("not JSON", "{\"id\": \"secret".into(), "record 2"),
        ("a label of 2", line(1, 2, 0.5, None), "record 2, field label"),
        ("no label", "{\"id\": \"a\", \"probability\": 0.5, \"text\": \"secret\"}\n".into(), "record 2, field label"),
        ("a probability of 1.5", line(1, 1, 1.5, None), "record 2, field probability"),
        ("no probability", "{\"id\": \"a\", \"label\": 1}\n".into(), "record 2, field probability"),
        (
            "a null probability",
            "{\"id\": \"a\", \"label\": 1, \"probability\": null}\n".into(),
            "record 2, field \
            probability",
        ),
        ("an id twice", line(0, 1, 0.5, None), "record 2, field id"),
        (
            "an error line",
            "{\"id\": \"a\", \"label\": 1, \"probability\": null, \"error\": {\"kind\": \"empty_text\", \"message\": \
            \"secret\"}}\n"
                .into(),
            "record 2, field error",
        ),
        (
            "parsable without a label",
            "{\"id\": \"a\", \"label\": 1, \"probability\": 0.1, \"parsable\": true}\n".into(),
            "record 2, field verbalized_label",
        ),
    ];
    for (name, second, want) in cases {
        let bench = Bench::new();
        bench.file("test.jsonl", &(good.clone() + &second));
        let output = bench.eval(&["--predictions", "test.jsonl"]).assert().code(3);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains("test.jsonl") && stderr.contains(want) && stderr.contains("hint:"), "{name}: {stderr}");
        assert!(!stderr.contains("secret"), "{name} prints text: {stderr}");
        assert!(!bench.path("run/eval/predictions/metrics.json").exists());
    }
    for lines in ["", "\n\n"] {
        let bench = Bench::new();
        bench.file("test.jsonl", lines);
        bench.eval(&["--predictions", "test.jsonl"]).assert().code(3);
    }
    Bench::new().eval(&["--predictions", "absent.jsonl"]).assert().code(3);
    let output = Bench::new().eval(&["--predictions", "/dev/stdin"]).write_stdin(good).assert().code(3);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("is a named pipe") && stderr.contains("hint: write them to a file"), "{stderr}");
}

#[test]
fn one_class_is_null_with_a_reason_and_no_failure() {
    let bench = Bench::new();
    bench.file("test.jsonl", &(line(0, 0, 0.1, Some(0)) + &line(1, 0, 0.2, None)));
    bench.file("dev.jsonl", &line(0, 0, 0.1, Some(0)));
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    let metrics = bench.json("metrics.json");
    assert!(metrics["auroc"]["value"].is_null() && metrics["auroc"]["reason"].is_string());
    assert!(metrics["tuned"]["f1"]["threshold"].is_null());
    for (leaf, cause) in [
        (&metrics["tuned"]["f1"]["f1"], "it has only one class"),
        (&metrics["tuned"]["youden"]["cost"], "it has only one class"),
    ] {
        assert_eq!(leaf["reason"], format!("no threshold could be tuned on dev: {cause}"));
    }
    // Another cause for the same null.
    bench.file("dev.jsonl", &(line(0, 0, 0.1, None) + &line(1, 1, 0.2, None)));
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    let reason = &bench.json("metrics.json")["tuned"]["kappa"]["kappa"]["reason"];
    assert_eq!(reason, "no threshold could be tuned on dev: it has no parsable record");
    assert!(!bench.text("metrics.json").contains("NaN"));
}

#[test]
fn columns_of_subgroups_are_read_and_only_those() {
    let bench = Bench::new();
    let with = |id: usize, sex: Value| {
        let mut value: Value =
            serde_json::from_str(&line(id, u8::from(id.is_multiple_of(2)), 0.2 + 0.1 * id as f64, Some(1))).unwrap();
        value["sex"] = sex;
        value.to_string() + "\n"
    };
    bench.file(
        "test.jsonl",
        &(with(0, json!("f")) + &with(1, json!(2)) + &with(2, Value::Null) + &line(3, 0, 0.4, Some(0))),
    );
    bench.eval(&["--predictions", "test.jsonl", "--set", "eval.subgroups=[\"sex\"]"]).assert().success();
    bench.file("test.jsonl", &(with(0, json!("f")) + &with(1, json!(["secret"]))));
    bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    let told = bench.eval(&["--predictions", "test.jsonl", "--set", "eval.subgroups=[\"sex\"]"]).assert().code(3);
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(
        told.contains("test.jsonl, record 2, field sex: is not a string or an integer") && !told.contains("secret"),
        "{told}"
    );
    bench.file("test.jsonl", &with(0, json!("f")));
    let told = bench.eval(&["--predictions", "test.jsonl", "--set", "eval.subgroups=[\"sx\"]"]).assert().code(3);
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(told.contains("field sx: no record has it") && told.contains("hint: `eval.subgroups`"), "{told}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(50, 20, 10, 20));
    bench.eval(&["--predictions", "test.jsonl", "--dry-run"]).assert().success();
    assert!(!Path::new(&bench.path("run")).exists());
}

#[test]
fn paper_tables_stand_beside_ours_with_the_difference() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(394, 113, 95, 108));
    let output = bench
        .eval(&["--predictions", "test.jsonl", "--paper", "table1,table2,table3,table4,table7"])
        .assert()
        .success();
    let stdout = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(stdout.contains("Table 2") && stdout.contains("CliniFact"), "known by its counts: {stdout}");
    let table = bench.json("tables/table2.json");
    let row = table["rows"].as_array().unwrap().iter().find(|row| row[0] == "F1" && row[1] == "CLSGen, 0.5").unwrap();
    assert_eq!(row[2], "0.8597");
    assert!(row[3].as_str().unwrap().starts_with("0.8597 (") && row[4] == "+0.0000", "{row}");
    for (name, extension) in [("table1", "md"), ("table3", "csv"), ("table4", "tex"), ("table7", "json")] {
        assert!(!bench.text(&format!("tables/{name}.{extension}")).is_empty());
    }
    bench.file("other.jsonl", &counted(100, 30, 20, 30));
    let output = bench.eval(&["--predictions", "other.jsonl", "--paper", "table2"]).assert().code(2);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("task.name=lcd30"));
    bench.eval(&["--predictions", "other.jsonl", "--paper", "table2", "--set", "task.name=lcd30"]).assert().success();
    assert!(bench.text("tables/table2.md").contains("LCD benchmark 30 days"));
    // What was asked for stays, with the task that it was asked for.
    let mut again = Command::cargo_bin("clsgen").unwrap();
    again.current_dir(bench.path("")).args(["eval", "--run", "run", "--set", "eval.bootstrap=200"]);
    again.args(["--predictions", "other.jsonl"]).assert().success();
    again.args(["--paper", "table4"]).assert().success();
    assert!(bench.text("tables/table4.md").contains("LCD benchmark 30 days"));
    assert!(bench.text("tables/table2.md").contains("LCD benchmark 30 days"));
}
