//! `run.json` (SPEC A50): what made a run. Names, numbers and hashes only, never text of a record.
//!
//! The top level describes the latest command in the run directory; `earlier` lists those before it, newest first.
//!
//! Who writes it holds the directory's lock until the record is complete. So a record that says `running` where the
//! lock is free is of a process that ended without a word (`kill -9`, no memory, the machine's end).

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{RunLock, foreign, hash_file, protect, write_json};
use crate::error::{Kind, Result};

/// Its name in the run directory.
const FILE: &str = "run.json";
/// Commands remembered under `earlier`.
const EARLIER: usize = 50;
/// The outcome of a command that has not ended.
const RUNNING: &str = "running";

/// The run directory whose record this process is to complete, and its lock.
static OPEN: Mutex<Option<(PathBuf, RunLock)>> = Mutex::new(None);

/// A model or checkpoint that a command used, by its role (`model.base`) and the hash that the command knows it by.
pub type Used<'a> = (&'a str, &'a Path, &'a str);

/// What a command knows of itself when it begins.
#[derive(Debug)]
pub struct Begun<'a> {
    /// Its name.
    pub command: &'a str,
    /// When it began.
    pub started: SystemTime,
    /// Of this program and its dependencies.
    pub versions: Value,
    /// What it runs on.
    pub hardware: Value,
    /// `--seed`
    pub seed: u64,
    /// The date that the run's prompts hold.
    pub prompt_date: String,
    /// Files and directories read: each file is listed with its hash.
    pub inputs: Vec<&'a Path>,
    /// Models used.
    pub models: &'a [Used<'a>],
    /// The resolved config.
    pub config: Value,
}

/// Takes the lock of a run directory. Where a process ended without a word, its record says so from now on.
pub fn lock(run: &Path) -> Result<RunLock> {
    let lock = RunLock::acquire(run)?;
    match read(run).filter(is_ours) {
        Some(mut record) if record["outcome"] == RUNNING => {
            record["outcome"] = "interrupted".into();
            write_json(&run.join(FILE), &record)?;
        }
        _ => {}
    }
    Ok(lock)
}

/// Writes `RUN/run.json`; [`finish`] completes it when the command ends, and gives the lock back.
///
/// # Errors
/// A file of that name that no clsgen wrote; a file that cannot be written.
pub fn begin(run: &Path, begun: Begun<'_>, lock: RunLock) -> Result<()> {
    let path = run.join(FILE);
    if path.symlink_metadata().is_ok() && !read(run).is_some_and(|record| is_ours(&record)) {
        return Err(foreign(&path, "and no clsgen wrote it"));
    }
    let mut files: Vec<Value> = Vec::new();
    for input in begun.inputs {
        protect(input);
        describe(input, 0, &mut files);
    }
    files.extend(begun.models.iter().map(|(role, path, hash)| json!({ "path": path, "role": role, "blake3": hash })));
    let record = json!({
        "schema": 1,
        "command": begun.command,
        "command_line": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "started": timestamp(begun.started),
        "ended": null,
        "outcome": RUNNING,
        "exit_code": null,
        "process": std::process::id(),
        "versions": begun.versions,
        "hardware": begun.hardware,
        "seeds": { "seed": begun.seed },
        "prompt_date": begun.prompt_date,
        "inputs": files,
        "config": begun.config,
        "earlier": earlier(run),
    });
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    write_json(&path, &record)?;
    *open = Some((run.to_owned(), lock));
    Ok(())
}

/// Notes in this process's `run.json`, where it has begun one, when and how its command ended.
pub fn finish<T>(result: &Result<T>) -> Result<()> {
    match result {
        Ok(_) => complete(0, "ok"),
        Err(error) => match error.kind() {
            Kind::Signal(signal) => complete(error.exit_code(), &format!("stopped by signal {signal}")),
            _ => complete(error.exit_code(), &format!("exit {}", error.exit_code())),
        },
    }
}

/// The same where the command itself has no say any more: what ended it, with this exit code.
pub fn complete(exit_code: u8, outcome: &str) -> Result<()> {
    // Held until it is written: whoever ends the process beside us waits for that.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((run, _lock)) = open.take() else { return Ok(()) };
    // Somebody may have removed the directory.
    let Some(mut record) = read(&run).filter(|record| record["process"] == std::process::id()) else { return Ok(()) };
    record["ended"] = timestamp(SystemTime::now()).into();
    record["exit_code"] = exit_code.into();
    record["outcome"] = outcome.into();
    write_json(&run.join(FILE), &record)
}

/// The record of a run directory; `None` without one.
pub fn read(run: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(run.join(FILE)).ok()?).ok()
}

/// Whether a clsgen wrote it.
fn is_ours(record: &Value) -> bool {
    record["command"].is_string()
}

/// The record now in the file, then those it remembers.
fn earlier(run: &Path) -> Vec<Value> {
    let Some(Value::Object(mut last)) = read(run) else { return Vec::new() };
    let older = match last.remove("earlier") {
        Some(Value::Array(older)) => older,
        _ => Vec::new(),
    };
    std::iter::once(Value::Object(last)).chain(older).take(EARLIER).collect()
}

/// Path, length and BLAKE3 of a file, or of every file of a directory. One that cannot be read is listed without a
/// hash: the command itself says so with the right exit code.
fn describe(path: &Path, depth: usize, files: &mut Vec<Value>) {
    match std::fs::metadata(path) {
        // Not a pipe: hashing it would eat what the command is about to read.
        Ok(meta) if meta.is_file() => {
            files.push(json!({ "path": path.to_string_lossy(), "bytes": meta.len(), "blake3": hash_file(path).ok() }));
        }
        Ok(meta) if meta.is_dir() && depth < 3 => {
            let mut entries: Vec<_> =
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| describe(entry, depth + 1, files));
        }
        _ => files.push(json!({ "path": path.to_string_lossy(), "bytes": null, "blake3": null })),
    }
}

/// RFC 3339 in UTC, to the second.
fn timestamp(time: SystemTime) -> String {
    format!("{:.0}", jiff::Timestamp::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_those_of_date() {
        let at = |seconds| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00Z");
    }
}
