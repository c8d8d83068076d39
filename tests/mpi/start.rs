//! Ranks that cannot start end all before any work, and say which and where.

use std::process::Command;

use serde_json::json;

use super::{
    common,
    fixture::{Fixture, notes},
    job::{Job, PROGRAM, assert_failed, fail, mpirun, train},
};

/// Rank 0 as it should be, rank 1 by another command line behind `mpirun`'s own `-n 1`.
fn with_another(fixture: &Fixture, run: &str, other: &[&str]) -> super::job::End {
    let mut command = mpirun(fixture);
    command.args(["-n", "1"]).args(train(run, &[])).args([":", "-n", "1"]).args(other);
    Job::start(fixture, run, &mut command).end()
}

fn host() -> String {
    String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn a_rank_with_another_config_program_or_records_is_named_before_work() {
    let fixture = Fixture::new();
    let host = host();
    let differs = format!("error: rank 1 on {host} differs from rank 0 on {host}: ");

    let config = with_another(&fixture, "config", &train("config", &["--set", "train.learning_rate=1e-4"]));
    assert_failed(&config, 2, &[&differs, "train.learning_rate (0.005 → 0.0001)", "hint: start every rank"]);
    let seed = with_another(&fixture, "seed", &train("seed", &["--seed", "8"]));
    assert_failed(&seed, 2, &[&differs, "train.seed (42 → 8)"]);
    let resume = with_another(&fixture, "resume", &train("resume", &["--resume"]));
    assert_failed(&resume, 2, &[&differs, "--resume (false → true)"]);

    // The same version, built otherwise.
    let other = fixture.path("clsgen");
    let mut bytes = std::fs::read(PROGRAM).unwrap();
    bytes.push(0);
    std::fs::write(&other, bytes).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&other).status().unwrap().success());
    let program = [&[other.to_str().unwrap()], &train("program", &[])[1..]].concat();
    let program = with_another(&fixture, "program", &program);
    assert_failed(&program, 2, &[&differs, "executable (its content differs)"]);

    // The same names in another folder.
    for file in ["config.toml", "prompt.toml", "dev.jsonl"] {
        fixture.write(&format!("elsewhere/{file}"), fixture.read(file));
    }
    fixture.write("elsewhere/train.jsonl", notes(12, true));
    let elsewhere = fixture.path("elsewhere");
    let records = [&["-wdir", elsewhere.to_str().unwrap()], &train("records", &[])[..]].concat();
    let records = with_another(&fixture, "records", &records);
    assert_failed(&records, 2, &[&differs, "data.train (its content differs)"]);

    for (run, end) in [("config", config), ("seed", seed), ("program", program), ("records", records)] {
        assert_eq!(end.stderr.matches("error: ").count(), 1, "{run}: {}", end.stderr);
        let left = ["checkpoints", "metrics.jsonl", "train.json", "run.json"].map(|name| format!("{run}/{name}"));
        assert!(left.iter().all(|name| !fixture.path(name).exists()), "{run}: work was begun");
    }
}

#[test]
fn what_one_rank_lacks_ends_all_with_its_code() {
    let fixture = Fixture::new();
    let host = host();
    let device = with_another(&fixture, "device", &train("device", &["--device", "cuda"]));
    assert_failed(&device, 5, &[&format!("error: rank 1 on {host}: "), "hint: "]);

    // Forty long records in one pass, through adapters of rank 4096: more than the address space that rank 1 is left.
    let record = |i: usize| {
        let text = "went home well ".repeat(30);
        json!({"id": i.to_string(), "text": text, "label": i % 2, "explanation": "All is well."}).to_string() + "\n"
    };
    fixture.write("train.jsonl", (0..40).map(record).collect::<String>());
    let large = ["--threads", "1", "--set", "train.batch_size=40", "--set", "lora.rank=4096"];
    let limited = format!("ulimit -v 500000; exec {}", train("memory", &large).join(" "));
    let mut command = mpirun(&fixture);
    command.args(["-n", "1"]).args(train("memory", &large)).args([":", "-n", "1", "bash", "-c", &limited]);
    let memory = Job::start(&fixture, "memory", &mut command).end();
    assert_failed(&memory, 5, &[&format!("error: rank 1 on {host}: "), "of memory, ", " are free", "hint: "]);
    assert!(!fixture.path("memory/checkpoints").exists());

    // What all lack is said as one process says it.
    fixture.write("train.jsonl", "");
    let all = fail(&fixture, 2, "all", &[], 3, &["error: train.jsonl"]);
    assert!(!all.stderr.contains("rank "), "{}", all.stderr);
}

#[test]
fn a_rank_that_does_not_see_the_run_directory_is_named() {
    let fixture = Fixture::new();
    super::job::succeed(&fixture, 2, "run", &["--set", "train.max_steps=1"]);
    for file in ["config.toml", "prompt.toml", "train.jsonl", "dev.jsonl"] {
        fixture.write(&format!("elsewhere/{file}"), fixture.read(file));
    }
    let elsewhere = fixture.path("elsewhere");
    let flags = train("run", &["--resume"]);
    let mut command = mpirun(&fixture);
    command.args(["-n", "1"]).args(&flags).args([":", "-n", "1", "-wdir"]).arg(elsewhere).args(&flags);
    let end = Job::start(&fixture, "unseen", &mut command).end();
    assert_failed(&end, 4, &["error: rank 1 on ", "trainer.json", "every rank reads the run directory: share it"]);
}

#[test]
fn a_locked_run_and_a_finished_one_are_refused_once() {
    let fixture = Fixture::new();
    super::job::succeed(&fixture, 2, "run", &[]);
    let end = fail(&fixture, 2, "run", &[], 2, &["holds a training run already", "--resume"]);
    assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
}

#[test]
fn a_command_that_does_not_share_its_work_is_not_started_on_ranks() {
    let fixture = Fixture::new();
    let mut ranks = mpirun(&fixture);
    let end = Job::start(&fixture, "demo", ranks.args(["-n", "2", PROGRAM, "demo"])).end();
    assert_failed(&end, 2, &["`clsgen demo` was started as rank", "hint: start it without mpirun"]);
    // Ranks that the launcher names and MPI does not find: another MPI's mpirun.
    let mut alone = common::clsgen();
    alone.args(["train", "--config", "config.toml"]).current_dir(fixture.path("."));
    let told = common::outcome(alone.env("PMI_RANK", "0").env("PMI_SIZE", "2"));
    common::assert_fails(&told, 2, &["was started as rank 0 of 2", "finds no other rank", "srun --mpi=pmix"]);
}
