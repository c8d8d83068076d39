//! The run: step after step, a checkpoint an epoch, dev scored, the best epoch named; stopped and resumed at any step.

use std::time::Instant;

use super::{
    checkpoint::{CheckpointWriter, TrainerState},
    dev::Dev,
    examples::Example,
    log::TrainLog,
    loss::Losses,
    select::{Best, is_scored, write_best},
    step::Trainer,
};
use crate::{
    error::{Error, Kind, Result},
    prompt::Prompter,
    signals, storage,
};

/// Everything a run holds while it trains.
pub struct Session<'a> {
    /// Model, optimizer, plan.
    pub trainer: Trainer,
    /// The train split, encoded.
    pub examples: &'a [Example],
    /// The dev split, if there is one.
    pub dev: Option<Dev>,
    /// Makes dev's prompts.
    pub prompter: &'a Prompter,
    /// Writes checkpoints.
    pub writer: CheckpointWriter,
    /// Writes the log, on rank 0.
    pub log: TrainLog,
    /// Where the run is.
    pub state: TrainerState,
    /// Steps of the checkpoint that it goes on from; 0 of a run that begins.
    pub resumed_at: usize,
    /// `train.save_every_steps`.
    pub save_every_steps: usize,
    /// `train.max_steps`.
    pub max_steps: Option<usize>,
}

impl Session<'_> {
    /// Trains from where the state is to the last step; returns the best epoch, on rank 0.
    pub fn run(&mut self) -> Result<Option<Best>> {
        let last = self.trainer.plan.last_step(self.max_steps);
        // A resume may find an epoch trained, to its end or to `max_steps`, but not scored, or scored but not compared.
        if self.state.epoch_trained(&self.trainer.plan) {
            if !self.state.complete {
                self.finish_epoch(true)?;
            }
        } else if self.state.step > 0 && self.state.step >= last && !self.is_kept(self.dev.is_some())? {
            self.finish_epoch(false)?;
        }
        if self.state.step > 0 {
            self.write_best()?;
        }
        while self.state.step < last {
            self.state.begin_step(&self.trainer.plan);
            let report = match self.trainer.step(self.state.step + 1, self.examples, &self.state.data_order) {
                Ok(report) => report,
                Err(error) => return Err(self.failed(error)?),
            };
            self.state.add(report.sums, report.counts);
            self.log.step(self.state.epoch, &report)?;
            storage::fault("train.step");
            if self.state.epoch_trained(&self.trainer.plan) {
                self.finish_epoch(true)?;
            } else if self.state.step == last {
                self.finish_epoch(false)?;
            } else if self.state.step.is_multiple_of(self.save_every_steps.max(1)) {
                self.log.sync()?;
                self.writer.last(&self.trainer, &self.state)?;
            }
        }
        self.log.finish();
        self.write_best()
    }

    /// Scores dev, writes the epoch's checkpoint and line, names the best epoch so far. `complete` is false where
    /// `max_steps` ends the run within the epoch.
    fn finish_epoch(&mut self, complete: bool) -> Result<()> {
        // Dev's loss may name the best epoch: the same weights for every one.
        let weights = self.trainer.pass.weights;
        let mut dev_seconds = 0.0;
        let scored = match &self.dev {
            None => None,
            Some(dev) => {
                // Scoring may take hours: what was trained is safe before it begins.
                self.log.sync()?;
                self.writer.last(&self.trainer, &self.state)?;
                self.log.scoring(self.state.epoch);
                let begun = Instant::now();
                let scored = dev.score(&self.trainer.ranks, &self.trainer.model, self.prompter, weights);
                dev_seconds = begun.elapsed().as_secs_f64();
                match scored {
                    Ok(scored) => scored,
                    Err(error) => return Err(self.failed(error)?),
                }
            }
        };
        self.state.complete = complete;
        let counts = self.state.epoch_counts();
        let means: Losses = self.trainer.weights(self.state.step).losses(self.state.epoch_sums, counts);
        // The line first: a resume that does not find the checkpoint drops the line and scores again.
        let dev = scored.as_ref().map(|(_, metrics)| (metrics, dev_seconds));
        self.log.epoch(self.state.epoch, self.state.step, complete, &means, counts.records, dev)?;
        self.log.sync()?;
        self.writer.epoch(&self.trainer, &self.state, scored.as_ref())?;
        let Some(best) = self.write_best()? else { return Ok(()) };
        let score = best.score.map_or_else(|| "no quality score".into(), |score| format!("quality score {score:.3}"));
        self.log.bar().suspend(|| {
            tracing::info!(
                "epoch {}: loss {:.4}; best so far epoch {} ({score})",
                self.state.epoch,
                means.loss,
                best.epoch
            );
        });
        Ok(())
    }

    /// Whether the epoch has its checkpoint, with dev's metrics where `dev` is scored: rank 0 looks.
    fn is_kept(&self, dev: bool) -> Result<bool> {
        let ranks = &self.trainer.ranks;
        let looked = ranks.on_rank_0(|| Ok(is_scored(&self.writer.run, &self.state, dev)))?;
        Ok(ranks.broadcast(&[looked.unwrap_or(false).into()])? == [1])
    }

    /// Names the best epoch so far, on rank 0; `None` on others, and where no epoch has a checkpoint yet.
    fn write_best(&self) -> Result<Option<Best>> {
        let trains_head = self.trainer.pass.weights.trains_classification();
        Ok(self.trainer.ranks.on_rank_0(|| write_best(&self.writer.run, self.state.epoch, trains_head))?.flatten())
    }

    /// What ends the process after `error`. A signal saves the epoch as it is first; any other error leaves the last
    /// checkpoint as the place to resume from.
    fn failed(&mut self, error: Error) -> Result<Error> {
        self.log.finish();
        let Kind::Signal(signal) = error.kind() else { return Ok(error) };
        // A model that was not trained is no epoch's: kept for --resume alone. Right after an epoch's checkpoint, or
        // that of a part of one which the run goes on from, nothing is new.
        if self.state.step == 0 {
            self.writer.last(&self.trainer, &self.state)?;
        } else if self.state.epoch_records > 0 && (self.state.step > self.resumed_at || !self.is_kept(false)?) {
            self.log.sync()?;
            self.writer.epoch(&self.trainer, &self.state, None)?;
            self.write_best()?;
        }
        let name = signals::signal_name(signal);
        let message =
            format!("stopped by {name} after step {} of {}, state saved", self.state.step, self.state.total_steps);
        Ok(Error::new(Kind::Signal(signal), message)
            .hint("the same command with --resume goes on where this one stopped"))
    }
}
