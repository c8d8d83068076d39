//! Both heads on one record: forward, loss, and the gradient of the hidden states that they read.
//!
//! Losses come back as sums, as `metrics.jsonl` reports them; gradients are those of the step's mean, times the loss's
//! weight. A record at a time: sums over rows do not depend on how records are batched, and the LM head's logits
//! (`targets × vocab`) exist for one record only.

use candle_core::{DType, Tensor};

use super::{
    consistency::Divergence,
    examples::SequenceTargets,
    loss::{Counts, StepSettings, sum},
};
use crate::{
    error::Result,
    model::{Gradients, Model, head::HeadSaved},
    ops::cross_entropy,
};

/// A record of a step, the model, and what its losses are weighted and divided by.
#[derive(Clone, Copy)]
pub(super) struct RecordScope<'a> {
    pub(super) model: &'a Model,
    pub(super) sequence: &'a SequenceTargets,
    pub(super) counts: Counts,
    pub(super) pass: &'a StepSettings,
}

/// The consistency loss of a record and what its gradient is multiplied by.
pub(super) struct ConsistencyGradient {
    /// Row of [`LmForward`]'s logits that predicts the label's token.
    row: usize,
    pub(super) divergence: Divergence,
    /// w_consistency over the step's records with a target.
    scale: f64,
}

/// The divergence of the CLS head from the LM head on a record that both were computed for; `None` where it is not
/// trained.
pub(super) fn consistency(
    scope: RecordScope<'_>,
    lm: Option<&LmForward>,
    cls: Option<&ClsForward>,
) -> Result<Option<ConsistencyGradient>> {
    let RecordScope { sequence, counts, pass, .. } = scope;
    let tokens = pass.label_tokens.as_deref().filter(|_| pass.weights.consistency > 0.0);
    let (Some(lm), Some(cls), Some(tokens)) = (lm, cls, tokens) else { return Ok(None) };
    let from_end = tokens.rows_from_end(sequence.class);
    let row = lm.logits.dim(0)? - from_end;
    let logits = values(&lm.logits.narrow(0, row, 1)?)?;
    let of_labels: Vec<f32> = tokens.ids().iter().map(|&id| logits[id as usize]).collect();
    let divergence = Divergence::of(&values(&cls.logits)?, &of_labels);
    Ok(Some(ConsistencyGradient { row, divergence, scale: pass.weights.consistency / counts.explained as f64 }))
}

/// The numbers of a tensor, on the host.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// The LM head's logits `(rows, vocab)` on the rows of a record that predict its target, and under
/// `prompt_loss_weight` its prompt.
pub(super) struct LmForward {
    /// The first of these rows, counted over the batch.
    pub(super) first: usize,
    /// Their hidden states `(rows, hidden)`.
    rows: Tensor,
    logits: Tensor,
}

impl LmForward {
    /// `None` of a record without a target, and where L_gen is not trained.
    pub(super) fn of(scope: RecordScope<'_>, hidden_states: &Tensor) -> Result<Option<Self>> {
        let RecordScope { model, sequence, pass, .. } = scope;
        if !pass.weights.trains_generation() || sequence.target().is_empty() {
            return Ok(None);
        }
        let first = pass.first_read(sequence);
        let rows = hidden_states.narrow(0, first, sequence.next.len() - (first - sequence.start))?;
        let logits = model.llama.logits(&rows)?;
        Ok(Some(Self { first, rows, logits }))
    }

