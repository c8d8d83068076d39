//! What PyTorch and PEFT compute in ten steps (`tests/golden/train.py`).

use serde_json::Value;

use super::fixture::{Fixture, golden, stderr};

const GOLDEN_FLAGS: [&str; 26] = [
    "--set",
    "lora.dropout=0.0",
    "--set",
    "head.dropout=0.0",
    "--set",
    "train.epochs=4",
    "--set",
    "train.max_steps=10",
    "--set",
    "train.warmup_steps=3",
    "--set",
    "train.w_cls=0.5",
    "--set",
    "train.shuffle=false",
    "--set",
    "model.max_output_tokens=96",
    "--set",
    "data.dev=\"train.jsonl\"",
    "--set",
    "train.learning_rate=5e-3",
    "--set",
    "train.weight_decay=0.01",
    "--set",
    "train.max_grad_norm=1.0",
    "--seed",
    "7",
];

#[test]
fn ten_steps_log_what_pytorch_computes() {
    ten_steps("", &[]);
}

/// The head, its loss (smoothed by 0.1) and its gradients over more classes than two.
#[test]
fn ten_steps_of_three_and_of_seven_classes_log_what_pytorch_computes() {
    for (folder, labels) in [
        ("classes-3/", r#"task.labels=["0:a","1:b","2:c"]"#),
        ("classes-7/", r#"task.labels=["0:a","1:b","2:c","3:d","4:e","5:f","6:g"]"#),
    ] {
        ten_steps(folder, &["--set", labels, "--set", "train.label_smoothing=0.1"]);
    }
}

/// Head and text pulled together by 0.7.
#[test]
fn ten_steps_of_the_consistency_loss_log_what_pytorch_computes() {
    ten_steps("consistency/", &["--set", "train.w_consistency=0.7"]);
}

/// Both classes weighing alike, four positives among eleven records, the loss corrected for it.
#[test]
fn ten_steps_of_weighted_classes_log_what_pytorch_computes() {
    ten_steps("weights/", &["--set", "train.class_weights=balanced"]);
}

fn ten_steps(folder: &str, flags: &[&str]) {
    let golden = |name: &str| golden(&format!("{folder}{name}"));
    let fixture = Fixture::new();
    fixture.write("train.jsonl", std::fs::read(golden("train.jsonl")).unwrap());
    let init = format!("train.init_from={:?}", golden("init"));
    fixture.succeed("run", &[&GOLDEN_FLAGS[..], &["--set", &init], flags].concat());
    let expected: Vec<Value> = serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap();
    let steps = fixture.log("run", "step");
    assert_eq!(steps.len(), expected.len());
    for (step, expected) in steps.iter().zip(&expected) {
        for key in ["step", "epoch", "records", "tokens", "target_tokens"] {
            assert_eq!(step[key], expected[key], "{key} of {expected}");
        }
        assert_eq!(step.get("loss_consistency").is_some(), expected.get("loss_consistency").is_some());
        for (key, tolerance) in [
            ("loss", 1e-4),
            ("loss_gen", 1e-4),
            ("loss_cls", 1e-4),
            ("loss_consistency", 1e-4),
            ("grad_norm", 1e-3),
            ("lr", 1e-12),
        ] {
            if expected.get(key).is_none() {
                continue;
            }
            let difference = step[key].as_f64().unwrap() - expected[key].as_f64().unwrap();
            assert!(difference.abs() < tolerance, "{key}: {} for {}", step[key], expected);
        }
    }
    weights_are_those_of_pytorch(&fixture, golden("final.safetensors"));
}

fn weights_are_those_of_pytorch(fixture: &Fixture, reference: std::path::PathBuf) {
    let load = |path: std::path::PathBuf| candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    let expected = load(reference);
    let adapter = load(fixture.path("run/checkpoints/epoch-04/adapter_model.safetensors"));
    let head = load(fixture.path("run/checkpoints/epoch-04/cls_head.safetensors"));
    assert_eq!(adapter.len() + head.len(), expected.len());
    for (name, expected) in &expected {
        let ours = adapter
            .get(name)
            .or_else(|| head.get(name.strip_prefix("cls_head.").unwrap_or(name)))
            .unwrap_or_else(|| panic!("{name}"));
        let difference: f32 = (ours - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        // Adam divides by √v: where gradients are near nothing, rounding decides. 2 % of a step of 5e-3.
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn the_consistency_loss_is_refused_where_it_has_no_meaning() {
    let fixture = Fixture::new();
    fixture.write("three.jsonl", std::fs::read(golden("classes-3/train.jsonl")).unwrap());
    let consistency = ["--set", "train.w_consistency=1"];
    let labels = r#"task.labels=["alive","alone","dead"]"#;
    fixture.write("whole.toml", "format = \"plain\"\nuser = \"{document}\"\nresponse = \"{explanation}\"\n");
    for (flags, words) in [
        (&["--set", labels, "--set", "data.train=\"three.jsonl\""][..], "\"alive\" and \"alone\" have the first token"),
        (&["--set", "task.prompt=whole.toml"], "train.w_consistency: the prompt's response is the explanation alone"),
        (&["--set", "train.objective=cls"], "train.w_consistency: compares head and text"),
        (&["--set", "train.objective=lm"], "train.w_consistency: compares head and text"),
    ] {
        let output = fixture.command("none", &[&consistency[..], flags].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words) && stderr(&output).contains("hint: "), "{}", stderr(&output));
        assert!(!fixture.path("none/checkpoints").exists());
    }
}
