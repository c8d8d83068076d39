//! `run.json` says how a command ended, however it ended.

mod common;
#[path = "train/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use std::process::Command;

use common::{clsgen, end_of, wait_until};
use fixture::{Fixture, stderr};
use serde_json::{Value, json};

/// What `run.json` says of the latest command, and of the one before.
fn told(fixture: &Fixture) -> [Value; 3] {
    let record = fixture.json("run/run.json");
    [record["outcome"].clone(), record["exit_code"].clone(), record["earlier"][0]["outcome"].clone()]
}

#[test]
fn a_defect_of_ours_is_an_end_too() {
    let fixture = Fixture::new();
    let mut command = fixture.command("run", &[]);
    let output = fixture::check(command.env("CLSGEN_FAULT", "train.step").env("CLSGEN_PANIC", "1").output().unwrap());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("internal error at src/storage/fault.rs"), "{}", stderr(&output));
    assert_eq!(told(&fixture), [json!("ended by an internal error"), json!(1), Value::Null]);
    assert!(fixture.json("run/run.json")["ended"].is_string());
    fixture.succeed("run", &["--resume"]);
    assert_eq!(told(&fixture), [json!("ok"), json!(0), json!("ended by an internal error")]);
}

#[test]
fn a_killed_command_is_found_by_the_next_one_that_locks_the_run() {
    let fixture = Fixture::new();
    let killed = fixture.command("run", &[]).env("CLSGEN_FAULT", "train.step").output().unwrap();
    assert_eq!(killed.status.code(), None, "{}", stderr(&killed));
    assert_eq!(told(&fixture), [json!("running"), Value::Null, Value::Null]);
    // Even by one that is refused.
    fixture.fail("run", &["--set", "train.learning_rate=0.5"], 2);
    assert_eq!(told(&fixture), [json!("interrupted"), Value::Null, Value::Null]);
    fixture.succeed("run", &["--resume"]);
    assert_eq!(told(&fixture), [json!("ok"), json!(0), json!("interrupted")]);
    // Nothing was left to do: the record is still that of who did it.
    let record = fixture.json("run/run.json");
    fixture.succeed("run", &["--resume"]);
    assert_eq!(fixture.json("run/run.json"), record);
    let short = ["--set", "train.max_steps=1", "--resume"];
    fixture.succeed("short", &short);
    let record = fixture.json("short/run.json");
    fixture.succeed("short", &short);
    assert_eq!(fixture.json("short/run.json"), record);
}

/// The command may come to see the first signal before the second is there; then that one is what it says. Whoever
/// ends it, its exit code is that of its record.
#[test]
fn a_second_signal_ends_at_once_and_says_so() {
    let seconds = (0..20).filter(|_| ended_by_the_second_signal()).count();
    assert!(seconds > 0, "the command saw the first signal each time before the second came");
}

/// Two signals at once to a long evaluation: whether the second one ended it.
fn ended_by_the_second_signal() -> bool {
    let fixture = Fixture::new();
    let line = |i: usize| {
        json!({"id": format!("p{i}"), "label": i % 2, "probability": (i * 7919 % 1000) as f64 / 1000.0}).to_string()
            + "\n"
    };
    fixture.write("p.jsonl", (0..4000).map(line).collect::<String>());
    let flags = ["eval", "--predictions", "p.jsonl", "--run", "run", "--set", "eval.bootstrap=1000000"];
    let mut child = clsgen().current_dir(fixture.path("")).args(flags).spawn().unwrap();
    wait_until(&mut child, "run.json", || {
        std::fs::read(fixture.path("run/run.json")).is_ok_and(|bytes| bytes.ends_with(b"}\n"))
    });
    assert_eq!(told(&fixture), [json!("running"), Value::Null, Value::Null]);
    // By one process: between two of them the command might come to ask.
    let both = format!("kill -INT {0}; kill -TERM {0}", child.id());
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    // Of two that come at once either may be read first.
    let code = end_of(child).status.code().unwrap();
    assert!([130, 143].contains(&code), "{code}");
    let [outcome, exit_code, earlier] = told(&fixture);
    assert_eq!((&exit_code, &earlier), (&json!(code), &Value::Null), "{outcome}");
    assert!(fixture.json("run/run.json")["ended"].is_string());
    // The lock is free.
    let again = ["eval", "--predictions", "p.jsonl", "--run", "run", "--overwrite", "--set", "eval.bootstrap=0"];
    assert!(clsgen().current_dir(fixture.path("")).args(again).output().unwrap().status.success());
    assert_eq!(told(&fixture), [json!("ok"), json!(0), outcome.clone()]);
    outcome == json!(format!("ended by a second signal, {}", code - 128))
}
