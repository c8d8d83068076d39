//! L = w_gen·L_gen + w_cls·L_cls, and its gradient (SPEC A12).
//!
//! L_gen is the mean cross-entropy over all target tokens of the optimizer step (and, under `prompt_loss_weight` w,
//! over the prompt tokens of the same records, each counting w of a target token), L_cls the mean over its records. A
//! micro-batch is one part of the step: it returns sums, and its gradient is scaled by the step's counts, so that
//! adding the parts up gives the mean of the whole however it was cut.
//!
//! Under `label_smoothing` ε the target of L_cls is y(1 − ε) + ε/K over K classes (Szegedy et al., CVPR 2016).

use candle_core::{DType, Tensor};

use super::examples::{Batch, Example, SequenceTargets};
use crate::{
    config::{Objective, Parameters},
    error::Result,
    model::{ActivationCheckpointing, Gradients, LoraDropout, Model, TrainingContext},
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
    /// Prompt tokens that a row predicts, in records that have a target.
    pub prompt_tokens: usize,
}

impl Counts {
    /// Counts of some examples.
    pub fn of<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        examples.into_iter().fold(Self::default(), |sum, example| Self {
            records: sum.records + 1,
            tokens: sum.tokens + example.tokens(),
            target_tokens: sum.target_tokens + example.target.len(),
            prompt_tokens: sum.prompt_tokens + if example.target.is_empty() { 0 } else { example.prompt.len() - 1 },
        })
    }
}

/// Sums of cross-entropies, in f64.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LossSums {
    /// Over target tokens, and prompt tokens by their weight.
    pub generation: f64,
    /// Over records.
    pub classification: f64,
}

impl std::ops::Add for LossSums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            generation: self.generation + other.generation,
            classification: self.classification + other.classification,
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
    /// `prompt_loss_weight`: what a prompt token counts beside a target token.
    pub prompt: f64,
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

    /// What L_gen's sum is divided by: tokens, by their weight.
    fn tokens(&self, counts: Counts) -> f64 {
        counts.target_tokens as f64 + self.prompt * counts.prompt_tokens as f64
    }

    /// Means and their weighted sum, from sums and counts.
    pub fn losses(&self, sums: LossSums, counts: Counts) -> Losses {
        let mean = |trained: bool, sum: f64, n: f64| (trained && n > 0.0).then(|| sum / n);
        let generation = mean(self.trains_generation(), sums.generation, self.tokens(counts));
        let classification = mean(self.trains_classification(), sums.classification, counts.records as f64);
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
    /// ε of L_cls.
    pub label_smoothing: f64,
    /// What layers keep.
    pub memory: ActivationCheckpointing,
    /// Seed of dropout masks; `None` switches dropout off.
    pub dropout: Option<u64>,
}

impl Pass {
    /// First row of a sequence whose hidden state a head reads.
    fn first_read(&self, sequence: &SequenceTargets) -> usize {
        if self.weights.prompt > 0.0 && self.weights.trains_generation() { sequence.start } else { sequence.t_n }
    }
}

