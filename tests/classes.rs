//! Three classes from end to end through the binary: train, eval with all that it offers, predict; another verdict
//! line.

mod common;
#[path = "train/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "classes/methods.rs"]
mod methods;

use fixture::{Fixture, stderr};
use serde_json::{Value, json};

const LABELS: &str = r#"task.labels=["worse","the same","better"]"#;

const PROMPT: &str = r#"
system = "You read notes."
user = "Note: {document}"
question = "Worse, the same or better?"
prefix = "Reasoning: "
verdict = "Answer: {label}"
format = "plain"
"#;

/// Notes whose class follows from their text; labels by number or by name.
fn notes(count: usize) -> String {
    let note = |i: usize| {
        let (class, finding) = [(0, "fell ill "), (1, "rested "), (2, "walked far ")][i % 3];
        let label = if i.is_multiple_of(2) { json!(class) } else { json!(["worse", "the same", "better"][class]) };
        json!({"id": format!("n{i}"), "text": format!("{} {i} {}", fixture::SECRET, finding.repeat(1 + i % 2)),
            "label": label, "explanation": format!("The patient {finding}."), "group": format!("g{}", i / 2)})
        .to_string()
            + "\n"
    };
    (0..count).map(note).collect()
}

fn trained() -> Fixture {
    trained_under(&[])
}

fn trained_under(flags: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("prompt.toml", PROMPT);
    fixture.write("train.jsonl", notes(24));
    fixture.write("dev.jsonl", notes(18));
    // What eval is told by the checkpoint alone.
    let config = String::from_utf8(fixture.read("config.toml")).unwrap();
    fixture.write("config.toml", config.replace("labels = [\"0:alive\", \"1:death\"]\n", ""));
    fixture.succeed("run", &[&["--set", LABELS, "--set", "generate.constrain=true"], flags].concat());
    fixture
}

fn clsgen(fixture: &Fixture, flags: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path("")).args(flags).env("RUST_BACKTRACE", "0");
    fixture::check(command.output().unwrap())
}

