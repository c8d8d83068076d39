//! Where what is made of a split lies: of the whole split, or of the part of it that is one process's.

use std::path::{Path, PathBuf};

use super::finished::Finished;
use crate::{error::Result, shard::Shard};

/// The files of a split, or of a part of it.
pub(super) struct SplitFiles {
    dir: PathBuf,
    /// What their names begin with.
    stem: String,
    part: bool,
}

impl SplitFiles {
    /// Those of `split`, or of its `shard`, in a `construct` directory.
    pub fn new(dir: &Path, split: &str, shard: Option<Shard>) -> Self {
        let stem = shard.map_or_else(|| split.to_owned(), |shard| format!("{split}.{}", shard.file_name()));
        Self { dir: dir.to_owned(), stem, part: shard.is_some() }
    }

    /// The records with their explanations.
    pub fn output(&self) -> PathBuf {
        self.with_suffix("jsonl")
    }

    /// What is tried so far; it goes when all is done.
    pub fn log(&self) -> PathBuf {
        self.with_suffix("progress.jsonl")
    }

    /// What was made, and the statistics of it: one file for all whole splits, one for each part.
    pub fn stats(&self) -> PathBuf {
        if self.part { self.with_suffix("stats.json") } else { self.dir.join("stats.json") }
    }

    /// The records that were not kept.
    pub fn dropped(&self) -> PathBuf {
        if self.part { self.with_suffix("dropped.jsonl") } else { self.dir.join("dropped.jsonl") }
    }

    /// What earlier commands finished here.
    pub fn finished(&self) -> Result<Finished> {
        Finished::read(&self.stats(), &self.dropped())
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", self.stem))
    }
}

/// The part that a file of `split` in a `construct` directory belongs to.
pub(super) fn part_of(file_name: &str, split: &str) -> Option<Shard> {
    let rest = file_name.strip_prefix(split)?.strip_prefix('.')?;
    Shard::of_file_name(rest.split('.').next()?)
}