/// Forward and backward of a micro-batch of a step with these counts: returns its sums, adds to `gradients`.
///
/// The heads see a record at a time: sums over rows do not depend on how records are batched, and the LM head's logits
/// (`targets × vocab`) exist for one record only.
pub fn forward_backward(
    model: &Model,
    batch: &Batch,
    counts: Counts,
    pass: &Pass,
    gradients: &mut Gradients,
) -> Result<LossSums> {
    let context = TrainingContext {
        dropout: pass.dropout.map(|seed| LoraDropout {
            seed,
            record_keys: batch.sequences.iter().map(|sequence| sequence.key).collect(),
        }),
        memory: pass.memory,
        trains: pass.parameters,
        read_from: Some(batch.sequences.iter().map(|sequence| pass.first_read(sequence) - sequence.start).collect()),
    };
    let (hidden_states, saved) = model.llama.forward(&batch.ids, &batch.offsets, &context)?;
    let mut sums = LossSums::default();
    let d_hidden = hidden_states.zeros_like()?;
    for sequence in &batch.sequences {
        let mut d_t_n = None;
        if pass.weights.trains_generation() && !sequence.target().is_empty() {
            let first = pass.first_read(sequence);
            let targets = &sequence.next[first - sequence.start..];
            let rows = hidden_states.narrow(0, first, targets.len())?;
            let (sum, d_rows) = generation(model, &rows, targets, sequence.t_n - first, counts, pass, gradients)?;
            sums.generation += sum;
            d_hidden.slice_set(&d_rows, 0, first)?;
            d_t_n = Some(d_rows.narrow(0, sequence.t_n - first, 1)?);
        }
        if pass.weights.trains_classification() {
            let h_n = hidden_states.narrow(0, sequence.t_n, 1)?;
            let (sum, d_h_n) = classification(model, &h_n, sequence, counts, pass, gradients)?;
            sums.classification += sum;
            let both = d_t_n.map_or_else(|| Ok(d_h_n.clone()), |d_t_n| d_t_n + &d_h_n)?;
            d_hidden.slice_set(&both.contiguous()?, 0, sequence.t_n)?;
        }
    }
    drop(hidden_states);
    model.llama.backward(saved, &d_hidden, gradients)?;
    Ok(sums)
}

/// L_gen of a record's rows, the first `of_prompt` of which predict its prompt: the weighted sum of cross-entropies,
/// and the rows' gradient.
fn generation(
    model: &Model,
    rows: &Tensor,
    targets: &[u32],
    of_prompt: usize,
    counts: Counts,
    pass: &Pass,
    gradients: &mut Gradients,
) -> Result<(f64, Tensor)> {
    let logits = model.llama.logits(rows)?;
    let scale = pass.weights.generation / pass.weights.tokens(counts);
    let mut scales = vec![scale as f32; targets.len()];
    scales[..of_prompt].fill((pass.weights.prompt * scale) as f32);
    let (losses, dlogits) = cross_entropy::forward_backward(logits, targets, &scales)?;
    let d_rows = model.llama.logits_backward(&dlogits, rows, pass.parameters, gradients)?;
    let (prompt, target) = losses.split_at(of_prompt);
    Ok((pass.weights.prompt * sum(prompt) + sum(target), d_rows.to_dtype(rows.dtype())?))
}

/// L_cls of a record, and h_n's gradient.
fn classification(
    model: &Model,
    h_n: &Tensor,
    sequence: &SequenceTargets,
    counts: Counts,
    pass: &Pass,
    gradients: &mut Gradients,
) -> Result<(f64, Tensor)> {
    let keys = [sequence.key];
    let (logits, saved) = model.head.forward(&h_n.to_dtype(DType::F32)?, pass.dropout.map(|seed| (seed, &keys[..])))?;
    let (loss, dlogits) =
        smoothed(logits, sequence.class, pass.label_smoothing, pass.weights.classification / counts.records as f64)?;
    let d_h_n = model.head.backward(saved, &dlogits, gradients)?;
    Ok((loss, d_h_n.to_dtype(h_n.dtype())?))
}

/// Cross-entropy of `logits (1, K)` against `class` smoothed by `epsilon`, and its gradient times `scale`.
fn smoothed(logits: Tensor, class: u32, epsilon: f64, scale: f64) -> Result<(f64, Tensor)> {
    let (losses, lse) = cross_entropy::forward(&logits, &[class])?;
    if epsilon == 0.0 {
        return Ok((sum(&losses), cross_entropy::backward(logits, &[class], &lse, &[scale as f32])?));
    }
    // Linear in the target: 1 − ε + ε/K of the gold class and ε/K of each other.
    let classes = logits.dim(1)?;
    let other = epsilon / classes as f64;
    let own = 1.0 - other * (classes - 1) as f64;
    let part = |logits: Tensor, class: u32, share: f64| {
        cross_entropy::backward(logits, &[class], &lse, &[(share * scale) as f32])
    };
    let mut loss = own * sum(&losses);
    let mut dlogits = part(logits.copy()?, class, own)?;
    for k in (0..classes as u32).filter(|&k| k != class) {
        loss += other * sum(&cross_entropy::forward(&logits, &[k])?.0);
        dlogits = (dlogits + part(logits.copy()?, k, other)?)?;
    }
    Ok((loss, dlogits))
}

