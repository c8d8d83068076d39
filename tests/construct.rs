//! Algorithm 1 as a process that is killed: real notes, the embedded model as teacher, SIGKILL at every record.

mod common;
#[path = "construct/splits.rs"]
mod splits;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const RECORDS: u64 = 24;

/// A scratch directory with the embedded model, notes and a config.
struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        common::write_demo(work.0.path(), &["train"], RECORDS, 0.4);
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `clsgen construct` into `run`: three short trials a record, two records at a time, so that records end one by
    /// one.
    fn command(&self, run: &str) -> Command {
        let mut command = common::clsgen();
        command
            .arg("construct")
            .arg("--config")
            .arg(self.path("demo.toml"))
            .arg("--run")
            .arg(self.path(run))
            .arg("--quiet");
        command.args([
            "--set",
            "construct.trials=3",
            "--set",
            "construct.max_output_tokens=96",
            "--set",
            "generate.batch_tokens=1200",
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn finish(&self, run: &str) {
        assert!(self.command(run).status().unwrap().success(), "{run}");
    }

    /// Every file that construct leaves, but for paths and times.
    fn outputs(&self, run: &str) -> [Vec<u8>; 3] {
        ["train.jsonl", "dropped.jsonl", "stats.json"]
            .map(|name| std::fs::read(self.path(run).join("construct").join(name)).unwrap())
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Waits until the log holds `wanted` lines, then SIGKILLs; `false` where the process ended by itself first.
fn kill_at(mut child: Child, log: &Path, wanted: usize) -> bool {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if lines(log) >= wanted {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn sigkill_after_every_record_loses_none_doubles_none_and_changes_no_byte() {
    let work = Work::new();
    work.finish("whole");
    let log = work.path("killed").join("construct").join("train.progress.jsonl");
    let mut kills = 0;
    // The log's first line is its settings; a run that is killed at line n goes on at line n.
    for wanted in 1..=RECORDS as usize {
        kills += usize::from(kill_at(work.command("killed").spawn().unwrap(), &log, wanted));
    }
    work.finish("killed");
    assert_eq!(work.outputs("killed"), work.outputs("whole"));
    assert!(kills >= 20, "only {kills} kills met a process that still ran");

    let kept = String::from_utf8(work.outputs("whole")[0].clone()).unwrap();
    let dropped = String::from_utf8(work.outputs("whole")[1].clone()).unwrap();
    let mut ids: Vec<String> = kept.lines().chain(dropped.lines()).map(id).collect();
    ids.sort_unstable();
    let all: Vec<String> = (0..RECORDS).map(|i| format!("note-{i:06}")).collect();
    assert_eq!(ids, all, "each record is kept or dropped, once");
    // Algorithm 1 has work to do with this teacher: some first trials are kept, some are not.
    let trials: Vec<u64> = kept
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["trial"].as_u64().unwrap())
        .collect();
    assert!(trials.contains(&1) && (trials.iter().any(|&trial| trial > 1) || !dropped.is_empty()), "{trials:?}");
}

fn id(line: &str) -> String {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_crash_inside_any_write_is_mended_by_running_again() {
    let work = Work::new();
    work.finish("whole");
    let torn = [1, 2, 13, 25].map(|n| format!("log.torn:{n}"));
    let files = ["file.write", "file.synced", "file.renamed"]
        .into_iter()
        .flat_map(|point| (2..=4).map(move |n| format!("{point}:{n}")));
    for (i, fault) in torn.into_iter().chain(files).enumerate() {
        let run = format!("run-{i}");
        let _ = work.command(&run).env("CLSGEN_FAULT", &fault).status().unwrap();
        work.finish(&run);
        assert_eq!(work.outputs(&run), work.outputs("whole"), "{fault}");
    }
}

#[test]
fn a_foreign_file_in_a_splits_place_and_a_source_are_kept() {
    let work = Work::new();
    let notes = std::fs::read(work.path("data/train.jsonl")).unwrap();
    let output = work.path("run/construct/train.jsonl");
    std::fs::create_dir_all(output.parent().unwrap()).unwrap();
    std::fs::write(&output, &notes).unwrap();
    let construct = |more: &[&str]| {
        let mut command = work.command("run");
        let told = command.args(more).stderr(Stdio::piped()).output().unwrap();
        (told.status.code(), String::from_utf8(told.stderr).unwrap())
    };
    let source = format!("data.train={:?}", output.to_str().unwrap());
    for (more, told) in
        [(&[][..], "construct did not make it"), (&["--set", &source], "input and output are the same file")]
    {
        let (code, stderr) = construct(more);
        assert!(code == Some(2) && stderr.contains(told), "{code:?} {stderr}");
        assert_eq!(std::fs::read(&output).unwrap(), notes);
    }
    // Also in a run that was killed half-way: its log is there, the split's file cannot be yet.
    std::fs::remove_file(&output).unwrap();
    let log = output.with_file_name("train.progress.jsonl");
    assert!(kill_at(work.command("run").spawn().unwrap(), &log, 2));
    std::fs::write(&output, "mine\n").unwrap();
    let (code, stderr) = construct(&[]);
    assert!(code == Some(2) && stderr.contains("construct did not make it"), "{code:?} {stderr}");
    assert_eq!(std::fs::read(&output).unwrap(), b"mine\n");
}

#[test]
fn an_interrupt_says_what_is_saved_and_how_to_go_on() {
    let work = Work::new();
    for (signal, code) in [("INT", 130), ("USR1", 138)] {
        let child = work.command(signal).stderr(Stdio::piped()).spawn().unwrap();
        let log = work.path(signal).join("construct/train.progress.jsonl");
        while lines(&log) < 2 {
            std::thread::sleep(Duration::from_millis(2));
        }
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let told = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(code), "{stderr}");
        for text in [&format!("stopped by SIG{signal}"), "what is done is saved", "hint: the same command goes on"] {
            assert!(stderr.contains(text), "{stderr}");
        }
        let done = lines(&log);
        work.finish(signal);
        assert!(done >= 2 && work.outputs(signal)[0].len() > 100);
    }
}
