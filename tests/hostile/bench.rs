//! A checkpoint with one thing changed, and what the program makes of it.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{common, fixture::Fixture};

/// Longest that the program may take: many times what the slowest of these takes on a busy machine. The test says
/// nothing else about time.
const SECONDS: &str = "120";
/// KiB of addresses that it has.
const ADDRESSES: &str = "4000000";
/// The text of the record that is predicted: it may be nowhere on stderr.
pub const NOTE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab SECRET fever.";

/// A scratch checkpoint whose prompt is a chat, and a count of what was tried on it.
pub struct Bench {
    pub fixture: Fixture,
    kind: &'static str,
    files: usize,
}

/// How a run ended.
pub struct Ended {
    pub code: i32,
    pub stderr: String,
    what: String,
}

impl Bench {
    pub fn new(kind: &'static str) -> Self {
        let fixture = Fixture::new();
        fixture.write("in.jsonl", serde_json::json!({"id": "a", "text": NOTE}).to_string() + "\n");
        let bench = Self { fixture, kind, files: 0 };
        bench.set("run/checkpoints/epoch-01/clsgen.json", &["prompt", "format"], "chat".into());
        bench.fixture.write(
            "base/chat_template.jinja",
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
             {% if add_generation_prompt %}a: {% endif %}",
        );
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.fixture.path(name)
    }

    /// Changes a key of a JSON file, found through these keys.
    pub fn set(&self, file: &str, keys: &[&str], value: Value) {
        let mut json: Value = serde_json::from_slice(&self.fixture.read(file)).unwrap();
        let place = keys.iter().fold(&mut json, |place, key| &mut place[*key]);
        *place = value;
        self.fixture.write(file, json.to_string());
    }

    /// Predicts the one record.
    pub fn predict(&mut self, what: &str) -> Ended {
        let _ = std::fs::remove_file(self.path("out.jsonl"));
        let _ = std::fs::remove_file(self.path("out.jsonl.meta.json"));
        let model = "run/checkpoints/epoch-01";
        self.run(
            what,
            &[
                "predict",
                "--quiet",
                "--model",
                model,
                "--input",
                "in.jsonl",
                "--output",
                "out.jsonl",
                "--no-explanation",
            ],
        )
    }

    /// Runs the program under its limits, and holds it to what is true of every file.
    pub fn run(&mut self, what: &str, args: &[&str]) -> Ended {
        self.files += 1;
        let program = common::clsgen();
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", SECONDS, "sh", "-c", r#"ulimit -v "$0"; exec "$@""#, ADDRESSES]);
        command.arg(program.get_program()).args(args).args(["--device", "cpu", "--threads", "1"]);
        command.current_dir(self.path("")).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let what = format!("{} {what}", self.kind);
        assert_ne!(output.status.signal(), Some(9), "{what}: hangs: {stderr}");
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 2..=5)), "{what}: exit {code:?} ({}): {stderr}", output.status);
        for never in ["panicked", "internal error", "overflowed its stack", "SECRET", "\x1b", "\0"] {
            assert!(!stderr.contains(never), "{what}: {never:?} on stderr: {stderr}");
        }
        assert!(stderr.len() < 20_000, "{what}: {} bytes on stderr", stderr.len());
        if code != Some(0) {
            assert!(stderr.contains("error: ") && stderr.contains("hint: "), "{what}: {stderr}");
        }
        Ended { code: code.unwrap(), stderr, what }
    }
}

impl Ended {
    /// It was refused with this code, and these words are on stderr.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}: {}", self.what, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{}: stderr lacks {word:?}: {}", self.what, self.stderr);
        }
    }

    #[track_caller]
    pub fn accepted(&self) {
        assert_eq!(self.code, 0, "{}: {}", self.what, self.stderr);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            common::say(&format!("hostile files: {} files of {}, 0 panics, 0 hangs, 0 aborts", self.files, self.kind));
        }
    }
}
