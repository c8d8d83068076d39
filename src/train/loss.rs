//! L = w_gen·L_gen + w_cls·L_cls, and its gradient (SPEC A12).
//!
//! L_gen is the mean cross-entropy over all target tokens of the optimizer step, L_cls the mean over its records. A
//! micro-batch is one part of the step: it returns sums, and its gradient is scaled by the step's counts, so that adding
//! the parts up gives the mean of the whole however it was cut.

use candle_core::{DType, Tensor};

use super::examples::{Batch, Example};
use crate::{
    config::{Objective, Parameters},
    error::Result,
    model::{Gradients, LoraDropout, Memory, Model, TrainingContext},
    ops::cross_entropy,
};

/// What an optimizer step divides by, over all its micro-batches and ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records.
    pub records: usize,
    /// Tokens of prompts and targets.
    pub tokens: usize,
    /// Target tokens.
    pub target_tokens: usize,
}

impl Counts {
    /// Counts of some examples.
    pub fn of<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        examples.into_iter().fold(Self::default(), |sum, example| Self {
            records: sum.records + 1,
            tokens: sum.tokens + example.tokens(),
            target_tokens: sum.target_tokens + example.target.len(),
        })
    }
}

/// Sums of cross-entropies, in f64.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LossSums {
    /// Over target tokens.
    pub generation: f64,
    /// Over records.
    pub classification: f64,
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.generation += other.generation;
        self.classification += other.classification;
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
}

/// The three numbers of a log line; `None` where nothing defines them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// w_gen·L_gen + w_cls·L_cls over what is defined.
    pub loss: f64,
    /// L_gen.
    pub generation: Option<f64>,
    /// L_cls.
    pub classification: Option<f64>,
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

    /// Means and their weighted sum, from sums and counts.
    pub fn losses(&self, sums: LossSums, counts: Counts) -> Losses {
        let mean = |trained: bool, sum: f64, n: usize| (trained && n > 0).then(|| sum / n as f64);
        let generation = mean(self.trains_generation(), sums.generation, counts.target_tokens);
        let classification = mean(self.trains_classification(), sums.classification, counts.records);
        let loss = self.generation * generation.unwrap_or(0.0) + self.classification * classification.unwrap_or(0.0);
        Losses { loss, generation, classification }
    }
}

/// How a micro-batch is computed.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Losses.
    pub weights: LossWeights,
    /// Trained tensors.
    pub parameters: Parameters,
    /// What layers keep.
    pub memory: Memory,
    /// Seed of dropout masks; `None` switches dropout off.
    pub dropout: Option<u64>,
}

/// Forward and backward of a micro-batch of a step with these counts: returns its sums, adds to `gradients`.
pub fn forward_backward(model: &Model, batch: &Batch, counts: Counts, pass: &Pass, gradients: &mut Gradients) -> Result<LossSums> {
    let context = TrainingContext {
        dropout: pass.dropout.map(|seed| LoraDropout { seed, record_keys: batch.keys.clone() }),
        memory: pass.memory,
        trains: pass.parameters,
    };
    let (hidden_states, saved) = model.llama.forward(&batch.ids, &batch.offsets, &context)?;
    let mut sums = LossSums::default();
    let mut d_hidden = hidden_states.zeros_like()?;

    if pass.weights.trains_generation() && !batch.targets.is_empty() {
        let rows = Tensor::new(batch.target_rows.as_slice(), hidden_states.device())?;
        let target_rows = hidden_states.index_select(&rows, 0)?;
        let logits = model.llama.logits(&target_rows)?;
        let (losses, lse) = cross_entropy::forward(&logits, &batch.targets)?;
        sums.generation = sum(&losses);
        let scale = (pass.weights.generation / counts.target_tokens as f64) as f32;
        let dlogits = cross_entropy::backward(logits, &batch.targets, &lse, &vec![scale; batch.targets.len()])?;
        let d_rows = model.llama.logits_backward(&dlogits, &target_rows, pass.parameters, gradients)?;
        d_hidden = d_hidden.index_add(&rows, &d_rows.to_dtype(d_hidden.dtype())?, 0)?;
    }
    if pass.weights.trains_classification() {
        let rows = Tensor::new(batch.cls_rows.as_slice(), hidden_states.device())?;
        let h_n = hidden_states.index_select(&rows, 0)?.to_dtype(DType::F32)?;
        let (logits, saved) = model.head.forward(&h_n, pass.dropout.map(|seed| (seed, batch.keys.as_slice())))?;
        let (losses, lse) = cross_entropy::forward(&logits, &batch.classes)?;
        sums.classification = sum(&losses);
        let scale = (pass.weights.classification / counts.records as f64) as f32;
        let dlogits = cross_entropy::backward(logits, &batch.classes, &lse, &vec![scale; batch.classes.len()])?;
        let d_h_n = model.head.backward(saved, &dlogits, gradients)?;
        d_hidden = d_hidden.index_add(&rows, &d_h_n.to_dtype(d_hidden.dtype())?, 0)?;
    }
    drop(hidden_states);
    model.llama.backward(saved, &d_hidden, gradients)?;
    Ok(sums)
}

/// Sum of the target cross-entropies of a batch, without dropout or gradient: the dev split's L_gen.
pub fn generation_loss(model: &Model, batch: &Batch) -> Result<f64> {
    let context = TrainingContext { dropout: None, memory: Memory::Recompute, trains: Parameters::Lora };
    let (hidden_states, _) = model.llama.forward(&batch.ids, &batch.offsets, &context)?;
    let rows = Tensor::new(batch.target_rows.as_slice(), hidden_states.device())?;
    let (losses, _) = cross_entropy::forward(&model.llama.logits(&hidden_states.index_select(&rows, 0)?)?, &batch.targets)?;
    Ok(sum(&losses))
}

fn sum(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_without_anything_to_average_is_null_and_counts_nothing() {
        let weights = LossWeights { objective: Objective::Joint, generation: 2.0, classification: 0.5 };
        let sums = LossSums { generation: 6.0, classification: 4.0 };
        let losses = weights.losses(sums, Counts { records: 2, tokens: 9, target_tokens: 3 });
        assert_eq!(losses, Losses { loss: 5.0, generation: Some(2.0), classification: Some(2.0) });
        let losses = weights.losses(LossSums { generation: 0.0, ..sums }, Counts { records: 2, tokens: 9, target_tokens: 0 });
        assert_eq!(losses, Losses { loss: 1.0, generation: None, classification: Some(2.0) });
    }
}
