//! JSONL files of an evaluation (predictions, answers of baselines and judge, likelihoods of texts) that resume an
//! interrupted command.
//!
//! Beside `<name>.jsonl`, `<name>.meta.json` stores the fingerprint (hashes, prompts, settings) that produced it and
//! `<name>.hashes` one hash per line. Under the same fingerprint the lines are verified and kept, and only the missing
//! records are computed. Under another one, or where a line was changed, the command stops with an error; `--overwrite`
//! then starts the file over.
//!
//! A line is read back once, as it is verified; one that is appended is not read back at all.

use std::path::Path;

use indicatif::ProgressBar;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::Context,
    data::{Prediction, Predictions},
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign, progress,
    storage::{self, RecordLog},
};

/// A JSONL file with a stored hash per line.
pub struct Log<L> {
    lines: RecordLog,
    hashes: RecordLog,
    /// What the lines say, each after `shed`.
    held: Vec<L>,
    shed: fn(&mut L),
    /// Over the file's bytes.
    hasher: blake3::Hasher,
}

impl<L: Serialize> Log<L> {
    /// Number of lines.
    pub fn records(&self) -> usize {
        self.held.len()
    }

    /// Appends a record as one line, then its hash. If the process is killed in between, only this record is computed
    /// again.
    pub fn append(&mut self, mut record: L) -> Result<()> {
        // Byte for byte what `RecordLog::append` writes.
        let line = serde_json::to_vec(&record)
            .map_err(|e| Error::run(format!("cannot write {}: {e}", self.lines.path().display())))?;
        self.lines.append(&record)?;
        self.hashes.append(&line_hash(&line))?;
        self.hasher.update(&line).update(b"\n");
        (self.shed)(&mut record);
        self.held.push(record);
        Ok(())
    }

    /// Waits until the disk has everything appended so far.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync()?;
        self.hashes.sync()
    }
}

impl Log<Prediction> {
    /// What the file holds now.
    pub fn into_predictions(self) -> Predictions {
        Predictions::of(self.lines.path(), self.held, self.hasher.finalize().to_hex().to_string())
    }
}

/// 128 bits of BLAKE3: enough to notice an edit.
fn line_hash(line: &[u8]) -> String {
    storage::hash_bytes(line)[..32].to_owned()
}

/// Opens a file: resumes one of the same fingerprint, or creates it. `overwrite` replaces one that would be an error,
/// never one that matches. `parse` reads the lines that are kept; of one that is appended, what `shed` leaves is held.
pub fn open<L>(
    file: &Path,
    (made, overwrite): (&Fingerprint, bool),
    parse: impl FnOnce(&[u8]) -> Result<Vec<L>>,
    shed: fn(&mut L),
) -> Result<Log<L>> {
    if let Some(folder) = file.parent() {
        storage::create_dir_all(folder)?;
    }
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
        storage::write_json(&file.with_extension("meta.json"), made)?;
    }
    let mut log = Log {
        lines: RecordLog::open(file)?,
        hashes: RecordLog::open(&hashes)?,
        held: Vec::new(),
        shed,
        hasher: blake3::Hasher::new(),
    };
    if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
        log.held = parse(&kept)?;
        log.hasher.update(&kept);
    }
    log.lines.keep(log.held.len())?;
    log.hashes.keep(log.held.len())?;
    Ok(log)
}

