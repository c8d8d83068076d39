//! What an evaluation says of itself: of dev's records among the scored, of what did not fit, of lines that contradict
//! themselves, of files that are not its own.

use super::*;

#[test]
fn an_intercept_that_only_rounding_moves_has_no_interval() {
    for positives in [10, 5] {
        let bench = Bench::new();
        let row = |i: usize| json!({"id": i, "label": u8::from(i < positives), "probability": u8::from(i < positives)});
        bench.file("test.jsonl", &(0..20).map(|i| row(i).to_string() + "\n").collect::<String>());
        bench.eval(&["--predictions", "test.jsonl"]).assert().success();
        let intercept = bench.json("metrics.json")["calibration"]["intercept"].clone();
        assert_eq!((&intercept["ci95"], &intercept["reason"]), (&Value::Null, &json!("no interval: no variation")));
        // n₊(1 − q₊) = n₋ q₋ of probabilities that are 10⁻¹² from their ends: half the log of the ratio.
        let want = (positives as f64 / (20 - positives) as f64).ln() / 2.0;
        assert!((intercept["value"].as_f64().unwrap() - want).abs() < 1e-4, "{intercept}");
    }
}

#[test]
fn lines_that_contradict_themselves_are_told_and_scored() {
    let bench = Bench::new();
    let line = |i: usize, logits: [f64; 2], parsable: bool| {
        json!({"id": i, "label": i % 2, "probability": 0.5, "logits": logits, "verbalized_label": 1,
            "parsable": parsable})
        .to_string()
            + "\n"
    };
    bench.file(
        "test.jsonl",
        &[line(0, [1.0, 1.0], true), line(1, [0.0, 1.0], true), line(2, [1.0, 1.0], false)].concat(),
    );
    let told = bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    let stderr = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(stderr.contains("2 of 3 predictions contradict themselves; the first, "), "{stderr}");
    assert!(stderr.contains("record 2: the probability is not the softmax"), "{stderr}");
    bench.file("test.jsonl", &[line(0, [1.0, 1.0], true), line(1, [1.0, 1.0 + 1e-7], true)].concat());
    let told = bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    assert!(!String::from_utf8_lossy(&told.get_output().stderr).contains("contradict"));
}
