//! Inference over ranks ends, whatever happens to one of them, and goes on from what was done.

use std::process::Command;

use serde_json::Value;

use super::{
    common,
    infer_work::Work,
    job::{End, Job, PROGRAM, assert_failed, mpirun, send},
};

/// Seconds in which a job has to end once a rank is dead.
const SECONDS: f64 = 10.0;

fn host() -> String {
    String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap().trim().to_owned()
}

/// Signals a rank of `n` once a file has so many lines more; the job must end in seconds.
#[track_caller]
fn ended(work: &Work, n: usize, command: &[String], (file, lines): (&str, usize), rank: usize, signal: &str) -> End {
    let before = common::lines(&work.0.path(file));
    let mut job = work.start(n, command);
    job.wait_for_lines(&work.0.path(file), before + lines);
    let begun = std::time::Instant::now();
    send(signal, job.rank(rank));
    let end = job.end();
    let seconds = begun.elapsed().as_secs_f64();
    common::say(&format!("rank {rank} of {n}, SIG{signal}: the job ended {seconds:.1} s later"));
    assert!(seconds < SECONDS, "{seconds}: {}", end.stderr);
    end
}

#[track_caller]
fn assert_killed(end: &End, rank: usize) {
    assert_ne!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains(&format!("process rank {rank}")), "{}", end.stderr);
    assert!(end.stderr.contains("signal 9"), "{}", end.stderr);
}

/// More records than the ranks are given at once, so that there is work left when the first lines are written.
const LONG: u64 = 320;

#[test]
fn predictions_go_on_after_a_killed_rank_with_any_number_of_ranks() {
    let work = Work::trained(LONG);
    work.one(&work.predict("whole.jsonl", &[]));
    let whole = work.0.read("whole.jsonl");
    for (n, rank, then) in [(3, 1, 2), (2, 0, 1), (4, 3, 3)] {
        let output = format!("{n}.jsonl");
        let command = work.predict(&output, &[]);
        assert_killed(&ended(&work, n, &command, (&output, 5), rank, "KILL"), rank);
        let done = work.0.read(&output);
        // However much that is: the ranks that live work on until the job is ended.
        assert!(whole.starts_with(&done), "what is done stays, in order");
        work.ranks(then, &command);
        assert!(work.0.read(&output) == whole, "rank {rank} of {n} killed");
    }
}

#[test]
fn a_rank_killed_while_models_are_read_ends_the_job() {
    let work = Work::trained(LONG);
    let command = work.predict("out.jsonl", &[]);
    // The output is there before the first line; so is a rank from the start on.
    for rank in [1, 0] {
        let mut job = work.start(2, &command);
        let pid = job.wait_for_rank(rank);
        send("KILL", pid);
        let end = job.end();
        assert_ne!(end.code, Some(0), "{}", end.stderr);
        assert!(end.seconds < SECONDS, "{}", end.stderr);
    }
}

#[test]
fn construct_and_eval_go_on_after_a_killed_rank() {
    let work = Work::trained(24);
    let flags = ["--set", "construct.splits=[\"test\"]", "--set", "construct.on_fail=rationalize"];
    work.one(&work.construct("whole", &flags));
    let killed = work.construct("killed", &flags);
    let log = ("killed/construct/test.progress.jsonl", 4);
    assert_killed(&ended(&work, 3, &killed, log, 2, "KILL"), 2);
    work.ranks(2, &killed);
    work.assert_same_files("whole", "killed");

    work.copy("run", "run-whole");
    let asked = ["--baselines", "label,token_probability", "--runs", "4", "--compare-base"];
    work.one(&work.command("eval", "run-whole", &asked));
    let killed = work.command("eval", "run", &asked);
    for (file, rank) in [("predictions", 1), ("baselines/label", 0), ("base.predictions", 2)] {
        let log = format!("run/eval/test/{file}.jsonl");
        assert_killed(&ended(&work, 3, &killed, (&log, 1), rank, "KILL"), rank);
    }
    work.ranks(4, &killed);
    work.assert_same_files("run-whole", "run");
}

