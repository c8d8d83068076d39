//! Signals, kills and faults: every rank ends, and what was saved is whole.

use super::{
    fixture::{Fixture, assert_same, notes},
    job::{End, Job, assert_failed, mpirun, send, succeed, train},
};

/// Long enough to be stopped anywhere; on three ranks an epoch is four steps.
const LONG: [&str; 6] =
    ["--set", "train.epochs=500", "--set", "train.batch_size=1", "--set", "train.grad_accumulation=1"];

/// Seconds in which a job has to end once a rank is dead.
const SECONDS: f64 = 10.0;

/// Starts a long run on so many ranks and lets it do two steps.
fn begun(fixture: &Fixture, n: usize, run: &str, flags: &[&str]) -> Job {
    let n = n.to_string();
    let flags = [&LONG, flags].concat();
    let mut job = Job::start(fixture, run, mpirun(fixture).args(["-n", &n]).args(train(run, &flags)));
    job.wait_for_lines(&fixture.path(&format!("{run}/metrics.jsonl")), 2);
    job
}

/// Goes on with a run for two steps more than it has logged, and compares with one of as many ranks that nobody
/// stopped.
#[track_caller]
fn goes_on(fixture: &Fixture, n: usize, run: &str) {
    let limit = format!("train.max_steps={}", fixture.log(run, "step").len() + 2);
    let flags = [&LONG[..], &["--set", &limit]].concat();
    succeed(fixture, n, run, &[&flags[..], &["--resume"]].concat());
    let whole = format!("{run}-whole");
    succeed(fixture, n, &whole, &flags);
    assert_same(&fixture.result(&whole), &fixture.result(run), run);
}

#[track_caller]
fn stopped(fixture: &Fixture, run: &str, end: &End, signal: &str, code: i32) {
    assert_failed(end, code, &[&format!("error: stopped by {signal} after step"), "state saved"]);
    assert_eq!(end.stderr.matches("state saved").count(), 1, "{}", end.stderr);
    let done = fixture.log(run, "step").len();
    let epoch = done.div_ceil(4);
    let state = fixture.json(&format!("{run}/checkpoints/epoch-{epoch:02}/trainer.json"));
    assert_eq!(state["step"], done);
    let record = fixture.json(&format!("{run}/run.json"));
    assert_eq!(record["exit_code"], code, "{record}");
}

#[test]
fn sigterm_to_any_rank_saves_and_ends_all() {
    let fixture = Fixture::new();
    for rank in [0, 2] {
        let run = format!("rank-{rank}");
        let job = begun(&fixture, 3, &run, &[]);
        send("TERM", job.rank(rank));
        let end = job.end();
        stopped(&fixture, &run, &end, "SIGTERM", 143);
        goes_on(&fixture, 3, &run);
    }
}

#[test]
fn usr1_to_mpirun_saves_and_ends_all() {
    let fixture = Fixture::new();
    let job = begun(&fixture, 3, "run", &[]);
    send("USR1", job.mpirun());
    let end = job.end();
    stopped(&fixture, "run", &end, "SIGUSR1", 138);
    goes_on(&fixture, 3, "run");
}

#[test]
fn sigterm_to_a_rank_that_scores_dev_saves_what_was_trained() {
    let fixture = Fixture::new();
    fixture.write("dev.jsonl", notes(400, true));
    let flags = ["--set", "train.epochs=1"];
    let mut job = Job::start(&fixture, "run", mpirun(&fixture).args(["-n", "3"]).args(train("run", &flags)));
    // Written before dev is scored, in an epoch of one step.
    job.wait_for("run/checkpoints/last", || fixture.path("run/checkpoints/last").exists());
    send("TERM", job.rank(1));
    assert_failed(&job.end(), 143, &["stopped by SIGTERM after step 1 of 1", "state saved"]);
    assert_eq!(fixture.json("run/checkpoints/epoch-01/trainer.json")["complete"], false);
    succeed(&fixture, 3, "run", &[&flags[..], &["--resume"]].concat());
    succeed(&fixture, 3, "whole", &flags);
    assert_same(&fixture.result("whole"), &fixture.result("run"), "scored after a stop");
}

#[test]
fn a_killed_rank_ends_the_job_and_the_last_checkpoint_is_whole() {
    let fixture = Fixture::new();
    for rank in [0, 1] {
        let run = format!("killed-{rank}");
        let job = begun(&fixture, 3, &run, &["--set", "train.save_every_steps=1"]);
        let begun = std::time::Instant::now();
        send("KILL", job.rank(rank));
        let end = job.end();
        let seconds = begun.elapsed().as_secs_f64();
        super::common::say(&format!("rank {rank} of 3 killed: the job ended {seconds:.1} s later"));
        assert!(seconds < SECONDS, "{seconds}: {}", end.stderr);
        assert_ne!(end.code, Some(0), "{}", end.stderr);
        assert!(
            end.stderr.contains(&format!("process rank {rank}")) && end.stderr.contains("signal 9"),
            "{}",
            end.stderr
        );
        goes_on(&fixture, 3, &run);
    }
}

/// SIGTERM to mpirun: it gives its ranks a second.
#[test]
fn a_terminated_mpirun_leaves_whole_checkpoints() {
    let fixture = Fixture::new();
    let job = begun(&fixture, 2, "run", &["--set", "train.save_every_steps=1"]);
    send("TERM", job.mpirun());
    let end = job.end();
    assert_ne!(end.code, Some(0), "{}", end.stderr);
    goes_on(&fixture, 2, "run");
}

#[test]
fn rank_0_may_die_in_the_midst_of_a_checkpoint() {
    let fixture = Fixture::new();
    for point in ["dir.write:9", "dir.manifest:2", "dir.aside:2", "dir.renamed:3"] {
        let run = point.replace([':', '.'], "-");
        let flags = [&LONG[..], &["--set", "train.save_every_steps=1"]].concat();
        let fault = format!("CLSGEN_FAULT={point}");
        let mut command = mpirun(&fixture);
        command.args(["-n", "1", "env", &fault]).args(train(&run, &flags));
        command.args([":", "-n", "1"]).args(train(&run, &flags));
        let end = Job::start(&fixture, &run, &mut command).end();
        assert!(end.code != Some(0) && end.seconds < 60.0, "{point}: {}", end.stderr);
        goes_on(&fixture, 2, &run);
    }
}

#[test]
fn what_rank_0_cannot_write_is_said_once_and_ends_all() {
    let fixture = Fixture::new();
    let job = begun(&fixture, 3, "run", &[]);
    std::fs::rename(fixture.path("run"), fixture.path("gone")).unwrap();
    let end = job.end();
    assert_failed(&end, 1, &["rank 0 on ", "/run was removed while this command worked in it"]);
    assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
    assert!(!fixture.path("run").exists());
}
