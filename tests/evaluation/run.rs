//! A finished run to evaluate: a tiny random checkpoint with its dev predictions, and records to score.
#![allow(dead_code, unused_imports)] // each test file uses its own part

#[path = "../predict/fixture.rs"]
mod fixture;

use std::process::{Command, Output};

use serde_json::Value;

pub use fixture::{Fixture, mode, notes, parse_lines, stderr};

/// A run with one epoch, its dev predictions (of the first 10 notes), and a test split of 12 notes.
pub fn finished_run() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("dev.jsonl", notes(10));
    fixture.write("test.jsonl", notes(12));
    fixture.succeed("dev.jsonl", "dev.out", &[]);
    let dev = fixture.read("dev.out");
    fixture.write("run/checkpoints/epoch-01/dev.predictions.jsonl", dev);
    fixture
}

/// `train.json` of the run, as far as an evaluation reads it: its dev split, and what `more` says of its settings.
pub fn write_trained(fixture: &Fixture, mut more: Value) {
    more["data.dev"] = blake3::hash(&fixture.read("dev.jsonl")).to_hex().to_string().into();
    fixture.write("run/train.json", more.to_string());
}

/// `clsgen eval` of the run; no record's text may be on stderr.
pub fn eval(fixture: &Fixture, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path(".")).args(["eval", "--run", "run", "--set", "eval.bootstrap=300"]);
    let output = command.args(flags).env("RUST_BACKTRACE", "0").output().unwrap();
    assert!(!stderr(&output).contains("SECRET"), "{}", stderr(&output));
    output
}

/// The same, which must succeed.
pub fn succeed(fixture: &Fixture, flags: &[&str]) -> Output {
    let output = eval(fixture, flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

/// A file of `run/eval/test`.
pub fn json(fixture: &Fixture, name: &str) -> Value {
    json_of(fixture, &format!("test/{name}"))
}

/// A file of `run/eval`.
pub fn json_of(fixture: &Fixture, name: &str) -> Value {
    serde_json::from_slice(&fixture.read(&format!("run/eval/{name}"))).unwrap()
}
