//! JSONL files of an evaluation (answers of baselines and judge) that resume an interrupted command.
//!
//! Beside `<name>.jsonl`, `<name>.meta.json` stores the fingerprint (hashes, prompts, settings) that produced it and
//! `<name>.hashes` one hash per line. Under the same fingerprint the lines are verified and kept, and only the missing
//! records are computed. Under another one, or where a line was changed, the command stops with an error; `--overwrite`
//! then starts the file over.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use indicatif::ProgressBar;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::Context,
    data::Record,
    error::{Error, Result},
    fingerprint::Fingerprint,
    progress,
    storage::{self, RecordLog},
};

/// A JSONL file with a stored hash per line.
pub struct Log {
    lines: RecordLog,
    hashes: RecordLog,
}

impl Log {
    /// Number of complete, verified lines.
    pub fn records(&self) -> usize {
        self.lines.records()
    }

    /// Appends a record as one line, then its hash. If the process is killed in between, only this record is computed
    /// again.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        // Byte for byte what `RecordLog::append` writes.
        let line = serde_json::to_vec(record)
            .map_err(|e| Error::run(format!("cannot write {}: {e}", self.lines.path().display())))?;
        self.lines.append(record)?;
        self.hashes.append(&line_hash(&line))
    }

    /// Waits until the disk has everything appended so far.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync()?;
        self.hashes.sync()
    }
}

/// 128 bits of BLAKE3: enough to notice an edit.
fn line_hash(line: &[u8]) -> String {
    storage::hash_bytes(line)[..32].to_owned()
}

/// Opens a file: resumes one of the same fingerprint, or creates it. `overwrite` replaces one that would be an error,
/// never one that matches.
pub fn open(file: &Path, made: &Fingerprint, overwrite: bool) -> Result<Log> {
    if let Some(folder) = file.parent() {
        storage::create_dir_all(folder)?;
    }
    let beside = file.with_extension("meta.json");
    let hashes = file.with_extension("hashes");
    let kept = match reusable_lines(file, made) {
        Ok(kept) => kept,
        Err(error) if overwrite => {
            tracing::warn!("{error}: done again");
            None
        }
        Err(error) => return Err(error),
    };
    if kept.is_none() {
        storage::remove_file(file)?;
        storage::remove_file(&hashes)?;
        storage::write_json(&beside, made)?;
    }
    let mut log = Log { lines: RecordLog::open(file)?, hashes: RecordLog::open(&hashes)? };
    if let Some(kept) = kept {
        log.lines.keep(kept)?;
        log.hashes.keep(kept)?;
    }
    Ok(log)
}

/// Number of lines of an existing file that can be kept; `None` where there is none.
fn reusable_lines(file: &Path, made: &Fingerprint) -> Result<Option<usize>> {
    // An empty log (the model could not be read, say) holds nothing to lose.
    if file.metadata().map_or(true, |metadata| metadata.len() == 0) {
        return Ok(None);
    }
    let again = "--overwrite computes it again";
    let beside = file.with_extension("meta.json");
    match made_by(file).map(|theirs| made.differences(&theirs)) {
        Some(differing) if differing.is_empty() => verify_lines(file).map(Some).map_err(|error| error.hint(again)),
        Some(differing) => {
            let message = format!("{} was made with other settings: {}", file.display(), differing.join("; "));
            Err(Error::usage(message)
                .hint(format!("{again}, in this split's folder alone; or give the settings that made it")))
        }
        None => {
            Err(Error::data(format!("{}: {} does not say what made it", file.display(), beside.display())).hint(again))
        }
    }
}

