//! Algorithm 1 as a process that is killed: real notes, the embedded model as teacher, a kill at every record.

mod common;
#[path = "construct/splits.rs"]
mod splits;

use std::process::{Command, Stdio};

use common::{Scratch, in_scratch};

const RECORDS: u64 = 24;

/// A scratch directory with the embedded model, notes and a config.
struct Work(Scratch);

in_scratch!(Work);

impl Work {
    fn new() -> Self {
        let work = Self(Scratch::new());
        common::write_demo(&work.path(""), &["train"], RECORDS, 0.4);
        work
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

    /// `clsgen construct`, which this fault must kill.
    fn killed(&self, run: &str, more: &[&str], fault: &str) {
        let status = self.command(run).args(more).env("CLSGEN_FAULT", fault).status().unwrap();
        assert_eq!(status.code(), None, "{fault}");
    }

    /// Every file that construct leaves, but for paths and times.
    fn outputs(&self, run: &str) -> [Vec<u8>; 3] {
        ["train.jsonl", "dropped.jsonl", "stats.json"]
            .map(|name| std::fs::read(self.path(run).join("construct").join(name)).unwrap())
    }
}

#[test]
fn a_kill_after_every_record_loses_none_doubles_none_and_changes_no_byte() {
    let work = Work::new();
    work.finish("whole");
    let log = work.path("killed").join("construct").join("train.progress.jsonl");
    // The log's first line is its settings. Each run goes on where the one before was killed, writes one line and is
    // killed before its next.
    for written in 1..=RECORDS as usize {
        work.killed("killed", &[], "log.append:2");
        assert_eq!(common::lines(&log), written);
    }
    common::say(&format!("kill sweep: {RECORDS} points, log.append at each record of construct"));
    work.finish("killed");
    assert_eq!(work.outputs("killed"), work.outputs("whole"));

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

/// What stats.json calls finished is looked at: training would silently go without it.
#[test]
fn a_finished_split_whose_file_is_gone_is_not_called_done() {
    let work = Work::new();
    work.finish("whole");
    let file = work.path("whole").join("construct/train.jsonl");
    let bytes = std::fs::read(&file).unwrap();
    let refused = |what: &str| {
        let output = work.command("whole").stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && stderr.contains(what), "{stderr}");
    };
    std::fs::remove_file(&file).unwrap();
    refused("train.jsonl is gone since train was finished");
    std::fs::write(&file, &bytes[1..]).unwrap();
    refused("train.jsonl was changed since train was finished");
    std::fs::write(&file, &bytes).unwrap();
    work.finish("whole");
}

/// Its text ends before the verdict: learned as a whole answer, no text would name a label.
#[test]
fn explanations_are_not_constructed_to_be_whole_answers() {
    let work = Work::new();
    std::fs::write(work.path("whole.toml"), "user = \"{document}\"\nresponse = \"{explanation}\"\n").unwrap();
    let prompt = format!("task.prompt={}", work.path("whole.toml").display());
    let output = work.command("run").args(["--set", &prompt]).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("hint: leave key response out"), "{stderr}");
    assert!(!work.path("run").exists());
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
    work.killed("run", &[], "log.append:3");
    std::fs::write(&output, "mine\n").unwrap();
    let (code, stderr) = construct(&[]);
    assert!(code == Some(2) && stderr.contains("construct did not make it"), "{code:?} {stderr}");
    assert_eq!(std::fs::read(&output).unwrap(), b"mine\n");
}

#[test]
fn an_interrupt_says_what_is_saved_and_how_to_go_on() {
    let work = Work::new();
    for (signal, code) in [("INT", 130), ("USR1", 138)] {
        let mut child = work.command(signal).stderr(Stdio::piped()).spawn().unwrap();
        let log = work.path(signal).join("construct/train.progress.jsonl");
        common::wait_for_lines(&mut child, &log, 2);
        common::send(signal, &child);
        let told = common::end_of(child);
        let stderr = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(code), "{stderr}");
        for text in [&format!("stopped by SIG{signal}"), "what is done is saved", "hint: the same command goes on"] {
            assert!(stderr.contains(text), "{stderr}");
        }
        let done = common::lines(&log);
        work.finish(signal);
        assert!(done >= 2 && work.outputs(signal)[0].len() > 100);
    }
}
