//! Model selection: the checkpoint with the highest quality score on dev (paper A.2.2), named in `best.json`.
//!
//! The score is over all checkpoints there are, so it is computed anew after each epoch. An epoch cut short counts
//! where its dev split was scored. Without any dev metrics the latest epoch is the best one known.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    checkpoint::{DEV_METRICS, TrainerState, epoch_path, read_state},
    dev::DevMetrics,
};
use crate::{
    error::{Error, Result},
    foreign,
    metrics::quality::{EpochTerms, quality},
    model::checkpoint::INFO,
    storage,
};

/// `best.json`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Best {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Its checkpoint, relative to the run directory.
    pub path: PathBuf,
    /// S; null where no dev metric defines it.
    pub score: Option<f64>,
}

/// Chooses among the checkpoints of epochs 1 to `last` and writes `RUN/best.json`; nothing where there is none of them
/// yet. Where a run does not train the head (`objective = "lm"`), what the head says chooses nothing: dev's loss does,
/// and of a dev split without explanations, which has none, the latest epoch is the best known.
pub fn write_best(run: &Path, last: usize, trains_head: bool) -> Result<Option<Best>> {
    let best = choose(run, last, trains_head)?;
    best.iter().try_for_each(|best| storage::write_json(&run.join("best.json"), best))?;
    Ok(best)
}

/// Whether this state has its epoch's checkpoint and, where `dev` is scored, dev's metrics in it.
pub fn is_scored(run: &Path, state: &TrainerState, dev: bool) -> bool {
    let checkpoint = run.join(epoch_path(state.epoch));
    let same = read_state(&checkpoint).is_ok_and(|held| held.step == state.step);
    same && (!dev || checkpoint.join(DEV_METRICS).is_file())
}

fn choose(run: &Path, last: usize, trains_head: bool) -> Result<Option<Best>> {
    let mut epochs = Vec::new();
    let mut terms: Vec<EpochTerms> = Vec::new();
    for epoch in 1..=last {
        let checkpoint = run.join(epoch_path(epoch));
        let path = checkpoint.join(DEV_METRICS);
        if path.is_file() {
            let metrics: DevMetrics = serde_json::from_slice(&storage::verify_file(&checkpoint, DEV_METRICS)?)
                .map_err(|e| Error::model(format!("{}: {}", path.display(), foreign::reason(&e))))?;
            if let Some(known) = if trains_head { Some(metrics.terms()) } else { metrics.loss_alone() } {
                epochs.push(epoch);
                terms.push(known);
            }
        }
    }
    let quality = quality(&terms);
    let Some(index) = quality.best else {
        // That of an epoch that is under way is not there yet.
        let latest = (1..=last).rev().find(|&epoch| run.join(epoch_path(epoch)).join(INFO).is_file());
        return Ok(latest.map(|epoch| Best { epoch, path: epoch_path(epoch), score: None }));
    };
    let informed = terms.iter().any(|t| t.auroc.or(t.auroc_align).or(t.kappa).is_some());
    let score = informed.then_some(quality.scores[index]);
    Ok(Some(Best { epoch: epochs[index], path: epoch_path(epochs[index]), score }))
}