#[test]
fn a_signal_to_one_rank_ends_all_with_its_code_and_what_is_done_saved() {
    let work = Work::trained(LONG);
    work.one(&work.predict("whole.jsonl", &[]));
    let whole = work.0.read("whole.jsonl");
    for (signal, code, rank) in [("TERM", 143, 2), ("INT", 130, 0), ("USR1", 138, 1)] {
        let output = format!("{signal}.jsonl");
        let command = work.predict(&output, &[]);
        let end = ended(&work, 3, &command, (&output, 5), rank, signal);
        let said = format!("error: rank {rank} on {}: stopped by SIG{signal}", host());
        assert_failed(&end, code, &[&said, &format!("{output} holds what is done"), "goes on where this one stopped"]);
        assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
        let done = work.0.read(&output);
        assert!(whole.starts_with(&done) && done.len() < whole.len());
    }
    // mpirun hands USR1 on to all of them.
    let command = work.predict("all.jsonl", &[]);
    let mut job = work.start(2, &command);
    job.wait_for_lines(&work.0.path("all.jsonl"), 5);
    send("USR1", job.mpirun());
    assert_failed(&job.end(), 138, &["stopped by SIGUSR1", "all.jsonl holds what is done"]);
    work.ranks(3, &command);
    assert!(work.0.read("all.jsonl") == whole);

    let flags = ["--set", "construct.splits=[\"test\"]"];
    let command = work.construct("run", &flags);
    let end = ended(&work, 3, &command, ("run/construct/test.progress.jsonl", 3), 1, "TERM");
    assert_failed(&end, 143, &["stopped by SIGTERM after ", "what is done is saved", "goes on where"]);
    let record = work.0.json("run/run.json");
    assert_eq!((record["command"].as_str(), &record["exit_code"]), (Some("construct"), &Value::from(143)));

    let end = ended(&work, 3, &work.command("eval", "run", &[]), ("run/eval/test/predictions.jsonl", 3), 2, "TERM");
    assert_failed(&end, 143, &["stopped by SIGTERM", "goes on where this one stopped"]);
}

/// Rank 0 as it should be, rank 1 by another command line behind `mpirun`'s own `-n 1`.
fn with_another(work: &Work, command: &[String], other: &[String]) -> End {
    let mut ranks = mpirun(&work.0);
    ranks.args(["-n", "1"]).args(command).args([":", "-n", "1"]).args(other);
    Job::start(&work.0, "job", &mut ranks).end()
}

#[test]
fn a_rank_that_is_not_as_rank_0_ends_all_before_work() {
    let work = Work::trained(6);
    let host = host();
    let differs = format!("error: rank 1 on {host} differs from rank 0 on {host}: ");
    let command = work.predict("out.jsonl", &[]);
    let refused = |other: &[String], code: i32, texts: &[&str]| {
        let end = with_another(&work, &command, other);
        assert_failed(&end, code, texts);
        assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
        assert!(!work.0.path("out.jsonl").exists(), "work was begun");
    };
    refused(&work.predict("other.jsonl", &[]), 2, &[&differs, "options ("]);
    refused(&work.predict("out.jsonl", &["--seed", "8"]), 2, &[&differs, "train.seed (42 → 8)"]);
    refused(&work.predict("out.jsonl", &["--device", "cuda"]), 5, &[&format!("error: rank 1 on {host}: ")]);

    // The same names in another folder: another checkpoint, another base, none.
    for file in ["demo.toml", "prompts", "data", "model", "run"] {
        work.0.write("elsewhere/.here", "");
        work.copy(file, &format!("elsewhere/{file}"));
    }
    let elsewhere = work.0.path("elsewhere");
    let there = || [&["-wdir".to_owned(), elsewhere.to_str().unwrap().to_owned()], &command[..]].concat();
    let head = "elsewhere/run/checkpoints/epoch-01/cls_head.safetensors";
    let bytes = work.0.read(head);
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    work.0.write(head, other);
    refused(&there(), 2, &[&differs, "checkpoint (its content differs)"]);
    work.0.write(head, bytes);
    std::fs::remove_file(work.0.path("elsewhere/run/checkpoints/epoch-01/clsgen.json")).unwrap();
    refused(&there(), 4, &[&format!("error: rank 1 on {host}: "), "clsgen.json"]);

    // A program of the same version, built otherwise.
    let other = work.0.path("clsgen");
    let mut bytes = std::fs::read(PROGRAM).unwrap();
    bytes.push(0);
    std::fs::write(&other, bytes).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&other).status().unwrap().success());
    let program = [&[other.to_str().unwrap().to_owned()], &command[1..]].concat();
    refused(&program, 2, &[&differs, "executable (its content differs)"]);

    // Less address space than the longest prompt takes.
    let long = ["--set", "model.max_input_tokens=60000", "--set", "model.allow_long=true"];
    let command = work.predict("out.jsonl", &long);
    let limited = format!("ulimit -v 1000000; exec {}", command.join(" "));
    let end = with_another(&work, &command, &["bash", "-c", &limited].map(str::to_owned));
    assert_failed(&end, 5, &[&format!("error: rank 1 on {host}: not enough memory: "), "hint: "]);
    assert!(!work.0.path("out.jsonl").exists(), "work was begun");

    // A teacher of other bytes.
    let teacher = "elsewhere/model/model.safetensors";
    let mut bytes = work.0.read(teacher);
    *bytes.last_mut().unwrap() ^= 1;
    work.0.write(teacher, bytes);
    let construct = work.construct("made", &[]);
    let there = [&["-wdir".to_owned(), elsewhere.to_str().unwrap().to_owned()], &construct[..]].concat();
    let end = with_another(&work, &construct, &there);
    assert_failed(&end, 2, &[&differs, "construct.teacher (its content differs)"]);
    assert!(!work.0.path("made/construct/train.jsonl").exists());
}