/// Sum of the target cross-entropies of a batch, without dropout or gradient: the dev split's L_gen.
pub fn generation_loss(model: &Model, batch: &Batch) -> Result<f64> {
    let context = TrainingContext {
        dropout: None,
        memory: ActivationCheckpointing::Recompute,
        trains: Parameters::Lora,
        read_from: Some(batch.sequences.iter().map(|sequence| sequence.t_n - sequence.start).collect()),
    };
    let (hidden_states, _) = model.llama.forward(&batch.ids, &batch.offsets, &context)?;
    let mut total = 0.0;
    for sequence in batch.sequences.iter().filter(|sequence| !sequence.target().is_empty()) {
        let rows = hidden_states.narrow(0, sequence.t_n, sequence.target().len())?;
        total += sum(&cross_entropy::forward(&model.llama.logits(&rows)?, sequence.target())?.0);
    }
    Ok(total)
}

fn sum(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_without_anything_to_average_is_null_and_counts_nothing() {
        let weights = LossWeights { objective: Objective::Joint, generation: 2.0, classification: 0.5, prompt: 0.0 };
        let sums = LossSums { generation: 6.0, classification: 4.0 };
        let losses = weights.losses(sums, Counts { records: 2, tokens: 9, target_tokens: 3, prompt_tokens: 6 });
        assert_eq!(losses, Losses { loss: 5.0, generation: Some(2.0), classification: Some(2.0) });
        let losses = weights.losses(
            LossSums { generation: 0.0, ..sums },
            Counts { records: 2, tokens: 9, target_tokens: 0, prompt_tokens: 0 },
        );
        assert_eq!(losses, Losses { loss: 1.0, generation: None, classification: Some(2.0) });
    }

    #[test]
    fn smoothing_is_cross_entropy_against_the_softened_target() {
        let pair = [0.7f32, -1.1];
        let logits = || Tensor::new(&[pair], &candle_core::Device::Cpu).unwrap();
        let one = f64::from(pair[1] - pair[0]);
        let p = 1.0 / (1.0 + (-one).exp());
        for (class, epsilon) in [(0, 0.0), (1, 0.0), (0, 0.1), (1, 0.5)] {
            let target = f64::from(class) * (1.0 - epsilon) + epsilon / 2.0;
            let (loss, dlogits) = smoothed(logits(), class, epsilon, 0.25).unwrap();
            assert!((loss + target * p.ln() + (1.0 - target) * (1.0 - p).ln()).abs() < 1e-6);
            let dlogits = dlogits.to_vec2::<f32>().unwrap();
            for (found, want) in dlogits[0].iter().zip([target - p, p - target]) {
                assert!((f64::from(*found) - 0.25 * want).abs() < 1e-7, "class {class}, ε {epsilon}: {dlogits:?}");
            }
        }
        // Of three classes each gets ε/3: the gradient is softmax − target.
        let three = Tensor::new(&[[0.7f32, -1.1, 0.2]], &candle_core::Device::Cpu).unwrap();
        let (_, dlogits) = smoothed(three, 2, 0.3, 1.0).unwrap();
        let total: f64 = [0.7f64, -1.1, 0.2].iter().map(|l| l.exp()).sum();
        let wanted = [0.7f64, -1.1, 0.2].map(|l| l.exp() / total);
        for ((found, p), target) in dlogits.to_vec2::<f32>().unwrap()[0].iter().zip(wanted).zip([0.1, 0.1, 0.8]) {
            assert!((f64::from(*found) - (p - target)).abs() < 1e-6);
        }
        // At the softened target the gradient vanishes: the head is not pushed beyond it.
        let at_rest = Tensor::new(&[[0.0f32, (0.95f32 / 0.05).ln()]], &candle_core::Device::Cpu).unwrap();
        let (_, dlogits) = smoothed(at_rest, 1, 0.1, 1.0).unwrap();
        assert!(dlogits.to_vec2::<f32>().unwrap()[0].iter().all(|d| d.abs() < 1e-6));
    }
}
