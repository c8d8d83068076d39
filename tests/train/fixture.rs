//! A scratch directory with a config over `tests/golden/train/base`, a tiny random Llama with a byte tokenizer.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::common::{Scratch, golden_path, in_scratch};

/// A word of every note: it must never be seen outside the files that hold text on purpose.
pub const SECRET: &str = "zebrafish";

/// Keys of the log that say how long something took.
const TIMES: [&str; 6] = ["seconds", "tokens_per_s", "mfu", "allreduce_seconds", "allreduce_share", "dev_seconds"];

pub struct Fixture(Scratch);

in_scratch!(Fixture);

/// The golden files.
pub fn golden(name: &str) -> PathBuf {
    golden_path("train").join(name)
}

impl Fixture {
    /// Eleven records to train on, of which three have no explanation; six for dev.
    pub fn new() -> Self {
        let fixture = Self(Scratch::new());
        fixture.write("train.jsonl", notes(11, true));
        fixture.write("dev.jsonl", notes(6, false));
        fixture.write("prompt.toml", PROMPT);
        fixture.write("config.toml", config());
        fixture
    }

    /// Lines of a log of this type.
    pub fn log(&self, run: &str, kind: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["type"] == kind)
            .collect()
    }

    /// `clsgen train` into `run`.
    pub fn command(&self, run: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
        command.current_dir(self.path("")).args(["train", "--config", "config.toml", "--run", run]).args(flags);
        command.env("RUST_BACKTRACE", "0").env_remove("CLSGEN_FAULT");
        command
    }

    /// Runs it to its end; no record's text may be on its streams.
    pub fn train(&self, run: &str, flags: &[&str]) -> Output {
        check(self.command(run, flags).output().unwrap())
    }

    /// The same, which must succeed.
    pub fn succeed(&self, run: &str, flags: &[&str]) -> Output {
        let output = self.train(run, flags);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    }

    /// The same, which must fail with this code; returns stderr.
    pub fn fail(&self, run: &str, flags: &[&str], code: i32) -> String {
        let output = self.train(run, flags);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    }

    /// What two runs that did the same must have in common: bytes of every checkpoint file that does not hold times,
    /// and the deterministic part of the log.
    pub fn result(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let checkpoints = self.path(&format!("{run}/checkpoints"));
        for epoch in std::fs::read_dir(checkpoints).unwrap().map(|entry| entry.unwrap()) {
            let epoch_name = epoch.file_name().into_string().unwrap();
            if !epoch_name.starts_with("epoch-") {
                continue;
            }
            for file in std::fs::read_dir(epoch.path()).unwrap().map(|entry| entry.unwrap()) {
                let name = format!("{epoch_name}/{}", file.file_name().to_str().unwrap());
                files.insert(name, std::fs::read(file.path()).unwrap());
            }
        }
        files.insert("best.json".into(), self.read(&format!("{run}/best.json")));
        for kind in ["step", "epoch"] {
            let mut lines = self.log(run, kind);
            for line in &mut lines {
                line.as_object_mut().unwrap().retain(|key, _| !TIMES.contains(&key.as_str()));
            }
            files.insert(kind.into(), serde_json::to_vec(&lines).unwrap());
        }
        files
    }
}

/// The two results are the same; the message names what is not.
pub fn assert_same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{what}");
    let differing: Vec<&String> = one.keys().filter(|key| one[*key] != other[*key]).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn check(output: Output) -> Output {
    for stream in [&output.stdout, &output.stderr] {
        assert!(
            !String::from_utf8_lossy(stream).contains(SECRET),
            "a record's text is on a stream: {}",
            stderr(&output)
        );
    }
    output
}

/// Notes of different lengths whose label follows from their text.
pub fn notes(count: usize, explained: bool) -> String {
    let note = |i: usize| {
        let dead = i.is_multiple_of(3);
        let finding = if dead { "the heart stopped " } else { "went home well " };
        let mut note = json!({"id": format!("n{i}"), "text": format!("{SECRET} {i} {}", finding.repeat(1 + i % 3)),
            "label": u8::from(dead)});
        if explained && i % 4 != 2 {
            note["explanation"] =
                json!(format!("Because {}", if dead { "the heart stopped." } else { "all is well." }));
        }
        note.to_string() + "\n"
    };
    (0..count).map(note).collect()
}

const PROMPT: &str = r#"
system = "You read notes."
user = "Note: {document}"
question = "Dead or alive?"
prefix = "Reasoning: "
response = "{explanation}\n\nClassification: {label}\n\n"
format = "plain"
"#;

fn config() -> String {
    format!(
        r#"
[task]
name = "toy"
labels = ["0:alive", "1:death"]
prompt = "prompt.toml"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
[model]
base = "{}"
max_input_tokens = 256
max_output_tokens = 64
[lora]
rank = 4
alpha = 8
dropout = 0.1
[head]
hidden = 16
dropout = 0.1
[train]
epochs = 2
batch_size = 2
grad_accumulation = 2
learning_rate = 5e-3
warmup_steps = 1
"#,
        golden("base").display()
    )
}
