//! What a journal asks of several runs and of the base: `clsgen eval --over`, `clsgen eval --forgetting`, on runs that
//! were trained.

mod common;
#[path = "train/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use std::process::{Command, Output};

use fixture::{Fixture, stderr};
use serde_json::{Value, json};

fn clsgen(fixture: &Fixture, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path("")).args(flags).env("RUST_BACKTRACE", "0");
    fixture::check(command.output().unwrap())
}

/// `clsgen eval` of dev, whose predictions the checkpoint has.
fn eval(fixture: &Fixture, run: &str, flags: &[&str]) -> Output {
    let own = ["eval", "--config", "config.toml", "--split", "dev", "--set", "eval.bootstrap=200", "--run", run];
    clsgen(fixture, &[&own[..], flags].concat())
}

fn succeed(fixture: &Fixture, run: &str, flags: &[&str]) -> Output {
    let output = eval(fixture, run, flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

fn refused(fixture: &Fixture, flags: &[&str], want: &str) {
    let output = eval(fixture, "all", flags);
    let told = stderr(&output);
    assert!(output.status.code() == Some(2) && told.contains(want) && told.contains("hint: "), "{want}: {told}");
}

#[test]
fn runs_that_differ_by_their_seed_have_a_mean_and_others_are_refused() {
    let fixture = Fixture::new();
    for (run, seed) in [("a", "1"), ("b", "2"), ("c", "3")] {
        fixture.succeed(run, &["--seed", seed]);
    }
    refused(&fixture, &["--over", "a", "b"], "cannot read a/eval/dev/");
    for (run, seed) in [("a", "1"), ("b", "2"), ("c", "3")] {
        succeed(&fixture, run, &["--seed", seed]);
    }
    let output = succeed(&fixture, "all", &["--over", "a", "b", "c", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, fixture.json("all/eval/over/dev/over.json"));
    assert_eq!(told["runs"][1], json!({ "path": fixture.path("b"), "seed": 2 }));
    let values: Vec<f64> = ["a", "b", "c"]
        .map(|run| {
            fixture.json(&format!("{run}/eval/dev/metrics.json"))["calibration"]["brier"]["value"].as_f64().unwrap()
        })
        .to_vec();
    let mean = values.iter().sum::<f64>() / 3.0;
    let sd = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let brier = &told["metrics"]["calibration.brier"];
    assert!(sd > 0.0, "the seed changes something: {values:?}");
    let near = |found: &Value, want: f64| (found.as_f64().unwrap() - want).abs() < 1e-12;
    assert!(near(&brier["mean"], mean) && near(&brier["sd"], sd) && brier["n"] == 3, "{brier}");
    assert_eq!(brier["values"], json!(values));
    let csv = String::from_utf8(fixture.read("all/eval/over/dev/tables/over.csv")).unwrap();
    assert!(csv.contains(&format!("calibration.brier,{mean:.4} ± {sd:.4},")), "{csv}");

    refused(&fixture, &["--over", "a"], "one run has no standard deviation");
    refused(&fixture, &["--over", "a", "b"], "is of other runs");
    refused(&fixture, &["--over", "a", "b", "a"], "have the same seed, 1");
    // Another config, other data, another evaluation.
    fixture.succeed("d", &["--seed", "4", "--set", "train.learning_rate=1e-3"]);
    succeed(&fixture, "d", &["--seed", "4"]);
    refused(&fixture, &["--over", "a", "d"], "a and d differ by more than the seed: train.learning_rate");
    succeed(&fixture, "c", &["--seed", "3", "--set", "eval.cost_fp=2", "--overwrite"]);
    refused(&fixture, &["--over", "a", "c"], "eval.cost_fp (1.0 → 2.0)");
    // One that was not trained as far, and one that was trained on since it was evaluated.
    fixture.succeed("e", &["--seed", "5", "--set", "train.max_steps=1"]);
    succeed(&fixture, "e", &["--seed", "5"]);
    refused(&fixture, &["--over", "a", "e"], "steps trained (");
    fixture.succeed("e", &["--seed", "5", "--resume"]);
    refused(&fixture, &["--over", "a", "e"], "e/eval/dev/metrics.json is of another checkpoint");
    assert_eq!(fixture.json("all/eval/over/dev/over.json"), told, "what was made stays");
}

#[test]
fn base_and_tuned_model_read_the_same_text_as_transformers_does() {
    let golden: Value = serde_json::from_str(include_str!("golden/perplexity.json")).unwrap();
    let lines = golden.as_array().unwrap();
    let fixture = Fixture::new();
    let text: String = lines.iter().map(|line| format!("{}\n", line["text"].as_str().unwrap())).collect();
    // Blank lines are none, and a text counts once.
    fixture.write("words.txt", text.clone() + "\n\n" + &text);
    fixture.succeed("run", &["--set", "model.max_input_tokens=64"]);
    let flags = ["--set", "eval.language_text=words.txt", "--set", "model.max_input_tokens=64", "--json"];
    let output = succeed(&fixture, "run", &flags);
    let kept = |name: &str| -> Vec<Value> {
        let text = String::from_utf8(fixture.read(&format!("run/eval/dev/language.{name}.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let key = "negative_log_likelihood";
    assert_eq!(kept("base").len(), lines.len());
    let mut sums = [0.0; 3];
    for ((base, tuned), want) in kept("base").iter().zip(kept("tuned")).zip(lines) {
        assert_eq!((&base["tokens"], &tuned["tokens"]), (&want["tokens"], &want["tokens"]));
        let [found, want] = [base, want].map(|line| line[key].as_f64().unwrap());
        assert!((found - want).abs() <= 1e-4 * want, "{found}, transformers {want}");
        let add = [base["tokens"].as_f64().unwrap(), found, tuned[key].as_f64().unwrap()];
        sums.iter_mut().zip(add).for_each(|(sum, part)| *sum += part);
    }
    let metrics: Value = serde_json::from_slice(&output.stdout).unwrap();
    let perplexity = &metrics["perplexity"];
    let [tokens, base, tuned] = sums;
    for (key, want) in [("base", base / tokens), ("tuned", tuned / tokens), ("ratio", (tuned - base) / tokens)] {
        let value = perplexity[key]["value"].as_f64().unwrap();
        assert!((value.ln() - want).abs() < 1e-9 && perplexity[key]["ci95"].is_array(), "{key}: {perplexity}");
    }
    assert!(tuned != base, "training moved it");
    assert_eq!((&perplexity["texts"], &perplexity["tokens"]), (&json!(lines.len()), &json!(tokens as u64)));
    assert!(fixture.path("run/eval/dev/tables/perplexity.csv").is_file());
    // What was read is kept; a gate names it.
    fixture.write("gate.toml", "perplexity.tuned = 0.5\n");
    let again = eval(&fixture, "run", &[&flags[..], &["--gate", "gate.toml"]].concat());
    let told = stderr(&again);
    assert!(again.status.code() == Some(1) && told.contains("perplexity.tuned = "), "{told}");
    assert!(told.contains("language.base: 6 of 6 records are done already"), "{told}");
}

#[test]
fn without_a_text_it_is_the_documents_of_dev_and_only_when_asked() {
    let fixture = Fixture::new();
    fixture.succeed("run", &[]);
    succeed(&fixture, "run", &[]);
    assert!(fixture.json("run/eval/dev/metrics.json").get("perplexity").is_none());
    succeed(&fixture, "run", &["--forgetting"]);
    assert_eq!(fixture.json("run/eval/dev/metrics.json")["perplexity"]["texts"], 6);
    // A later command of the same settings keeps it.
    succeed(&fixture, "run", &[]);
    assert_eq!(fixture.json("run/eval/dev/metrics.json")["perplexity"]["texts"], 6);
    refused(&fixture, &["--forgetting", "--predictions", "run/eval/dev/predictions.jsonl"], "needs a run directory");
    // Nor does it matter where dev is by then.
    std::fs::rename(fixture.path("dev.jsonl"), fixture.path("moved.jsonl")).unwrap();
    let told = stderr(&succeed(&fixture, "run", &["--set", "data.dev=moved.jsonl"]));
    assert_eq!(fixture.json("run/eval/dev/metrics.json")["perplexity"]["texts"], 6, "{told}");
}

#[test]
fn a_later_command_reads_the_text_that_an_earlier_one_named() {
    let fixture = Fixture::new();
    fixture.succeed("run", &[]);
    fixture.write("words.txt", "Some words.\nOther words.\n");
    let texts = || fixture.json("run/eval/dev/metrics.json")["perplexity"]["texts"].clone();
    succeed(&fixture, "run", &["--set", "eval.language_text=words.txt"]);
    for flags in [&[][..], &["--forgetting"]] {
        succeed(&fixture, "run", flags);
        assert_eq!(texts(), 2, "{flags:?}");
    }
    assert!(fixture.path("run/eval/dev/tables/perplexity.csv").is_file());
    std::fs::remove_file(fixture.path("words.txt")).unwrap();
    let told = stderr(&succeed(&fixture, "run", &[]));
    assert!(told.contains("words.txt is gone") && texts().is_null(), "{told}");
}
