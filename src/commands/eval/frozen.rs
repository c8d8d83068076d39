//! `RUN/eval/thresholds.json`: thresholds tuned on dev, frozen before test labels are read (SPEC A32).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    metrics::{
        Sample,
        threshold::{Costs, Thresholds},
    },
    storage,
};

/// A file by name and content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its path.
    pub path: String,
    /// BLAKE3 of its content.
    pub blake3: String,
}

/// Thresholds and what they were chosen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// Version of this file's shape.
    pub schema: u32,
    /// The checkpoint whose dev predictions these are; null for a prediction file.
    pub checkpoint: Option<Named>,
    /// The dev predictions.
    pub dev: Named,
    /// Records of dev.
    pub n: usize,
    /// Dev and the scored split are the same records.
    pub in_sample: bool,
    /// What errors cost.
    pub costs: Costs,
    /// The thresholds; null where dev allows none.
    pub thresholds: Thresholds,
}

impl Frozen {
    /// Tunes every threshold on `dev`.
    pub fn tune(dev: &Sample, costs: Costs, checkpoint: Option<Named>, path: &Path, hash: &str, in_sample: bool) -> Self {
        Self {
            schema: 1,
            checkpoint,
            dev: Named { path: path.display().to_string(), blake3: hash.to_owned() },
            n: dev.len(),
            in_sample,
            costs,
            thresholds: Thresholds::tune(dev, costs),
        }
    }

    /// Writes the file; after this test may be read.
    pub fn write(&self, out: &Path, dry_run: bool) -> Result<()> {
        if dry_run {
            return Ok(());
        }
        storage::create_dir_all(out)?;
        storage::write_file_atomic(&out.join("thresholds.json"), super::json(self)?.as_bytes())
    }
}
