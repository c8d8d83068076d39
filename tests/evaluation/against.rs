//! `eval --against`: two prediction files of the same records, paired.

use super::*;

fn value(json: &Value, path: &[&str]) -> f64 {
    path.iter().fold(json, |json, key| &json[key]).as_f64().unwrap()
}

/// The lines in another order.
fn reversed(lines: &str) -> String {
    lines.lines().rev().map(|line| format!("{line}\n")).collect()
}

#[test]
fn two_files_of_the_same_records_are_compared_record_by_record() {
    let bench = Bench::new();
    bench.file("better.jsonl", &counted(300, 90, 80, 100));
    bench.file("worse.jsonl", &reversed(&counted(300, 90, 40, 100)));
    let flags = ["--predictions", "better.jsonl", "--against", "worse.jsonl", "--json"];
    let output = bench.eval(&flags).assert().success();
    let told: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let other = bench.json("against.metrics.json");
    assert_eq!(told["against"]["other"], other);
    let table = bench.json("tables/against.json");
    let row = |name: &str| table["rows"].as_array().unwrap().iter().find(|row| row[0] == name).unwrap().clone();
    let difference = |name: &str| row(name)[3].as_str().unwrap().split(' ').next().unwrap().replace('−', "-");
    for (name, path) in [("F1", ["default", "f1", "value"]), ("Recall", ["default", "recall", "value"])] {
        let apart = value(&told, &path) - value(&other, &path);
        assert!((difference(name).parse::<f64>().unwrap() - apart).abs() < 1e-4, "{name}: {table}");
    }
    assert!(
        row("Recall")[4].as_str().unwrap().trim_start_matches('<').trim().parse::<f64>().unwrap() < 0.05,
        "{table}"
    );
    // Against itself nothing differs.
    bench.eval(&["--predictions", "better.jsonl", "--against", "better.jsonl"]).assert().success();
    let same = bench.json("tables/against.json");
    let first = &same["rows"][0];
    assert!(first[3].as_str().unwrap().starts_with("0.0000"), "{same}");
}

#[test]
fn a_later_command_of_the_same_settings_keeps_the_comparison() {
    let bench = Bench::new();
    bench.file("a.jsonl", &counted(120, 40, 30, 50));
    bench.file("b.jsonl", &counted(120, 40, 20, 50));
    bench.eval(&["--predictions", "a.jsonl", "--against", "b.jsonl"]).assert().success();
    let table = bench.text("tables/against.json");
    let again = || {
        let mut command = Command::cargo_bin("clsgen").unwrap();
        command.current_dir(bench.path("")).args(["eval", "--run", "run", "--set", "eval.bootstrap=200"]);
        command.args(["--predictions", "a.jsonl"]).assert().success()
    };
    again();
    assert_eq!(bench.text("tables/against.json"), table);
    std::fs::remove_file(bench.path("b.jsonl")).unwrap();
    let told = again();
    assert!(String::from_utf8_lossy(&told.get_output().stderr).contains("b.jsonl is gone"));
    assert!(!bench.path("run/eval/predictions/tables/against.json").exists());
}

#[test]
fn other_records_and_other_labels_are_told() {
    let bench = Bench::new();
    let lines = counted(60, 20, 15, 20);
    bench.file("a.jsonl", &lines);
    let some: String = lines.lines().take(58).map(|line| format!("{line}\n")).collect();
    let other = lines.replacen("\"label\":1", "\"label\":0", 1);
    for (name, text, words) in [
        ("fewer.jsonl", some.clone(), "2 of those scored are not there, 0 others are"),
        ("more.jsonl", lines.clone() + &line(9999, 0, 0.1, None), "0 of those scored are not there, 1 others are"),
        ("label.jsonl", other, "record 1, field label: is not that of the record scored"),
    ] {
        bench.file(name, &text);
        let output = bench.eval(&["--predictions", "a.jsonl", "--against", name]).assert().code(3);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains(words) && stderr.contains("hint: ") && !stderr.contains("secret"), "{stderr}");
    }
    // Without labels of its own it is taken to have those of the records scored.
    bench.file("none.jsonl", &lines.replace("\"label\":1", "\"label\":null").replace("\"label\":0", "\"label\":null"));
    bench.eval(&["--predictions", "a.jsonl", "--against", "none.jsonl"]).assert().success();
}
