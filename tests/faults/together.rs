//! Two processes at one place: the second is refused and says who is there, and neither breaks anything.

use std::process::{Child, Stdio};

use super::work::Work;
use crate::common::{self, assert_fails, send};

const CONSTRUCT: &[&str] =
    &["construct", "--config", "demo.toml", "--run", "run", "--set", "construct.splits=[\"dev\"]"];
const TRAIN: &[&str] = &["train", "--config", "demo.toml", "--run", "run"];
const EVAL: &[&str] = &["eval", "--config", "demo.toml", "--run", "run"];
const FILES: &[&str] = &["eval", "--predictions", "p.jsonl", "--run", "run"];
const PREDICT: &[&str] = &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl"];

/// Begins a command and stops it in the middle of what it does, as soon as `lock` says that it holds the place.
fn held(work: &Work, command: &[&str], lock: &str) -> Child {
    let mut command = work.command(command);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let holder = format!("process {} on ", child.id());
    let path = work.path(lock);
    common::wait_until(&mut child, lock, || std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(&holder)));
    send("STOP", &child);
    child
}

#[test]
fn a_second_command_in_a_run_directory_is_refused_and_the_first_ends_well() {
    let mut pairs = 0;
    for first in [CONSTRUCT, TRAIN, EVAL, FILES] {
        // What a first command needs, and nothing that it would find done.
        let work = if first == EVAL { Work::trained(8) } else { Work::new(8) };
        let line = |i: usize| format!("{{\"id\": \"{i}\", \"label\": {}, \"probability\": 0.{i}}}\n", i % 2);
        work.write("p.jsonl", (1..9).map(line).collect::<String>());
        let child = held(&work, first, "run/.lock");
        let before = work.files("run");
        for second in [CONSTRUCT, TRAIN, EVAL, FILES] {
            if second == EVAL && first != EVAL {
                // Without a checkpoint it has nothing to score.
                continue;
            }
            let told = work.run(second);
            let holder = format!("run directory run is locked by process {} on ", child.id());
            assert_fails(&told, 2, &[&holder, "hint: wait until it ends, or choose another directory with --run"]);
            assert_eq!(work.files("run"), before, "{first:?}, then {second:?}");
            pairs += 1;
        }
        send("CONT", &child);
        assert_eq!(common::end_of(child).status.code(), Some(0), "{first:?}");
        // Now there is room.
        let next = work.run(if first == CONSTRUCT { TRAIN } else { FILES });
        assert_eq!(next.code, Some(0), "{first:?}, then: {next:?}");
    }
    common::say(&format!("two processes: {pairs} pairs, each second one refused"));
}

#[test]
fn predictions_have_one_writer_and_read_a_run_that_others_work_in() {
    let work = Work::trained(8);
    let child = held(&work, PREDICT, ".out.jsonl.lock");
    let told = work.run(PREDICT);
    assert_fails(&told, 2, &[&format!("out.jsonl is locked by process {}", child.id()), "hint: "]);
    assert_fails(&work.run(&[PREDICT, &["--overwrite"]].concat()), 2, &["out.jsonl is locked by process"]);
    send("CONT", &child);
    assert_eq!((common::end_of(child).status.code(), common::lines(&work.path("out.jsonl"))), (Some(0), 8));
    let alone = work.text("out.jsonl");

    for other in [EVAL, CONSTRUCT] {
        let child = held(&work, other, "run/.lock");
        let told = work.run(&[PREDICT, &["--overwrite"]].concat());
        assert_eq!(told.code, Some(0), "{other:?}: {told:?}");
        assert_eq!(work.text("out.jsonl"), alone);
        send("CONT", &child);
        assert_eq!(common::end_of(child).status.code(), Some(0), "{other:?}");
    }
}
