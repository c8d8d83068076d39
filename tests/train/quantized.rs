//! A quantised base through the commands: trained, resumed, predicted with, refused where it cannot be.

use super::*;

const NF4: [&str; 2] = ["--set", "model.quantize=nf4"];
const FP8: [&str; 2] = ["--set", "model.quantize=fp8"];

#[test]
fn a_quantised_base_trains_resumes_and_predicts_as_it_was_trained() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    fixture.succeed("nf4", &NF4);
    fixture.succeed("int8", &["--set", "model.quantize=int8"]);
    let first = |run: &str| fixture.log(run, "step")[0]["loss_gen"].as_f64().unwrap();
    assert!((first("nf4") - first("whole")).abs() > 1e-6 && (first("nf4") - first("whole")).abs() < 0.5);
    assert!((first("int8") - first("whole")).abs() < (first("nf4") - first("whole")).abs());
    let info = |run: &str| fixture.json(&format!("{run}/checkpoints/epoch-01/clsgen.json"));
    assert_eq!((&info("nf4")["quantize"], &info("whole")["quantize"]), (&json!("nf4"), &json!(null)));

    // Cut and resumed, the same bytes.
    fixture.succeed("cut", &[&NF4[..], &["--set", "train.max_steps=2"]].concat());
    fixture.succeed("cut", &[&NF4[..], &["--resume"]].concat());
    assert_same(&fixture.result("nf4"), &fixture.result("cut"), "a resumed run on an nf4 base");
    let changed = fixture.fail("nf4", &["--resume"], 2);
    assert!(changed.contains("model.quantize (\"nf4\" → \"none\")"), "{changed}");

    // Predicting takes the base as training did, unless told otherwise: dev's own probabilities come back.
    let predict = |output: &str, more: &[&str]| predict(&fixture, "nf4", output, more);
    let dev = probabilities(&fixture.read("nf4/checkpoints/epoch-01/dev.predictions.jsonl"));
    assert_eq!(predict("as-trained.jsonl", &[]), dev);
    assert_ne!(predict("whole.jsonl", &["--set", "model.quantize=none"]), dev);
    assert_ne!(predict("int8.jsonl", &["--set", "model.quantize=int8"]), dev);

    // So does measuring, which has thresholds of such a base, and asks it for the baselines.
    let eval = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
        command.current_dir(fixture.path(".")).args(["eval", "--config", "config.toml", "--run", "nf4", "--quiet"]);
        command.args(["--split", "dev", "--baselines", "token_probability"]).args(more);
        command.output().unwrap()
    };
    let measured = eval(&[]);
    assert_eq!(measured.status.code(), Some(0), "{}", stderr(&measured));
    let asked = fixture.read("nf4/eval/dev/baselines/token_probability.jsonl");
    let refused = eval(&["--set", "model.quantize=none"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("model.quantize (\"nf4\" → \"none\")"), "{}", stderr(&refused));
    assert_eq!(fixture.read("nf4/eval/dev/baselines/token_probability.jsonl"), asked);
}

#[test]
fn an_fp8_base_trains_as_an_unquantised_one_does_and_is_predicted_with_as_trained() {
    let fixture = Fixture::new();
    let dropout = ["--set", "lora.dropout=0.2"];
    fixture.succeed("whole", &dropout);
    let flags = [&FP8[..], &dropout].concat();
    fixture.succeed("fp8", &flags);
    let losses = |run: &str| {
        let steps = fixture.log(run, "step");
        steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let furthest = losses("fp8").iter().zip(losses("whole")).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    crate::common::say(&format!("fp8: losses of 6 steps within {:.2} % of the unquantised run's", 100.0 * furthest));
    assert_eq!(losses("fp8").len(), 6);
    assert!(furthest > 1e-6 && furthest < 0.02, "{:?} and {:?}", losses("fp8"), losses("whole"));
    assert_eq!(fixture.json("fp8/checkpoints/epoch-01/clsgen.json")["quantize"], "fp8");

    fixture.succeed("cut", &[&flags[..], &["--set", "train.max_steps=2"]].concat());
    fixture.succeed("cut", &[&flags[..], &["--resume"]].concat());
    assert_same(&fixture.result("fp8"), &fixture.result("cut"), "a resumed run on an fp8 base");
    let changed = fixture.fail("fp8", &[&NF4[..], &dropout, &["--resume"]].concat(), 2);
    assert!(changed.contains("model.quantize (\"fp8\" → \"nf4\")"), "{changed}");

    let dev = probabilities(&fixture.read("fp8/checkpoints/epoch-01/dev.predictions.jsonl"));
    assert_eq!(predict(&fixture, "fp8", "as-trained.jsonl", &[]), dev);
    assert_ne!(predict(&fixture, "fp8", "whole.jsonl", &["--set", "model.quantize=none"]), dev);
    let half = predict(&fixture, "fp8", "half.jsonl", &["--set", "model.dtype=bf16"]);
    let apart = |one: &Value, other: &Value| (one.as_f64().unwrap() - other.as_f64().unwrap()).abs();
    assert!(half.iter().zip(&dev).all(|(half, dev)| apart(half, dev) < 0.02), "{half:?} and {dev:?}");

    let planned = fixture.succeed("plan", &[&FP8[..], &["--dry-run"]].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&planned.stdout), stderr(&planned));
    assert!(told.contains("fp8 needs compute capability 9.0 (H100, H200)"), "{told}");
}

/// `predict` of dev by the first epoch of `run`: its probabilities.
fn predict(fixture: &Fixture, run: &str, output: &str, more: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path(".")).args(["predict", "--model", &format!("{run}/checkpoints/epoch-01")]);
    command.args(["--input", "dev.jsonl", "--output", output, "--no-explanation", "--quiet"]).args(more);
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    probabilities(&fixture.read(output))
}

fn probabilities(lines: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["probability"].clone()).collect()
}

#[test]
fn what_trains_the_base_cannot_quantise_it() {
    let fixture = Fixture::new();
    let full = ["--set", "train.parameters=full"];
    let refused = fixture.fail("run", &[&NF4[..], &full].concat(), 2);
    assert!(refused.contains("model.quantize") && refused.contains("train.parameters"), "{refused}");
    let unknown = fixture.fail("run", &["--set", "model.quantize=fp4"], 2);
    assert!(unknown.contains("none, fp8, int8, nf4"), "{unknown}");
    assert!(!fixture.path("run").exists());
}
