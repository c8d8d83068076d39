//! Record logs of an evaluation: continued where an earlier run of the same stopped, begun anew otherwise.
//!
//! `<name>.meta.json` beside `<name>.jsonl` says what made it (hashes, prompts, settings), and `<name>.hashes` holds a
//! hash a line. When the same would be made again, its lines are checked and kept, and only the missing records are
//! done. What other settings made, and what was changed since, is refused; `--overwrite` begins it anew.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use indicatif::ProgressBar;
use serde::{Serialize, de::DeserializeOwned};

use super::Context;
use crate::{
    data::Record,
    error::{Error, Result},
    fingerprint::Fingerprint,
    progress,
    storage::{self, RecordLog},
};

/// A log whose every line is recorded by its hash.
pub struct Log {
    lines: RecordLog,
    hashes: RecordLog,
}

impl Log {
    /// Whole, checked records in the log.
    pub fn records(&self) -> usize {
        self.lines.records()
    }

    /// Appends a record as one line, then its hash: a kill between the two costs this one record.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        // As RecordLog writes it.
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

fn line_hash(line: &[u8]) -> String {
    storage::hash_bytes(line)[..32].to_owned()
}

/// The log to go on with: an earlier one of the same, or a new one. `overwrite` begins anew what would be refused.
pub fn open(file: &Path, made: &Fingerprint, overwrite: bool) -> Result<Log> {
    if let Some(folder) = file.parent() {
        storage::create_dir_all(folder)?;
    }
    let (beside, hashes) = (file.with_extension("meta.json"), file.with_extension("hashes"));
    let kept = match keepable(file, made) {
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

/// How many lines of an earlier log stand; `None` where there is none.
fn keepable(file: &Path, made: &Fingerprint) -> Result<Option<usize>> {
    // An empty log (the model could not be read, say) holds nothing to lose.
    if file.metadata().map_or(true, |metadata| metadata.len() == 0) {
        return Ok(None);
    }
    let again = "--overwrite makes it again";
    let beside = file.with_extension("meta.json");
    match made_by(file).map(|theirs| made.differences(&theirs)) {
        Some(differing) if differing.is_empty() => verified(file).map(Some).map_err(|error| error.hint(again)),
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

/// Checks every line against its recorded hash; gives how many stand. A stopped command leaves at most a last line
/// without one.
fn verified(file: &Path) -> Result<usize> {
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
    let (mut lines, mut hashes) = (read(file)?, read(&path)?);
    let (mut line, mut hash) = (Vec::new(), String::new());
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

/// What made a log.
pub fn made_by(file: &Path) -> Option<Fingerprint> {
    serde_json::from_slice(&std::fs::read(file.with_extension("meta.json")).ok()?).ok()
}

/// Checks a log that is only read.
pub fn check(file: &Path) -> Result<()> {
    verified(file).map(drop).map_err(|error| error.hint("--overwrite makes it again"))
}

/// Appends a line for each of the items that a log lacks.
pub type Fill<'f, T = Record> = dyn Fn(&[T], &mut Log, &ProgressBar) -> Result<()> + 'f;

/// Brings a log of a line an item to its end: `work` is given the items that have no line yet, and is not called
/// without any.
///
/// `made` is what makes the log, and whether another one's may be replaced.
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

/// A bar on a terminal; nothing anywhere else.
pub fn progress(context: &Context, what: &str, total: usize, done: usize) -> ProgressBar {
    let bar = progress::bar(
        context.quiet,
        Some(total),
        done,
        "{prefix} {wide_bar} {pos}/{len} records, {per_sec}, {eta} left",
    );
    bar.with_prefix(what.to_owned())
}

/// Says how to go on, where a signal stopped the work.
pub fn resumable(error: Error) -> Error {
    if error.exit_code() >= 128 { error.hint("the same command goes on where this one stopped") } else { error }
}