/// The lines of an existing file that can be kept; `None` where there is no file.
fn reusable_lines(file: &Path, made: &Fingerprint) -> Result<Option<Vec<u8>>> {
    // An empty log (the model could not be read, say) holds nothing to lose.
    if file.metadata().map_or(true, |metadata| metadata.len() == 0) {
        return Ok(None);
    }
    let again = "--overwrite computes it again";
    let beside = file.with_extension("meta.json");
    match made_by(file).map(|theirs| made.differences(&theirs)) {
        Some(differing) if differing.is_empty() => verified_lines(file).map(Some).map_err(|error| error.hint(again)),
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

/// The lines of a file, each compared with its stored hash. An interrupted command leaves at most one trailing line
/// without a hash; a power failure may leave more, but not in an evaluation that was measured.
fn verified_lines(file: &Path) -> Result<Vec<u8>> {
    let path = file.with_extension("hashes");
    if !path.exists() {
        return match file.metadata() {
            Ok(metadata) if metadata.len() == 0 => Ok(Vec::new()),
            _ => Err(Error::data(format!(
                "{}: {} is gone, so its lines cannot be checked",
                file.display(),
                path.display()
            ))),
        };
    }
    let hashes = foreign::read_text(&path, foreign::LOG).map_err(|e| storage::error("cannot read", &path, &e))?;
    let mut bytes = foreign::read(file, foreign::LOG).map_err(|e| storage::error("cannot read", file, &e))?;
    let mut verified = 0;
    let mut unchecked = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let pairs = bytes.split_inclusive(|&byte| byte == b'\n').zip(hashes.split_inclusive('\n'));
    for (number, (line, recorded)) in pairs.enumerate() {
        let (Some(text), Some(recorded)) = (line.strip_suffix(b"\n"), recorded.strip_suffix('\n')) else { break };
        if recorded.trim_matches('"') != line_hash(text) {
            return Err(Error::data(format!(
                "{}, line {}: was changed after it was written",
                file.display(),
                number + 1
            )));
        }
        verified += line.len();
        unchecked -= 1;
    }
    if unchecked > 1 {
        let told = format!("{}: {unchecked} of its lines have no hash in {}", file.display(), path.display());
        if was_measured(file) {
            return Err(Error::data(format!("{told}, so they cannot be checked")));
        }
        tracing::warn!("{told}, as a power failure may leave it: they do not count");
    }
    bytes.truncate(verified);
    Ok(bytes)
}

/// Whether an evaluation was measured on a log as it is: every log is on the disk before `metrics.json` is.
fn was_measured(file: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let written = modified(file);
    // A baseline's lies in a folder of the split's.
    let mut metrics = file.ancestors().skip(1).take(2).filter_map(|folder| modified(&folder.join("metrics.json")));
    metrics.any(|measured| Some(measured) >= written)
}

/// How many whole lines a file has; none of one that is not there.
pub fn lines(file: &Path) -> usize {
    foreign::read(file, foreign::LOG).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// The stored fingerprint of a file, if it can be read.
pub fn made_by(file: &Path) -> Option<Fingerprint> {
    serde_json::from_slice(&foreign::read(&file.with_extension("meta.json"), foreign::LARGE).ok()?).ok()
}

/// The lines of a file, each after `shed`, verified, without opening it for writing.
pub fn verified<L: DeserializeOwned>(file: &Path, shed: fn(&mut L)) -> Result<Vec<L>> {
    let bytes = verified_lines(file).map_err(|error| error.hint("--overwrite computes it again"))?;
    parse(file, &bytes, shed)
}

/// Computes the given items and appends a line for each.
pub type Fill<'f, T, L> = dyn Fn(&[T], &mut Log<L>, &ProgressBar) -> Result<()> + 'f;

/// Completes a file that has one line per item, in the items' order, and gives its lines: calls `work` with those that
/// have no line yet (not at all if none is missing).
///
/// `made` is the fingerprint, and whether a file of another one may be replaced; `shed` drops of a line what need not
/// be held.
pub fn fill<T, L: Serialize + DeserializeOwned>(
    context: &Context,
    file: &Path,
    made: (&Fingerprint, bool),
    items: &[T],
    shed: fn(&mut L),
    work: &Fill<'_, T, L>,
) -> Result<Vec<L>> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut lines = open(file, made, |kept| parse(file, kept, shed), shed)?;
    let done = lines.records().min(items.len());
    if done > 0 {
        tracing::info!("{name}: {done} of {} records are done already", items.len());
    }
    if done < items.len() {
        let bar = progress(context, &name, items.len(), done);
        let outcome = work(&items[done..], &mut lines, &bar);
        bar.finish_and_clear();
        lines.sync()?;
        outcome.map_err(resumable)?;
    }
    Ok(lines.held)
}

/// Every line of a file of ours that has no hashes beside it.
pub fn read<L: DeserializeOwned>(file: &Path) -> Result<Vec<L>> {
    let bytes = foreign::read(file, foreign::LOG)
        .map_err(|e| Error::data(format!("cannot read {}: {}", file.display(), storage::reason(&e))))?;
    parse(file, &bytes, |_| ())
}

/// What the lines of `file` say.
fn parse<L: DeserializeOwned>(file: &Path, bytes: &[u8], shed: fn(&mut L)) -> Result<Vec<L>> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let parsed = lines.map(|(i, line)| {
        let mut line = serde_json::from_slice(line).map_err(|e| {
            // serde's message may quote the line: only its place is told.
            Error::data(format!("{}, line {}: not a line of this file (column {})", file.display(), i + 1, e.column()))
                .hint("delete the file and give the same command again")
        })?;
        shed(&mut line);
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
