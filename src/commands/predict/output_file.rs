//! Where predictions go: a private file with a sidecar that says what made it, stdout, or a device.
//!
//! `OUTPUT.meta.json` is written before the first line. A later command continues `OUTPUT` when its own sidecar would be
//! the same; a torn last line is cut and written again.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    commands::output,
    data::Prediction,
    error::{Error, Result},
    generate::predict::Counts,
    storage::{self, RecordLog, Writer},
};

/// What made an output: equal sidecars, equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    pub(super) schema: u32,
    pub(super) clsgen_version: String,
    /// BLAKE3 of the checkpoint's files.
    pub(super) model: String,
    /// BLAKE3 of the base model.
    pub(super) base: String,
    /// BLAKE3 of the input; null for a pipe, which nothing can be compared with.
    pub(super) input: Option<String>,
    pub(super) settings: serde_json::Value,
}

/// An open output.
pub(super) enum Output {
    Stdout,
    /// A regular file; the counts are those of the lines it already held.
    File(RecordLog, Counts),
    /// A FIFO or a device: nothing to continue, nothing to describe.
    Device(Writer),
}

/// Refuses an output that cannot be continued whatever the model turns out to be, before anything slow is done.
pub(super) fn check_early(path: &Path, overwrite: bool) -> Result<()> {
    if is_stream(path) || overwrite || !holds_lines(path) || sidecar_path(path).is_file() {
        return Ok(());
    }
    Err(refusal(path, "no sidecar says what made it"))
}

impl Output {
    /// Opens `path`: `-` is stdout; a file is begun, continued where its sidecar equals `sidecar`, or refused (exit 2).
    pub(super) fn open(path: &Path, sidecar: &Sidecar, overwrite: bool) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        if is_stream(path) {
            return Ok(Self::Device(storage::append(path)?));
        }
        let beside = sidecar_path(path);
        if overwrite {
            storage::remove_file(path)?;
        } else if holds_lines(path) {
            check_same(path, &beside, sidecar)?;
        }
        let json = serde_json::to_vec_pretty(sidecar).map_err(|e| Error::run(format!("cannot write {}: {e}", beside.display())))?;
        storage::write_file_atomic(&beside, &json)?;
        let log = RecordLog::open(path)?;
        let counts = count(path)?;
        Ok(Self::File(log, counts))
    }

    /// Lines that are already there.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::File(log, _) => log.records(),
            _ => 0,
        }
    }

    /// Counts of the lines that are already there.
    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::File(_, counts) => *counts,
            _ => Counts::default(),
        }
    }

    /// Writes a line.
    pub(super) fn put(&mut self, prediction: &Prediction) -> Result<()> {
        match self {
            Self::File(log, _) => log.append(prediction),
            Self::Stdout => output::line(&prediction.to_line()?),
            Self::Device(writer) => {
                writer.put(format!("{}\n", prediction.to_line()?).as_bytes())?;
                writer.flush_file()
            }
        }
    }

    /// Waits until the disk has every line.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::File(log, _) => log.sync(),
            Self::Stdout => Ok(()),
            Self::Device(writer) => writer.finish(),
        }
    }
}

/// Whether an earlier run left lines.
fn holds_lines(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-" || path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".meta.json");
    name.into()
}

/// Compares an earlier run's sidecar with ours, naming what differs.
fn check_same(path: &Path, beside: &Path, ours: &Sidecar) -> Result<()> {
    let theirs: Sidecar = std::fs::read(beside)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| refusal(path, &format!("{} cannot be read", beside.display())))?;
    if ours.input.is_none() {
        return Err(refusal(path, "records from a pipe cannot be compared with those it was made from"));
    }
    let same = [
        ("model", theirs.model == ours.model),
        ("base model", theirs.base == ours.base),
        ("input", theirs.input == ours.input),
        ("settings", theirs.settings == ours.settings),
        ("version of clsgen", theirs.clsgen_version == ours.clsgen_version && theirs.schema == ours.schema),
    ];
    let differing: Vec<&str> = same.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(refusal(path, &format!("it was made with another {}", differing.join(", another "))))
}

fn refusal(path: &Path, why: &str) -> Error {
    Error::usage(format!("{} exists and cannot be continued: {why}", path.display()))
        .hint("give another --output, or --overwrite to replace it")
}

/// Counts the whole lines of an output, so that the totals at the end are those of the file.
fn count(path: &Path) -> Result<Counts> {
    let file = std::fs::File::open(path).map_err(|e| storage::error("cannot read", path, &e))?;
    let mut counts = Counts::default();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| storage::error("cannot read", path, &e))?;
        let value: serde_json::Value = serde_json::from_str(&line).map_err(|_| refusal(path, "it holds lines that are not predictions"))?;
        counts.records += 1;
        counts.errors += usize::from(value.get("error").is_some_and(|error| !error.is_null()));
        counts.truncated += usize::from(value.get("truncated_tokens").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 0));
        counts.unparsable += usize::from(value.get("parsable") == Some(&serde_json::Value::Bool(false)));
    }
    Ok(counts)
}