/// Compares every line with its stored hash; returns the number of valid lines. An interrupted command leaves at most
/// one trailing line without a hash.
fn verify_lines(file: &Path) -> Result<usize> {
    let read = |path: &Path| File::open(path).map(BufReader::new).map_err(|e| storage::error("cannot read", path, &e));
    let path = file.with_extension("hashes");
    if !path.exists() {
        return match file.metadata() {
            Ok(metadata) if metadata.len() == 0 => Ok(0),
            _ => Err(Error::data(format!(
                "{}: {} is gone, so its lines cannot be checked",
                file.display(),
                path.display()
            ))),
        };
    }
    let mut lines = read(file)?;
    let mut hashes = read(&path)?;
    let mut line = Vec::new();
    let mut hash = String::new();
    let mut number = 0;
    loop {
        line.clear();
        hash.clear();
        lines.read_until(b'\n', &mut line).map_err(|e| storage::error("cannot read", file, &e))?;
        hashes.read_line(&mut hash).map_err(|e| storage::error("cannot read", &path, &e))?;
        let (Some(text), Some(recorded)) = (line.strip_suffix(b"\n"), hash.strip_suffix('\n')) else { break };
        if recorded.trim_matches('"') != line_hash(text) {
            return Err(Error::data(format!(
                "{}, line {}: was changed after it was written",
                file.display(),
                number + 1
            )));
        }
        number += 1;
    }
    Ok(number)
}

/// The stored fingerprint of a file, if it can be read.
pub fn made_by(file: &Path) -> Option<Fingerprint> {
    serde_json::from_slice(&std::fs::read(file.with_extension("meta.json")).ok()?).ok()
}

/// Verifies a file without opening it for writing.
pub fn check(file: &Path) -> Result<()> {
    verify_lines(file).map(drop).map_err(|error| error.hint("--overwrite computes it again"))
}

/// Computes the given items and appends a line for each.
pub type Fill<'f, T = Record> = dyn Fn(&[T], &mut Log, &ProgressBar) -> Result<()> + 'f;

/// Completes a file that has one line per item, in the items' order: calls `work` with those that have no line yet (not
/// at all if none is missing).
///
/// `made` is the fingerprint, and whether a file of another one may be replaced.
pub fn fill<T>(
    context: &Context,
    file: &Path,
    made: (&Fingerprint, bool),
    items: &[T],
    work: &Fill<'_, T>,
) -> Result<()> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut lines = open(file, made.0, made.1)?;
    let done = lines.records().min(items.len());
    if done > 0 {
        tracing::info!("{name}: {done} of {} records are done already", items.len());
    }
    if done == items.len() {
        return Ok(());
    }
    let bar = progress(context, &name, items.len(), done);
    let outcome = work(&items[done..], &mut lines, &bar);
    bar.finish_and_clear();
    lines.sync()?;
    outcome.map_err(resumable)
}

/// Every line of a log of ours; `each` may drop what need not be held.
pub fn read<T: DeserializeOwned>(file: &Path, mut each: impl FnMut(&mut T)) -> Result<Vec<T>> {
    let bytes = std::fs::read(file)
        .map_err(|e| Error::data(format!("cannot read {}: {}", file.display(), storage::reason(&e))))?;
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let parsed = lines.map(|(i, line)| {
        let mut line = serde_json::from_slice(line).map_err(|e| {
            // serde's message may quote the line: only its place is told.
            Error::data(format!("{}, line {}: not a line of this file (column {})", file.display(), i + 1, e.column()))
                .hint("delete the file and give the same command again")
        })?;
        each(&mut line);
        Ok(line)
    });
    parsed.collect()
}

/// A progress bar on a terminal, hidden elsewhere.
pub fn progress(context: &Context, what: &str, total: usize, done: usize) -> ProgressBar {
    let bar = progress::bar(
        context.quiet,
        Some(total),
        done,
        "{prefix} {wide_bar} {pos}/{len} records, {per_sec}, {eta} left",
    );
    bar.with_prefix(what.to_owned())
}

/// Adds how to go on to an error that a signal caused (exit code 128 + n).
pub fn resumable(error: Error) -> Error {
    if error.exit_code() >= 128 { error.hint("the same command goes on where this one stopped") } else { error }
}
