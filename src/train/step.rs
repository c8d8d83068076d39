//! One optimizer step, readable top to bottom.

use std::time::Instant;

use super::{
    examples::{Batch, Example},
    loss::{Counts, LossSums, Losses, Pass, forward_backward},
    optimizer::Optimizer,
    plan::{Plan, Sample},
    schedule::LinearSchedule,
};
use crate::{
    error::{Error, Result},
    model::{Gradients, Model},
};

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    /// The model; `optimizer` changes its tensors in place.
    pub model: Model,
    /// Moments and clipping.
    pub optimizer: Optimizer,
    /// Which records when.
    pub plan: Plan,
    /// Learning rate.
    pub schedule: LinearSchedule,
    /// How a micro-batch is computed.
    pub pass: Pass,
    /// This process among `plan.ranks`.
    pub rank: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Optimizer step, counted from 1.
    pub step: usize,
    /// Sums of cross-entropies.
    pub sums: LossSums,
    /// What they are over.
    pub counts: Counts,
    /// Means, weighted.
    pub losses: Losses,
    /// Learning rate used.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Wall time.
    pub seconds: f64,
}

impl Trainer {
    /// Optimizer step `k`, counted from 1; `order` is the plan's for the step's epoch.
    ///
    /// On an error, a signal among them, the weights are those of the step before.
    pub fn step(&mut self, k: usize, examples: &[Example], order: &[usize]) -> Result<StepReport> {
        let start = Instant::now();

        // The whole group is known before its first pass: its counts are the denominators of both means.
        let group = self.plan.group(k, order);
        let counts = Counts::of(group.iter().map(|sample| &examples[sample.record]));

        // Accumulate: each micro-batch adds its share of the mean's gradient.
        let mut gradients = Gradients::new();
        let mut sums = LossSums::default();
        for samples in self.micro_batches(&group) {
            let batch = Batch::new(examples, samples);
            sums += forward_backward(&self.model, &batch, counts, &self.pass, &mut gradients)?;
        }
        // With several ranks, gradients and sums are added over them here; everything else is already the same on each.

        let losses = self.pass.weights.losses(sums, counts);
        if !losses.loss.is_finite() {
            return Err(Error::run(format!("the loss of step {k} is {}", losses.loss))
                .hint("lower train.learning_rate, or look for broken weights; the last checkpoint is untouched"));
        }
        let lr = self.schedule.learning_rate(k);
        let grad_norm = self.optimizer.step(gradients, k, lr)?;

        Ok(StepReport { step: k, sums, counts, losses, lr, grad_norm, seconds: start.elapsed().as_secs_f64() })
    }

    /// This rank's micro-batches of a group.
    fn micro_batches<'a>(&self, group: &'a [Sample]) -> impl Iterator<Item = &'a [Sample]> + use<'a> {
        self.plan.micro_batches(group, self.rank)
    }
}