fn run(fixture: &Fixture, flags: &[&str]) -> Value {
    let output = clsgen(fixture, flags);
    assert_eq!(output.status.code(), Some(0), "{flags:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn lines(fixture: &Fixture, name: &str) -> Vec<Value> {
    let text = String::from_utf8(fixture.read(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn three_classes_are_trained_scored_and_predicted() {
    let fixture = trained_under(&["--set", "task.ordinal=true"]);
    let best = fixture.json("run/best.json")["path"].as_str().unwrap().to_owned();
    let head = candle_core::safetensors::load(
        fixture.path(&format!("run/{best}/cls_head.safetensors")),
        &candle_core::Device::Cpu,
    );
    assert_eq!(head.unwrap()["out.weight"].dims(), [3, 16]);
    assert_eq!(fixture.json(&format!("run/{best}/clsgen.json"))["labels"], json!(["worse", "the same", "better"]));
    assert_eq!(fixture.json(&format!("run/{best}/clsgen.json"))["prompt"]["verdict"], "Answer: {label}");
    let dev = fixture.json(&format!("run/{best}/dev.metrics.json"));
    assert_eq!((&dev["n"], dev["confusion"].as_array().unwrap().len()), (&json!(18), 3));
    assert_eq!(dev["kappa_quadratic"]["n"], 18);

    // The labels are the checkpoint's: the command need not say them.
    let flags = ["eval", "--config", "config.toml", "--run", "run", "--split", "dev", "--json", "--curve"];
    let more = ["--set", "eval.bootstrap=200", "--set", "generate.constrain=true"];
    let metrics = run(&fixture, &[&flags[..], &more].concat());
    for key in ["accuracy", "balanced_accuracy", "auroc", "kappa", "parsable"] {
        assert!(metrics[key]["value"].is_f64(), "{key}: {}", metrics[key]);
    }
    // The toy's texts name two of the three classes: there is no third area to average.
    let align = &metrics["auroc_align"];
    assert_eq!((&align["value"], &align["n"]), (&Value::Null, &json!(18)));
    assert!(align["reason"].as_str().unwrap().starts_with("class "), "{align}");
    assert_eq!(metrics["parsable"]["value"], 1.0, "the verdict is forced");
    assert_eq!(metrics["classes"], json!(["worse", "the same", "better"]));
    assert!(metrics["calibration"]["log_loss_after"]["value"].is_f64());
    assert!(metrics["positive"].is_null() && fixture.json("run/eval/thresholds.json")["thresholds"]["f1"].is_null());
    for name in ["report.html", "tables/confusion.csv", "tables/metrics.md", "figures/confusion-classes.svg"] {
        assert!(fixture.path(&format!("run/eval/dev/{name}")).is_file(), "{name}");
    }

    run(
        &fixture,
        &[
            "predict",
            "--model",
            "run",
            "--input",
            "dev.jsonl",
            "--output",
            "p.jsonl",
            "--calibrated",
            "--set",
            "generate.constrain=true",
        ],
    );
    let kept = lines(&fixture, "run/eval/dev/predictions.jsonl");
    for (line, scored) in lines(&fixture, "p.jsonl").iter().zip(&kept) {
        assert!(line["probability"].is_null() && line["calibrated_probability"].is_null());
        assert_eq!(line["probabilities"], scored["probabilities"]);
        let sum = |key: &str| line[key].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum::<f64>();
        assert!((sum("probabilities") - 1.0).abs() < 1e-9 && (sum("calibrated_probabilities") - 1.0).abs() < 1e-9);
        let probabilities = line["probabilities"].as_array().unwrap();
        let largest = probabilities.iter().map(|p| p.as_f64().unwrap()).fold(0.0, f64::max);
        assert_eq!(probabilities[line["predicted"].as_u64().unwrap() as usize], largest);
        let class = line["verbalized_label"].as_u64().unwrap() as usize;
        let verdict = format!("Answer: {}", ["worse", "the same", "better"][class]);
        assert!(line["text"].as_str().unwrap().contains(&verdict));
        assert_eq!(line["agreement"], line["predicted"] == line["verbalized_label"]);
    }

    // Our own file, scored without the model, gives the run's numbers.
    let scored = run(
        &fixture,
        &[
            "eval",
            "--predictions",
            "p.jsonl",
            "--run",
            "again",
            "--json",
            "--set",
            LABELS,
            "--set",
            "eval.bootstrap=200",
        ],
    );
    for key in ["accuracy", "auroc", "kappa", "per_class", "confusion"] {
        assert_eq!(scored[key], metrics[key], "{key}");
    }
}

#[test]
fn one_class_is_measured_against_the_rest() {
    let fixture = trained();
    let flags = ["eval", "--config", "config.toml", "--run", "run", "--split", "dev", "--json"];
    let baselines = ["--baselines", "label,token_probability,self_consistency", "--runs", "2", "--compare-base"];
    let more = [
        "--set",
        "eval.positive=better",
        "--set",
        "eval.bootstrap=200",
        "--set",
        "generate.constrain=true",
        "--set",
        "task.ordinal=true",
    ];
    let metrics = run(&fixture, &[&flags[..], &baselines, &more].concat());
    assert_eq!(metrics["positive"]["label"], "better");
    assert_eq!(metrics["positive"]["auroc"]["value"], metrics["per_class"][2]["auroc"]["value"]);
    assert!(metrics["positive"]["tuned"]["f1"]["threshold"].is_f64());
    assert!(metrics["kappa_quadratic"]["n"].is_u64());
    assert!(fixture.path("run/eval/dev/tables/decision_curve.csv").is_file());
    let methods = metrics["baselines"]["methods"].as_array().unwrap();
    assert_eq!(methods.len(), 3);
    assert!(methods.iter().all(|method| method["metrics"]["accuracy"]["n"] == 18));
    assert_eq!(metrics["compare"]["base"]["n"], 18);

    for (flags, told) in [
        (&["--baselines", "cnn"][..], "cnn.embeddings is not set"),
        (&["--paper", "table2"], "two classes"),
        (&["--set", "eval.calibrate=platt"], "of two classes"),
        (&["--set", "eval.positive=best"], "none of task.labels"),
    ] {
        let run = ["eval", "--config", "config.toml", "--run", "run", "--split", "dev", "--overwrite"];
        let output = clsgen(&fixture, &[&run[..], &["--set", "generate.constrain=true"], flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{flags:?}: {}", stderr(&output));
    }
}

#[test]
fn wrong_labels_and_predictions_are_told() {
    let fixture = Fixture::new();
    fixture.write("prompt.toml", PROMPT);
    fixture.write("train.jsonl", notes(6).replace("\"better\"", "\"best\""));
    let output = fixture.train("run", &["--set", LABELS]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains(
            "field label: is neither a class's number (from 0, in JSON without quotes) nor one of task.labels"
        ),
        "{}",
        stderr(&output)
    );
    fixture.write("train.jsonl", notes(2));
    let output = fixture.train("run", &["--set", LABELS]);
    assert!(stderr(&output).contains("no record has class 2"), "{}", stderr(&output));
    fixture.write("p.jsonl", "{\"id\":\"a\",\"label\":2,\"probabilities\":[0.5,0.5]}\n");
    let output = clsgen(&fixture, &["eval", "--predictions", "p.jsonl", "--run", "r", "--set", LABELS]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("record 1, field probabilities: is not a list"), "{}", stderr(&output));
}
