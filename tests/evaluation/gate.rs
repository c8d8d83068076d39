//! `eval --gate`: what is missed, what cannot be met, what is unknown.

use super::*;

#[test]
fn a_gate_exits_1_with_what_missed_after_everything_is_written() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(300, 90, 60, 100));
    bench.file(
        "ok.toml",
        "auroc = 0.1\ndefault.f1 = 0.2\ncalibration.ece = 0.9\n[calibration.slope]\nmin = -5\nmax = 50\n",
    );
    bench.eval(&["--predictions", "test.jsonl", "--gate", "ok.toml"]).assert().success();
    bench.file("missed.toml", "auroc = 0.999\ndefault.f1 = 0.2\ncalibration.brier = 0.001\njudge.rli = 0.1\n");
    let output = bench.eval(&["--predictions", "test.jsonl", "--gate", "missed.toml"]).assert().code(1);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    for missed in ["auroc = ", "calibration.brier = ", "judge.rli is undefined"] {
        assert!(stderr.contains(missed), "{stderr}");
    }
    assert!(!stderr.contains("default.f1"), "{stderr}");
    bench.file("never.toml", "auroc = { min = 0.9, max = 0.8 }\n");
    let output = bench.eval(&["--predictions", "test.jsonl", "--gate", "never.toml"]).assert().code(2);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("never.toml: auroc: min is above max"), "{stderr}");
    assert!(bench.path("run/eval/predictions/metrics.json").exists());
    for (name, text, want) in [
        ("typo.toml", "aurok = 0.5", "did you mean `auroc`"),
        ("bad.toml", "auroc = \"high\"", "a bound is a number"),
        ("none.toml", "", "names no metric"),
    ] {
        bench.file(name, text);
        let output = bench.eval(&["--predictions", "test.jsonl", "--gate", name]).assert().code(2);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains(want), "{name}");
    }
    bench.eval(&["--predictions", "test.jsonl", "--gate", "absent.toml"]).assert().code(2);
}
