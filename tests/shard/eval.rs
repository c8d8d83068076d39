//! The parts of predictions, scored as one file.

use std::process::Command;

use serde_json::{Value, json};

use super::{common, fixture::Fixture};

fn eval(fixture: &Fixture, run: &str, args: &[&str]) -> common::Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path("")).args(["eval", "--json", "--quiet", "--run", run]).args(args);
    common::outcome(&mut command)
}

#[test]
fn eval_reads_parts_as_one_file() {
    let fixture = Fixture::new();
    let line = |i: usize| {
        let p = (i * 37 % 100) as f64 / 100.0;
        json!({"id": format!("e{i}"), "label": i % 2, "probability": p, "verbalized_label": i / 2 % 2,
            "group": format!("g{}", i / 3), "sex": if i < 20 { Value::Null } else { "f".into() }})
        .to_string()
            + "\n"
    };
    let lines = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
    for (name, range) in [
        ("whole", 0..60),
        ("a", 0..20),
        ("b", 20..20),
        ("c", 20..60),
        ("dev", 60..90),
        ("dev-a", 60..71),
        ("dev-b", 71..90),
    ] {
        fixture.write(&format!("{name}.jsonl"), lines(range));
    }
    let subgroups = ["--set", "eval.subgroups=[\"sex\"]"];
    let whole = eval(
        &fixture,
        "whole",
        &[&["--predictions", "whole.jsonl", "--dev-predictions", "dev.jsonl"], &subgroups[..]].concat(),
    );
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(whole.stdout.contains("auroc"), "{}", whole.stdout);
    let listed = ["--predictions", "a.jsonl", "b.jsonl", "c.jsonl", "--dev-predictions", "dev-a.jsonl", "dev-b.jsonl"];
    let repeated =
        ["--predictions", "a.jsonl", "--predictions", "b.jsonl", "c.jsonl", "--dev-predictions", "dev.jsonl"];
    for (run, args) in [("listed", &listed), ("repeated", &repeated)] {
        let told = eval(&fixture, run, &[&args[..], &subgroups[..]].concat());
        assert_eq!((told.code, &told.stdout), (Some(0), &whole.stdout), "{run}: {}", told.stderr);
    }
    // The bytes are the whole file's, and so is the folder that they made.
    let again = eval(&fixture, "whole", &[&listed[..], &subgroups[..]].concat());
    assert_eq!((again.code, &again.stdout), (Some(0), &whole.stdout), "{}", again.stderr);
    // In another order they are another input.
    let turned = eval(&fixture, "whole", &[&["--predictions", "c.jsonl", "a.jsonl"], &subgroups[..]].concat());
    common::assert_fails(&turned, 2, &["was made by other settings: predictions"]);

    // What cannot be scored is named by its own file.
    fixture.write("unlabelled.jsonl", lines(90..92).replacen("\"label\":1", "\"label\":null", 1));
    let told = eval(&fixture, "bad", &["--predictions", "a.jsonl", "unlabelled.jsonl"]);
    common::assert_fails(&told, 3, &["unlabelled.jsonl, record 2, field label"]);
    let told = eval(&fixture, "bad", &["--predictions", "a.jsonl", "whole.jsonl"]);
    common::assert_fails(&told, 3, &["whole.jsonl, record 1, field id: the same as a.jsonl, record 1's"]);
    let told = eval(&fixture, "bad", &["--predictions", "a.jsonl", "gone.jsonl"]);
    common::assert_fails(&told, 3, &["gone.jsonl"]);
}
