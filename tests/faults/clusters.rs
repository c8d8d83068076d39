//! File systems of clusters: no locks, nothing to sync, system calls that are interrupted. strace plays them.

use super::work::Work;
use crate::common::{self, Outcome, assert_fails};

/// Whether strace is here and may trace; if not, a `SKIP:` line.
pub fn has_strace() -> bool {
    let output = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let there = output.is_ok_and(|output| output.status.success());
    if !there {
        common::skip("strace is not here, or may not trace");
    }
    there
}

/// The program with a fault in every call that `inject` says.
fn with(work: &Work, inject: &str, args: &[&str]) -> Outcome {
    let log = work.path("strace.log");
    let call = inject.split(':').next().unwrap().trim_start_matches('?');
    let trace = format!("trace={call}");
    let wrapper = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &trace, "-e", &format!("inject={inject}")];
    let told = common::outcome(&mut work.under(&wrapper, args));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("(INJECTED)"), "{inject}: nothing was injected\n{log}");
    told
}

const EVAL: &[&str] = &["eval", "--config", "demo.toml", "--run", "run"];
const PREDICT: &[&str] =
    &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl", "--overwrite"];

#[test]
fn a_file_system_without_locks_is_one_warning() {
    if !has_strace() {
        return;
    }
    let work = Work::trained(8);
    for error in ["ENOSYS", "EOPNOTSUPP", "ENOLCK"] {
        for (command, lock) in [(EVAL, "run/.lock"), (PREDICT, ".out.jsonl.lock")] {
            let told = with(&work, &format!("flock:error={error}"), command);
            assert_eq!(told.code, Some(0), "{error}: {told:?}");
            let warnings = told.stderr.lines().filter(|line| line.contains("cannot be locked: "));
            let warnings: Vec<&str> = warnings.collect();
            assert!(
                warnings.len() == 1 && warnings[0].starts_with("warning: ") && warnings[0].contains(lock),
                "{told:?}"
            );
        }
    }
    // What the lock file says keeps out a second process of this machine all the same.
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    work.write("run/.lock", format!("process {} on {host}\n", child.id()));
    let told = with(&work, "flock:error=ENOSYS", EVAL);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_fails(&told, 2, &[&format!("run directory run is locked by process {} on {host}", child.id()), "hint: "]);
    // One that is gone does not, and of another machine's nobody knows: it is named.
    assert_eq!(with(&work, "flock:error=ENOSYS", EVAL).code, Some(0));
    work.write("run/.lock", "process 1 on node17\n");
    assert_fails(&with(&work, "flock:error=ENOSYS", EVAL), 0, &["the last was process 1 on node17"]);
}

#[test]
fn an_interrupted_call_is_made_again() {
    if !has_strace() {
        return;
    }
    let work = Work::trained(8);
    for call in ["flock", "fsync"] {
        for command in [EVAL, PREDICT] {
            let told = with(&work, &format!("{call}:error=EINTR:when=1..2"), command);
            assert!(told.code == Some(0) && !told.stderr.contains("cannot be"), "{call}: {told:?}");
        }
    }
}

#[test]
fn a_file_system_that_syncs_nothing_is_as_good_as_it_gets_and_an_error_of_the_disk_is_one() {
    if !has_strace() {
        return;
    }
    let work = Work::new(8);
    let train = ["train", "--config", "demo.toml", "--run", "run"];
    for error in ["EINVAL", "EOPNOTSUPP", "ENOSYS"] {
        for command in [&train[..], EVAL, PREDICT] {
            let told = with(&work, &format!("fsync:error={error}"), command);
            assert_eq!(told.code, Some(0), "{error}, {command:?}: {told:?}");
        }
        std::fs::remove_dir_all(work.path("run")).unwrap();
    }
    let told = with(&work, "fsync:error=EIO", &train);
    assert_fails(&told, 5, &["Input/output error", "hint: the disk reports an error"]);
    assert!(!work.path("run/checkpoints/epoch-01").exists());
}

#[test]
fn a_folder_that_somebody_reads_is_left_for_a_later_sweep() {
    if !has_strace() {
        return;
    }
    // NFS keeps a removed file that is open, and so its folder. Here nothing at all can be removed.
    let work = Work::new(8);
    let steps = "train.save_every_steps=1 --set train.batch_size=2 --set train.grad_accumulation=1";
    let train = format!("train --config demo.toml --set {steps} --run");
    let train: Vec<&str> = train.split(' ').collect();
    assert_eq!(work.run(&[&train[..], &["alone"]].concat()).code, Some(0));
    let left = |run| {
        let names = std::fs::read_dir(work.path(run).join("checkpoints")).unwrap().map(|entry| entry.unwrap());
        names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".last.tmp-0.")).count()
    };
    for error in ["ENOTEMPTY", "EBUSY"] {
        let told = with(&work, &format!("unlinkat:error={error}"), &[&train[..], &[error]].concat());
        assert_eq!(told.code, Some(0), "{error}: {told:?}");
        assert!(left(error) > 0, "{error}: all was removed");
        for file in ["checkpoints/epoch-01/adapter_model.safetensors", "best.json"] {
            let [read, alone] = [error, "alone"].map(|run| std::fs::read(work.path(run).join(file)).unwrap());
            assert!(read == alone, "{error}: {file} differs");
        }
        assert_eq!(work.run(&[&train[..], &[error, "--resume"]].concat()).code, Some(0));
        assert_eq!(left(error), 0, "{error}");
    }
}
