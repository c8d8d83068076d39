//! Record logs of an evaluation: continued where an earlier run of the same stopped, begun anew otherwise.
//!
//! `<name>.meta.json` beside `<name>.jsonl` says what made it (hashes, prompts, settings). When the same would be made again, its
//! lines are kept and only the missing records are done; anything else begins the file anew, for all of `RUN/eval` belongs to
//! the latest evaluation.

use std::{io::IsTerminal, path::Path};

use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Context, json};
use crate::{
    data::Record,
    device,
    error::{Error, Result},
    storage::{self, RecordLog},
};

/// The log to go on with: an earlier one of the same, or a new one.
pub fn open(file: &Path, meta: &Value) -> Result<RecordLog> {
    if let Some(folder) = file.parent() {
        storage::create_dir_all(folder)?;
    }
    let beside = file.with_extension("meta.json");
    let same = std::fs::read(&beside).is_ok_and(|bytes| serde_json::from_slice::<Value>(&bytes).is_ok_and(|theirs| theirs == *meta));
    if !same {
        storage::remove_file(file)?;
        storage::write_file_atomic(&beside, json(meta)?.as_bytes())?;
    }
    RecordLog::open(file)
}

/// Appends a line for each of the items that a log lacks.
pub type Fill<'f, T = Record> = dyn Fn(&[T], &mut RecordLog, &ProgressBar) -> Result<()> + 'f;

/// Brings a log of a line an item to its end: `work` is given the items that have no line yet, and is not called without any.
pub fn fill<T>(context: &Context, file: &Path, meta: &Value, items: &[T], work: &Fill<'_, T>) -> Result<()> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut lines = open(file, meta)?;
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

/// Ends the work where a signal asks for it.
pub fn check_signal() -> Result<()> {
    device::check_interrupted()
}

/// Every line of a log of ours; `each` may drop what need not be held.
pub fn read<T: DeserializeOwned>(file: &Path, mut each: impl FnMut(&mut T)) -> Result<Vec<T>> {
    let bytes = std::fs::read(file).map_err(|e| Error::data(format!("cannot read {}: {}", file.display(), storage::reason(&e))))?;
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
    if context.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64).with_position(done as u64).with_prefix(what.to_owned());
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} records, {per_sec}, {eta} left");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Says how to go on, where a signal stopped the work.
pub fn resumable(error: Error) -> Error {
    if error.exit_code() >= 128 { error.hint("the same command goes on where this one stopped") } else { error }
}