    /// The sum of the rows' cross-entropies, prompt tokens by their weight, and the gradient of their hidden states.
    pub(super) fn backward(
        self,
        scope: RecordScope<'_>,
        consistency: Option<&ConsistencyGradient>,
        gradients: &mut Gradients,
    ) -> Result<(f64, Tensor)> {
        let RecordScope { model, sequence, counts, pass } = scope;
        let targets = &sequence.next[self.first - sequence.start..];
        let of_prompt = sequence.t_n - self.first;
        let scale = pass.weights.generation / pass.weights.tokens(counts);
        let mut scales = vec![scale as f32; targets.len()];
        scales[..of_prompt].fill((pass.weights.prompt * scale) as f32);
        let (losses, dlogits) = cross_entropy::forward_backward(self.logits, targets, &scales)?;
        if let Some((tokens, consistency)) = pass.label_tokens.as_deref().zip(consistency) {
            let ConsistencyGradient { row, divergence, scale: by } = consistency;
            let mut of_row = values(&dlogits.narrow(0, *row, 1)?)?;
            for (&id, slope) in tokens.ids().iter().zip(&divergence.by_lm) {
                of_row[id as usize] += (by * slope) as f32;
            }
            let of_row = Tensor::from_vec(of_row, (1, dlogits.dim(1)?), dlogits.device())?;
            // In place: nobody else holds these logits.
            dlogits.slice_set(&of_row.to_dtype(dlogits.dtype())?, 0, *row)?;
        }
        let d_rows = model.llama.logits_backward(&dlogits, &self.rows, pass.parameters, gradients)?;
        let (prompt, target) = losses.split_at(of_prompt);
        Ok((pass.weights.prompt * sum(prompt) + sum(target), d_rows.to_dtype(self.rows.dtype())?))
    }
}

/// The CLS head's logits `(1, classes)` on a record.
pub(super) struct ClsForward {
    logits: Tensor,
    saved: HeadSaved,
}

impl ClsForward {
    /// `None` where L_cls is not trained.
    pub(super) fn of(scope: RecordScope<'_>, hidden_states: &Tensor) -> Result<Option<Self>> {
        let RecordScope { model, sequence, pass, .. } = scope;
        if !pass.weights.trains_classification() {
            return Ok(None);
        }
        let h_n = hidden_states.narrow(0, sequence.t_n, 1)?.to_dtype(DType::F32)?;
        let keys = [sequence.key];
        let (logits, saved) = model.head.forward(&h_n, pass.dropout.map(|seed| (seed, &keys[..])))?;
        Ok(Some(Self { logits, saved }))
    }

    /// The record's cross-entropy by its class's weight, and the gradient of h_n `(1, hidden)`, f32.
    pub(super) fn backward(
        self,
        scope: RecordScope<'_>,
        consistency: Option<&ConsistencyGradient>,
        gradients: &mut Gradients,
    ) -> Result<(f64, Tensor)> {
        let RecordScope { model, sequence, counts, pass } = scope;
        let scale = pass.weights.classification / counts.records as f64;
        let (logits, weight) = match pass.class_balance.as_deref() {
            None => (self.logits, 1.0),
            Some(balance) => (balance.adjusted(&self.logits)?, balance.weights[sequence.class as usize]),
        };
        let (loss, mut dlogits) = smoothed(logits, sequence.class, pass.label_smoothing, weight * scale)?;
        if let Some(ConsistencyGradient { divergence, scale: by, .. }) = consistency {
            let slopes: Vec<f32> = divergence.by_head.iter().map(|slope| (by * slope) as f32).collect();
            dlogits = (&dlogits + Tensor::from_vec(slopes, dlogits.shape(), dlogits.device())?)?;
        }
        Ok((weight * loss, model.head.backward(self.saved, &dlogits, gradients)?))
    }
}

/// Cross-entropy of `logits (1, K)` against `class` smoothed by `epsilon`, and its gradient times `scale`.
fn smoothed(logits: Tensor, class: u32, epsilon: f64, scale: f64) -> Result<(f64, Tensor)> {
    let (losses, lse) = cross_entropy::forward(&logits, &[class])?;
    if epsilon == 0.0 {
        return Ok((sum(&losses), cross_entropy::backward(logits, &[class], &lse, &[scale as f32])?));
    }
    // Cross-entropy is linear in its target: 1 − ε + ε/K times that of the gold class, ε/K times that of each
    // other.
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

#[cfg(test)]
mod tests {
    use super::*;

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
