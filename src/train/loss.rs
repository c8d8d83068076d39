//! L = w_gen·L_gen + w_cls·L_cls + w_consistency·L_consistency, and its gradient (paper §4.3).
//!
//! L_gen is the mean cross-entropy over all target tokens of the optimizer step (and, under `prompt_loss_weight` w,
//! over the prompt tokens of the same records, each counting w of a target token), L_cls the mean over its records,
//! L_consistency ([`super::consistency`]) the mean over its records with a target. A micro-batch is one part of the
//! step: it returns sums, and its gradient is scaled by the step's counts, so that adding the parts up gives the mean
//! of the whole however it was cut.
//!
//! Under `class_weights` and `sample` L_cls is weighted and its logits adjusted ([`super::class_balance`]). Under
//! `label_smoothing` ε the target of L_cls is y(1 − ε) + ε/K over K classes (Szegedy et al., CVPR 2016).
//! [`super::micro_batch`] computes them.

use std::sync::Arc;

use super::{
    class_balance::ClassBalance,
    consistency::LabelTokens,
    examples::{Example, SequenceTargets},
};
use crate::{
    config::{Objective, Parameters},
    model::ActivationCheckpointing,
};

/// What an optimizer step divides by, over all its micro-batches and ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records.
    pub records: usize,
    /// Records that have a target.
    pub explained: usize,
    /// Tokens of prompts and targets.
    pub tokens: usize,
    /// Target tokens.
    pub target_tokens: usize,
    /// Prompt tokens that a row predicts, in records that have a target.
    pub prompt_tokens: usize,
    /// Pairs of a token and one that it attends to, itself among them.
    pub pairs: usize,
}

impl Counts {
    /// Counts of some examples.
    pub fn of<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        examples.into_iter().fold(Self::default(), |sum, example| Self {
            records: sum.records + 1,
            explained: sum.explained + usize::from(!example.target.is_empty()),
            tokens: sum.tokens + example.tokens(),
            target_tokens: sum.target_tokens + example.target.len(),
            prompt_tokens: sum.prompt_tokens + if example.target.is_empty() { 0 } else { example.prompt.len() - 1 },
            pairs: sum.pairs + example.rows() * (example.rows() + 1) / 2,
        })
    }
}

/// Sums of a step's losses, in f64.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LossSums {
    /// Over target tokens, and prompt tokens by their weight.
    pub generation: f64,
    /// Over records.
    pub classification: f64,
    /// Over records with a target: KL of head and LM.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub consistency: f64,
}

fn is_zero(sum: &f64) -> bool {
    *sum == 0.0
}

impl std::ops::Add for LossSums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            generation: self.generation + other.generation,
            classification: self.classification + other.classification,
            consistency: self.consistency + other.consistency,
        }
    }
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Which losses count, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Losses trained.
    pub objective: Objective,
    /// w_gen.
    pub generation: f64,
    /// w_cls.
    pub classification: f64,
    /// w_consistency; 0 does not measure it.
    pub consistency: f64,
    /// `prompt_loss_weight`: what a prompt token counts beside a target token.
    pub prompt: f64,
}

/// The numbers of a log line; `None` where nothing defines them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// w_gen·L_gen + w_cls·L_cls + w_consistency·L_consistency over what is defined.
    pub loss: f64,
    /// L_gen.
    pub generation: Option<f64>,
    /// L_cls.
    pub classification: Option<f64>,
    /// L_consistency.
    pub consistency: Option<f64>,
}

impl LossWeights {
    /// Is L_gen trained?
    pub fn trains_generation(&self) -> bool {
        self.objective != Objective::Cls
    }

    /// Is L_cls trained?
    pub fn trains_classification(&self) -> bool {
        self.objective != Objective::Lm
    }

    /// What L_gen's sum is divided by: tokens, by their weight.
    pub(super) fn tokens(&self, counts: Counts) -> f64 {
        counts.target_tokens as f64 + self.prompt * counts.prompt_tokens as f64
    }

    /// Means and their weighted sum, from sums and counts.
    pub fn losses(&self, sums: LossSums, counts: Counts) -> Losses {
        let mean = |trained: bool, sum: f64, n: f64| (trained && n > 0.0).then(|| sum / n);
        let generation = mean(self.trains_generation(), sums.generation, self.tokens(counts));
        let classification = mean(self.trains_classification(), sums.classification, counts.records as f64);
        let consistency = mean(self.consistency > 0.0, sums.consistency, counts.explained as f64);
        let loss = self.generation * generation.unwrap_or(0.0) + self.classification * classification.unwrap_or(0.0);
        let loss = loss + consistency.map_or(0.0, |consistency| self.consistency * consistency);
        Losses { loss, generation, classification, consistency }
    }
}

/// How a micro-batch is computed.
#[derive(Debug, Clone)]
pub struct StepSettings {
    /// Losses.
    pub weights: LossWeights,
    /// Trained tensors.
    pub parameters: Parameters,
    /// ε of L_cls.
    pub label_smoothing: f64,
    /// What records of each class count in L_cls, and what its loss adds to the logits for it.
    pub class_balance: Option<Arc<ClassBalance>>,
    /// Where the LM's answer is read, for L_consistency.
    pub label_tokens: Option<Arc<LabelTokens>>,
    /// What layers keep.
    pub memory: ActivationCheckpointing,
    /// Seed of dropout masks; `None` switches dropout off.
    pub dropout: Option<u64>,
}

impl StepSettings {
    /// First row of a sequence whose hidden state a head reads.
    pub(super) fn first_read(&self, sequence: &SequenceTargets) -> usize {
        if self.weights.prompt > 0.0 && self.weights.trains_generation() { sequence.start } else { sequence.t_n }
    }
}

/// Sum of losses, in f64.
pub(super) fn sum(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_without_anything_to_average_is_null_and_counts_nothing() {
        let weights = LossWeights {
            objective: Objective::Joint,
            generation: 2.0,
            classification: 0.5,
            consistency: 0.0,
            prompt: 0.0,
        };
        let sums = LossSums { generation: 6.0, classification: 4.0, consistency: 0.0 };
        let losses = weights
            .losses(sums, Counts { records: 2, explained: 1, tokens: 9, target_tokens: 3, prompt_tokens: 6, pairs: 0 });
        assert_eq!(losses, Losses { loss: 5.0, generation: Some(2.0), classification: Some(2.0), consistency: None });
        let losses = weights.losses(
            LossSums { generation: 0.0, ..sums },
            Counts { records: 2, explained: 0, tokens: 9, target_tokens: 0, prompt_tokens: 0, pairs: 0 },
        );
        assert_eq!(losses, Losses { loss: 1.0, generation: None, classification: Some(2.0), consistency: None });
    }
}
