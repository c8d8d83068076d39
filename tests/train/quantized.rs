//! A quantised base through the commands: trained, resumed, predicted with, refused where it cannot be.

use super::*;

const NF4: [&str; 2] = ["--set", "model.quantize=nf4"];

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
    let predict = |output: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
        command.current_dir(fixture.path(".")).args(["predict", "--model", "nf4/checkpoints/epoch-01"]);
        command.args(["--input", "dev.jsonl", "--output", output, "--no-explanation", "--quiet"]).args(more);
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        probabilities(&fixture.read(output))
    };
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
    assert!(unknown.contains("none, int8, nf4"), "{unknown}");
    assert!(!fixture.path("run").exists());
}
