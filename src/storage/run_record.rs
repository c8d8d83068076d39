//! `run.json`: what made a run. Names, numbers and hashes only, never text of a record.
//!
//! The top level describes the latest command in the run directory; `earlier` lists those before it, newest first.
//!
//! Who writes it holds the directory's lock until the record is complete. So a record that says `running` where the
//! lock is free is of a process that ended without a word (`kill -9`, no memory, the machine's end).
//!
//! Processes that work on parts of a run at once (`construct --shard`) each have a record of their own; the command
//! that puts the parts together lists them in `run.json` under `shards`. The one thing they must agree on beforehand,
//! the date of their prompts, is the first one's ([`settle_date`]).

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::{Map, Value, json};

use super::{OutputLock, RunLock, foreign, hash_file, protect, write_json};
use crate::{
    error::{Kind, Result},
    shard::Shard,
};

/// Its name in the run directory.
const FILE: &str = "run.json";
/// The date that processes of one run agreed on before there was a `run.json`.
const DATE_FILE: &str = "prompt_date.json";
/// Commands remembered under `earlier`.
const EARLIER: usize = 50;
/// The outcome of a command that has not ended.
const RUNNING: &str = "running";
/// That of one whose process ended without a word.
const INTERRUPTED: &str = "interrupted";

/// The record that this process is to complete, and the lock of its run directory.
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
    /// Records of the processes whose parts this command puts together.
    pub shards: Vec<Value>,
}

/// A record's place: a run directory's, or that of one of the processes that share the run.
#[must_use]
pub fn path(run: &Path, shard: Option<Shard>) -> PathBuf {
    match shard {
        None => run.join(FILE),
        Some(shard) => run.join("construct").join(format!("{}.{FILE}", shard.file_name())),
    }
}

/// Takes the lock of a run directory. Where a process ended without a word, its record says so from now on.
pub fn lock(run: &Path) -> Result<RunLock> {
    let lock = RunLock::acquire(run)?;
    match read(run).filter(is_ours) {
        Some(mut record) if record["outcome"] == RUNNING => {
            record["outcome"] = INTERRUPTED.into();
            write_json(&run.join(FILE), &record)?;
        }
        _ => {}
    }
    Ok(lock)
}

/// Writes the record at `path`; [`finish`] completes it when the command ends, and gives the lock back.
///
/// # Errors
/// A file of that name that no clsgen wrote; a file that cannot be written.
pub fn begin(path: &Path, begun: Begun<'_>, lock: RunLock) -> Result<()> {
    if path.symlink_metadata().is_ok() && !read_at(path).is_some_and(|record| is_ours(&record)) {
        return Err(foreign(path, "and no clsgen wrote it"));
    }
    let mut files: Vec<Value> = Vec::new();
    for input in begun.inputs {
        protect(input);
        describe(input, 0, &mut files);
    }
    files.extend(begun.models.iter().map(|(role, path, hash)| json!({ "path": path, "role": role, "blake3": hash })));
    let mut record = json!({
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
        "earlier": earlier(path),
    });
    if !begun.shards.is_empty() {
        record["shards"] = begun.shards.into();
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    write_json(path, &record)?;
    *open = Some((path.to_owned(), lock));
    Ok(())
}

/// Notes in this process's record, where it has begun one, when and how its command ended.
pub fn finish<T>(result: &Result<T>) -> Result<()> {
    match result {
        Ok(_) => complete(0, "ok"),
        Err(error) => match error.kind() {
            Kind::Signal(signal) => complete(error.exit_code(), &format!("stopped by signal {signal}")),
            _ => complete(error.exit_code(), &format!("exit {}", error.exit_code())),
        },
    }
}

/// The same where no result of the command says how it ended (a panic, a second signal): `outcome` does.
pub fn complete(exit_code: u8, outcome: &str) -> Result<()> {
    // The lock is held until the record is written: another thread that ends the process waits for it.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((path, _lock)) = open.take() else { return Ok(()) };
    // Somebody may have removed the directory.
    let ours = |record: &Value| record["process"] == std::process::id();
    let Some(mut record) = read_at(&path).filter(ours) else { return Ok(()) };
    record["ended"] = timestamp(SystemTime::now()).into();
    record["exit_code"] = exit_code.into();
    record["outcome"] = outcome.into();
    write_json(&path, &record)
}

/// The record of a run directory; `None` without one.
pub fn read(run: &Path) -> Option<Value> {
    read_at(&path(run, None))
}

/// Whether the newest of this command's records in a run directory says that it came to its end.
pub fn ended_well(run: &Path, command: &str) -> bool {
    let Some(record) = read(run) else { return false };
    let earlier = record["earlier"].as_array().into_iter().flatten();
    std::iter::once(&record)
        .chain(earlier)
        .find(|record| record["command"] == command)
        .is_some_and(|r| r["outcome"] == "ok")
}

fn read_at(path: &Path) -> Option<Value> {
    serde_json::from_slice(&crate::foreign::read(path, crate::foreign::LARGE).ok()?).ok()
}

/// What the record of a process that shares the run says of it alone: its part, when and where it ran, how it ended.
pub fn of_shard(run: &Path, shard: Shard) -> Option<Value> {
    let Value::Object(record) = read_at(&path(run, Some(shard)))? else { return None };
    let own = ["command_line", "started", "ended", "outcome", "exit_code", "versions", "hardware"];
    let own = own.into_iter().filter_map(|key| Some((key.to_owned(), record.get(key)?.clone())));
    Some(std::iter::once(("shard".to_owned(), json!(shard.to_string()))).chain(own).collect::<Map<_, _>>().into())
}

/// The date that a run's prompts hold: that of its `run.json`, else the one that its processes agreed on.
pub fn date(run: &Path) -> Option<String> {
    let of = |record: Value| record["prompt_date"].as_str().map(str::to_owned);
    read(run).and_then(of).or_else(|| read_at(&date_file(run)).and_then(of))
}

/// The same for processes that begin a run at the same moment: where there is none yet, it is `ours` of whoever comes
/// first, for all of them.
pub fn settle_date(run: &Path, ours: &str) -> Result<String> {
    let path = date_file(run);
    let _lock = OutputLock::wait(&path)?;
    match date(run) {
        Some(date) => Ok(date),
        None => write_json(&path, &json!({ "schema": 1, "prompt_date": ours })).map(|()| ours.to_owned()),
    }
}

fn date_file(run: &Path) -> PathBuf {
    run.join("construct").join(DATE_FILE)
}

/// Whether a clsgen wrote it.
fn is_ours(record: &Value) -> bool {
    record["command"].is_string()
}

/// The record now in the file, then those it remembers.
fn earlier(path: &Path) -> Vec<Value> {
    let Some(Value::Object(mut last)) = read_at(path).filter(is_ours) else { return Vec::new() };
    let older = match last.remove("earlier") {
        Some(Value::Array(older)) => older,
        _ => Vec::new(),
    };
    if last["outcome"] == RUNNING {
        last["outcome"] = INTERRUPTED.into();
    }
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
