//! Intervals where resamples can tell one, and the reasons of nulls.

use super::*;

/// Lines with a group each.
fn grouped(rows: &[(u8, f64, &str)]) -> String {
    let line = |(i, &(label, probability, group)): (usize, &(u8, f64, &str))| {
        json!({"id": format!("r{i}"), "label": label, "probability": probability, "group": group,
            "verbalized_label": label})
        .to_string()
    };
    rows.iter().enumerate().map(|row| line(row) + "\n").collect()
}

/// No interval is a point, and each that is missing says why.
fn check_intervals(path: &str, value: &Value) {
    let Some(object) = value.as_object() else { return };
    match object.get("ci95") {
        Some(Value::Null) => assert!(object["reason"].is_string(), "{path}: {value}"),
        Some(ci95) => assert!(ci95[0].as_f64() < ci95[1].as_f64(), "{path}: {value}"),
        None => object.iter().for_each(|(key, child)| check_intervals(&format!("{path}.{key}"), child)),
    }
}

#[test]
fn what_resamples_cannot_tell_has_no_interval_and_says_why() {
    let apart = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let row = |i: usize, group| (u8::from(i < 4), [0.9, 0.8, 0.3, 0.7, 0.2, 0.6, 0.1, 0.4][i], group);
    let file = |group: &dyn Fn(usize) -> &'static str| grouped(&(0..8).map(|i| row(i, group(i))).collect::<Vec<_>>());
    for (lines, resamples, at, reason) in [
        (file(&|i| if i < 4 { "one" } else { apart[i] }), "300", "recall", Some("all positives are one group")),
        (file(&|i| if i < 4 { apart[i] } else { "one" }), "300", "recall", Some("only one group holds no positive")),
        (file(&|_| "one"), "300", "f1", Some("all positives are one group")),
        (file(&|i| apart[i]), "1", "recall", Some("fewer than 200 resamples")),
        (file(&|i| apart[i]), "300", "recall", None),
    ] {
        let bench = Bench::new();
        bench.file("test.jsonl", &lines);
        bench
            .eval(&["--predictions", "test.jsonl", "--set", &format!("eval.bootstrap={resamples}")])
            .assert()
            .success();
        let metrics = bench.json("metrics.json");
        check_intervals("metrics", &metrics);
        let told = &metrics["default"][at];
        assert_eq!(told["ci95"].is_null(), reason.is_some(), "{told}");
        assert!(reason.is_none_or(|reason| told["reason"].as_str().unwrap().contains(reason)), "{told}");
    }
}

#[test]
fn a_proportion_of_1_has_clopper_and_pearsons_interval_over_its_groups() {
    let bench = Bench::new();
    // Ten positives in five groups, all found: 0.025^(1/5), as scipy's `binomtest(5, 5).proportion_ci()`.
    let rows: Vec<_> =
        (0..30).map(|i| (u8::from(i < 10), if i < 10 { 0.9 } else { 0.1 + 0.015 * i as f64 }, i / 2)).collect();
    let names: Vec<String> = (0..15).map(|group| format!("g{group}")).collect();
    bench.file(
        "test.jsonl",
        &grouped(&rows.iter().map(|&(label, p, group)| (label, p, names[group].as_str())).collect::<Vec<_>>()),
    );
    let output = bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    let recall = bench.json("metrics.json")["default"]["recall"].clone();
    assert!(
        (recall["ci95"][0].as_f64().unwrap() - 0.478_176_249_895_018_5).abs() < 1e-9 && recall["ci95"][1] == 1.0,
        "{recall}"
    );
    // An AUROC of exactly 1 does not vary: no interval, and a line that doubts it.
    let auroc = bench.json("metrics.json")["auroc"].clone();
    assert_eq!(
        (&auroc["value"], &auroc["ci95"], &auroc["reason"]),
        (&json!(1.0), &Value::Null, &json!("no interval: no variation"))
    );
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("AUROC is exactly 1"));
}

#[test]
fn the_shared_files_of_one_group_have_no_interval_of_one_point() {
    let Some(folder) = common::shared("cases/05") else { return };
    for (name, at) in [
        ("onepospatient.jsonl", "/default/recall"),
        ("onegroup.jsonl", "/calibration/brier"),
        ("onegroup.jsonl", "/parsable"),
    ] {
        let bench = Bench::new();
        bench.eval(&["--predictions", folder.join(name).to_str().unwrap()]).assert().success();
        let metrics = bench.json("metrics.json");
        check_intervals(name, &metrics);
        assert!(metrics.pointer(at).is_some_and(|leaf| leaf["ci95"].is_null() && leaf["value"].is_f64()), "{name}{at}");
    }
}

#[test]
fn reasons_are_the_causes() {
    let unparsable = |i: usize| {
        json!({"id": format!("r{i}"), "label": i % 2, "probability": 0.5, "parsable": false}).to_string() + "\n"
    };
    let bench = Bench::new();
    bench.file("test.jsonl", &(0..8).map(unparsable).collect::<String>());
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "test.jsonl"]).assert().success();
    let metrics = bench.json("metrics.json");
    // `parsable: false` is an answer, text or not: the rate is 0.
    assert_eq!((&metrics["parsable"]["value"], &metrics["parsable"]["n"]), (&json!(0.0), &json!(8)));
    for at in ["/auroc_align/reason", "/default/kappa/reason"] {
        assert_eq!(metrics.pointer(at), Some(&json!("no generated text could be parsed")), "{at}");
    }
    assert_eq!(metrics["calibration"]["slope"]["reason"], "every probability is the same");
    assert!(
        bench.json("calibration.json")["methods"]["temperature"]["reason"]
            .as_str()
            .unwrap()
            .contains("every probability is 0.5")
    );
    let bench = Bench::new();
    bench.file(
        "test.jsonl",
        "{\"id\": 1, \"label\": 1, \"probability\": 0.9}\n{\"id\": 2, \"label\": 0, \"probability\": 0.2}\n",
    );
    bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    assert_eq!(bench.json("metrics.json")["auroc_align"]["reason"], "the predictions hold no generated text");
}

#[test]
fn a_gate_knows_which_way_each_metric_is_better() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(300, 90, 60, 100));
    bench.file("near.toml", "calibration.slope = 0.8\n");
    let output = bench.eval(&["--predictions", "test.jsonl", "--gate", "near.toml"]).assert().code(2);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("calibration.slope is best at 1"));
    bench.file("ceilings.toml", "aurc = 0.99\ncalibration.brier = 0.99\ndefault.cost = 0.99\n");
    bench.eval(&["--predictions", "test.jsonl", "--gate", "ceilings.toml"]).assert().success();
    bench.file("shown.toml", &format!("default.recall = {}\n", 60.0 / 90.0 + 1e-7));
    let output = bench.eval(&["--predictions", "test.jsonl", "--gate", "shown.toml"]).assert().code(1);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("default.recall = 0.6666667, below"));
}
