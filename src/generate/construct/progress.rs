//! What is done so far: a log line a finished record, so that a killed run goes on where it stopped.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::Explained;
use crate::{
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    storage::{self, RecordLog},
};

/// One line: a record (by position, from 1) and its trials, or its rationalization.
#[derive(Serialize, Deserialize)]
struct Line {
    record: usize,
    rationalized: bool,
    #[serde(flatten)]
    explained: Explained,
}

/// The finished records of a split.
pub struct Progress {
    log: RecordLog,
    trials: BTreeMap<usize, Explained>,
    rationalized: BTreeMap<usize, Explained>,
}

impl Progress {
    /// Opens the log at `path`. Its first line holds `settings`; a log made with others is refused (exit 2) naming the
    /// keys.
    pub fn open(path: &Path, settings: &Fingerprint) -> Result<Self> {
        let log = RecordLog::open(path)?;
        let mut progress = Self { log, trials: BTreeMap::new(), rationalized: BTreeMap::new() };
        if progress.log.records() == 0 {
            progress.log.append(settings)?;
            return Ok(progress);
        }
        let text = foreign::read_text(path, foreign::LOG).map_err(|e| storage::error("cannot read", path, &e))?;
        let damaged = |line: usize| {
            Error::data(format!("{}, line {line}: not a line of this log", path.display()))
                .hint("delete the file to construct this split again")
        };
        let mut lines = text.lines().enumerate();
        let held: Fingerprint =
            lines.next().and_then(|(_, line)| serde_json::from_str(line).ok()).ok_or_else(|| damaged(1))?;
        refuse_other(path, &held, settings)?;
        for (index, line) in lines {
            let line: Line = serde_json::from_str(line).map_err(|_| damaged(index + 1))?;
            let done = if line.rationalized { &mut progress.rationalized } else { &mut progress.trials };
            done.insert(line.record, line.explained);
        }
        Ok(progress)
    }

    /// Files a record's trials (or its rationalization).
    pub fn add(&mut self, record: usize, rationalized: bool, explained: Explained) -> Result<()> {
        let line = Line { record, rationalized, explained };
        self.log.append(&line)?;
        let done = if rationalized { &mut self.rationalized } else { &mut self.trials };
        done.insert(record, line.explained);
        Ok(())
    }

    /// Whether a record's trials are done.
    pub fn tried(&self, record: usize) -> bool {
        self.trials.contains_key(&record)
    }

    /// Whether a record's trials all failed and no rationalization was tried yet.
    pub fn wants_rationalization(&self, record: usize) -> bool {
        self.trials.get(&record).is_some_and(|explained| explained.kept.is_none())
            && !self.rationalized.contains_key(&record)
    }

    /// Everything a record's trials gave, the rationalization included.
    pub fn explained(&self, record: usize) -> Option<Explained> {
        let mut explained = self.trials.get(&record)?.clone();
        if let Some(more) = self.rationalized.get(&record) {
            explained.kept = more.kept.clone();
            explained.failures.extend(&more.failures);
            explained.generated_tokens += more.generated_tokens;
            // One document, cut for two prompts of different length.
            explained.truncated_tokens = explained.truncated_tokens.max(more.truncated_tokens);
        }
        Some(explained)
    }

    /// Waits until the disk has every line.
    pub fn sync(&self) -> Result<()> {
        self.log.sync()
    }
}

/// Refuses settings other than `held`, naming every key that differs.
pub fn refuse_other(path: &Path, held: &Fingerprint, settings: &Fingerprint) -> Result<()> {
    let differing = settings.differences(held);
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("{}: made with other settings: {}", path.display(), differing.join("; ")))
        .hint("restore the settings, or give another run directory with --run"))
}
