//! The embedded model, what it was trained to on synthetic notes, and commands over ranks on them.

use std::{collections::BTreeMap, path::PathBuf};

use clsgen::demo::notes::{NoteSettings, Notes, SyntheticNote};
use serde_json::Value;

use super::{
    common,
    fixture::{Fixture, SECRET},
    job::{End, Job, PROGRAM, mpirun},
};

/// The embedded model, trained a little on its notes, in `run`; records to predict in `data/test.jsonl`.
pub struct Work(pub Fixture);

impl Work {
    /// With so many test notes.
    pub fn new(test: u64) -> Self {
        let work = Self(Fixture::new());
        common::write_demo(&work.0.path("."), &[], 0, 0.4);
        let notes = Notes::new(3, NoteSettings { words: 60, prevalence: 0.4, typos: 0.0 });
        for (split, range) in [("train", 0..12), ("dev", 12..20), ("test", 20..20 + test)] {
            let line = |note: &SyntheticNote| {
                let mut record = note.record.to_json();
                let text = record["text"].as_str().unwrap();
                // Notes of different lengths.
                let text = format!("{text} {SECRET}{}", " and so on".repeat(record.len() * text.len() % 20));
                record.insert("text".into(), text.into());
                format!("{}\n", Value::Object(record))
            };
            let lines: String = notes.range(range).iter().map(line).collect();
            work.0.write(&format!("data/{split}.jsonl"), lines);
        }
        work
    }

    /// The same with a checkpoint in `run`.
    pub fn trained(test: u64) -> Self {
        let work = Self::new(test);
        work.one(&work.command("train", "run", &["--set", "train.epochs=1", "--set", "train.objective=\"cls\""]));
        work
    }

    pub fn command(&self, command: &str, run: &str, flags: &[&str]) -> Vec<String> {
        let short = ["--set", "model.max_output_tokens=48", "--set", "eval.bootstrap=50"];
        let all = [&[PROGRAM, command, "--config", "demo.toml", "--run", run], &short[..], flags].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    pub fn predict(&self, output: &str, flags: &[&str]) -> Vec<String> {
        let files = ["--model", "run", "--input", "data/test.jsonl", "--output", output];
        self.command("predict", "run", &[&files[..], flags].concat())
    }

    pub fn construct(&self, run: &str, flags: &[&str]) -> Vec<String> {
        let few = ["--set", "construct.trials=3", "--set", "construct.max_output_tokens=48"];
        self.command("construct", run, &[&few[..], flags].concat())
    }

    /// One process, which must succeed.
    #[track_caller]
    pub fn one(&self, command: &[String]) -> common::Outcome {
        let mut process = common::clsgen();
        let outcome = common::outcome(process.current_dir(self.0.path(".")).args(&command[1..]));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome
    }

    pub fn start(&self, n: usize, command: &[String]) -> Job {
        let n = n.to_string();
        Job::start(&self.0, "job", mpirun(&self.0).args(["-n", &n]).args(command))
    }

    /// `n` ranks, which must succeed.
    #[track_caller]
    pub fn ranks(&self, n: usize, command: &[String]) -> End {
        let end = self.start(n, command).end();
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        end
    }

    pub fn copy(&self, from: &str, to: &str) {
        common::copy(&self.0.path(from), &self.0.path(to));
    }

    /// Files below a folder by name, but for those that tell of the machine, the time and the command line.
    pub fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        common::files(&self.0.path(folder), &["run.json", "report.html", ".lock"])
    }

    #[track_caller]
    pub fn assert_same_files(&self, one: &str, other: &str) {
        let files = [one, other].map(|folder| self.files(folder));
        assert_eq!(common::differing(&files[0], &files[1]), Vec::<&PathBuf>::new(), "{one}, {other}");
    }
}
