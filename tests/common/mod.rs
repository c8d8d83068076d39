//! What the integration tests share: the program, files that may be absent, processes that are killed.
#![allow(dead_code, unused_imports, unused_macros)] // each test file uses its own part

mod golden;
mod scratch;
mod tensors;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    sync::mpsc,
    time::{Duration, Instant},
};

use clsgen::demo::{
    self,
    notes::{NoteSettings, Notes},
};
pub use golden::{golden, golden_path};
pub use scratch::Scratch;
pub(crate) use scratch::in_scratch;
use serde_json::Value;
pub use tensors::{gguf_name, gguf_permuted, random};

/// A file or folder of `../shared` (or of `$CLSGEN_SHARED`); absent, a `SKIP:` line says so.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CLSGEN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    present(root.join(path), "set CLSGEN_SHARED to the folder that holds it")
}

/// The folder of SmolLM2-135M-Instruct (`$CLSGEN_SMOLLM2`); absent, a `SKIP:` line says so.
pub fn smollm2() -> Option<PathBuf> {
    match std::env::var_os("CLSGEN_SMOLLM2") {
        Some(path) => present(path.into(), "CLSGEN_SMOLLM2 names it"),
        None => {
            skip("set CLSGEN_SMOLLM2 to the folder of SmolLM2-135M-Instruct");
            None
        }
    }
}

fn present(path: PathBuf, advice: &str) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is not here ({advice})", path.display()));
    None
}

/// The embedded model, its prompt and config, and `count` notes of 120 words in each of these splits, the same in all.
pub fn write_demo(dir: &Path, splits: &[&str], count: u64, prevalence: f64) {
    demo::write_model(&dir.join("model")).unwrap();
    for (name, text) in [(format!("prompts/{}", demo::PROMPT.0).as_str(), demo::PROMPT.1), ("demo.toml", demo::CONFIG)]
    {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let notes = Notes::new(3, NoteSettings { words: 120, prevalence, typos: 0.0 });
    let lines: Vec<String> =
        notes.range(0..count).into_iter().map(|note| Value::Object(note.record.to_json()).to_string()).collect();
    for split in splits {
        std::fs::write(dir.join(format!("data/{split}.jsonl")), lines.join("\n")).unwrap();
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// Files below `dir` by name, but for those called so: there are some.
pub fn files(dir: &Path, but_for: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if !but_for.iter().any(|name| path.ends_with(name)) {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(path).unwrap());
            }
        }
    }
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files
}

/// Names of files that two folders do not have alike.
pub fn differing<'a>(one: &'a BTreeMap<PathBuf, Vec<u8>>, other: &'a BTreeMap<PathBuf, Vec<u8>>) -> Vec<&'a PathBuf> {
    let names: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).collect()
}

/// The program under test, as a command with no setting of the caller's in its environment.
pub fn clsgen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CLSGEN_") || text.starts_with("HF_") || text.starts_with("RAYON_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The same command with SIGHUP as a terminal leaves it, though whoever runs these tests may ignore it (`nohup`).
pub fn hearing_hangups(command: &Command) -> Command {
    let mut heard = Command::new("env");
    heard.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args());
    heard.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => heard.env(name, value),
            None => heard.env_remove(name),
        };
    }
    heard
}

/// Longest that a test waits for what a process is to do: much longer than it takes on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Polls until `reached`. Panics with `what` where the process ends before, or after [`PATIENCE`], and then kills it.
#[track_caller]
pub fn wait_until(child: &mut Child, what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        let status = child.try_wait().unwrap();
        assert!(status.is_none() || reached(), "waiting for {what}: the process ended before, {}", status.unwrap());
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("waiting for {what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a process has written `count` lines to a file.
#[track_caller]
pub fn wait_for_lines(child: &mut Child, file: &Path, count: usize) {
    wait_until(child, &format!("{count} lines in {}", file.display()), || lines(file) >= count);
}

/// What a process gives at its end. One that has not ended after [`PATIENCE`] is killed, and the test fails.
#[track_caller]
pub fn end_of(child: Child) -> Output {
    let id = child.id().to_string();
    let (ended, watched) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        late && Command::new("kill").args(["-KILL", &id]).status().is_ok()
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    assert!(!watch.join().unwrap(), "the process did not end within {PATIENCE:?}: {output:?}");
    output
}

/// The lines of a file that are whole; none where there is no file.
pub fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| lines_of(&bytes))
}

/// The lines of a text that are whole.
pub fn lines_of(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// Sends a process the signal of this name.
pub fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
}

/// A line past the test harness, which keeps what a test prints to itself when it passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "\n{line}");
}

/// Says why a test does nothing here: `.ci/run` fails by that line where everything is to be there.
pub fn skip(why: &str) {
    say(&format!("SKIP: {why}"));
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs a command to its end.
pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("the program starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `clsgen` with these arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Outcome {
    outcome(clsgen().args(args))
}

/// Asserts an exit code and that stderr holds each text.
#[track_caller]
pub fn assert_fails(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for text in texts {
        assert!(outcome.stderr.contains(text), "stderr lacks {text:?}: {}", outcome.stderr);
    }
}

/// A file system of its own, mounted for a test and taken away after it.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs at `dir` with these mount options (`size=64k`, `ro`); where mounting is not allowed, a `SKIP:` line.
    pub fn tmpfs(dir: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a directory to mount on");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        skip(&format!("mounting a tmpfs ({options}) is not allowed here"));
        None
    }

    /// Makes it read-only with what it holds.
    pub fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().expect("mount");
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
