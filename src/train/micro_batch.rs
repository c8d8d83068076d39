//! A micro-batch's forward pass, losses and backward pass.

use super::{
    examples::Batch,
    heads::{ClsForward, LmForward, RecordScope, consistency},
    loss::{Counts, LossSums, StepSettings, sum},
};
use crate::{
    config::Parameters,
    error::Result,
    model::{ActivationCheckpointing, Gradients, LoraDropout, Model, TrainingContext},
    ops::cross_entropy,
};

/// Forward and backward of a micro-batch of a step with these counts: returns its sums, adds to `gradients`.
pub fn forward_backward(
    model: &Model,
    batch: &Batch,
    counts: Counts,
    pass: &StepSettings,
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
        let scope = RecordScope { model, sequence, counts, pass };
        let lm = LmForward::of(scope, &hidden_states)?;
        let cls = ClsForward::of(scope, &hidden_states)?;
        let consistency = consistency(scope, lm.as_ref(), cls.as_ref())?;
        sums.consistency += consistency.as_ref().map_or(0.0, |consistency| consistency.divergence.kl);
        let mut d_t_n = None;
        if let Some(lm) = lm {
            let first = lm.first;
            let (sum, d_rows) = lm.backward(scope, consistency.as_ref(), gradients)?;
            sums.generation += sum;
            d_hidden.slice_set(&d_rows, 0, first)?;
            d_t_n = Some(d_rows.narrow(0, sequence.t_n - first, 1)?);
        }
        if let Some(cls) = cls {
            let (sum, d_h_n) = cls.backward(scope, consistency.as_ref(), gradients)?;
            sums.classification += sum;
            let d_h_n = d_h_n.to_dtype(hidden_states.dtype())?;
            let both = d_t_n.map_or_else(|| Ok(d_h_n.clone()), |d_t_n| d_t_n + &d_h_n)?;
            d_hidden.slice_set(&both.contiguous()?, 0, sequence.t_n)?;
        }
    }
    drop(hidden_states);
    model.llama.backward(saved, &d_hidden, gradients)?;
    Ok(sums)
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
