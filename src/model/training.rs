//! The training pass over all layers: forward, and its backward from the last layer to the first.

use candle_core::Tensor;

use super::{Gradients, Llama, Memory, accumulate, layer::Kept, projection::Pass};
use crate::{
    config::Parameters,
    error::{Error, Result},
    ops::{Offsets, embedding, linear},
};

/// Dropout of LoRA inputs: masks depend on the seed, the tensor's name and the record's key, not on the batch.
#[derive(Debug, Clone)]
pub struct LoraDropout {
    /// Seed of the run.
    pub seed: u64,
    /// A key a sequence (record and step).
    pub record_keys: Vec<u64>,
}

/// How a training pass runs.
#[derive(Debug, Clone)]
pub struct TrainingContext {
    /// `None` switches dropout off.
    pub dropout: Option<LoraDropout>,
    /// What layers keep.
    pub memory: Memory,
    /// What is trained.
    pub trains: Parameters,
}

/// What one layer holds between forward and backward.
#[derive(Debug)]
enum SavedLayer {
    /// Everything backward reads.
    Keep(Box<Kept>),
    /// The layer's input; the rest is computed again, to the same bits.
    Recompute(Tensor),
}

/// What [`Llama::backward`] needs of a forward pass.
#[derive(Debug)]
pub struct Saved {
    ids: Vec<u32>,
    offsets: Offsets,
    positions: Vec<u32>,
    context: TrainingContext,
    layers: Vec<SavedLayer>,
    /// The final norm's input and 1/rms.
    last: (Tensor, Tensor),
}

impl Saved {
    /// The input of each layer, then that of the final norm: HF's `hidden_states`, but for the last, which HF norms.
    pub fn hidden_states(&self) -> Vec<&Tensor> {
        let inputs = self.layers.iter().map(|layer| match layer {
            SavedLayer::Keep(kept) => kept.input(),
            SavedLayer::Recompute(x) => x,
        });
        inputs.chain([&self.last.0]).collect()
    }
}

impl Memory {
    /// Whether layer `i` of `layers` keeps its activations.
    fn keeps(self, i: usize, layers: usize) -> bool {
        match self {
            Self::Keep => true,
            Self::Recompute => false,
            Self::KeepLast(n) => i + n >= layers,
        }
    }
}

impl Llama {
    /// Training forward: ids of concatenated sequences → hidden states after the final norm `(tokens, hidden)`.
    pub fn forward(&self, ids: &[u32], offsets: &Offsets, context: &TrainingContext) -> Result<(Tensor, Saved)> {
        self.check_batch(ids, offsets)?;
        if let Some(dropout) = context.dropout.as_ref().filter(|dropout| dropout.record_keys.len() != offsets.count()) {
            return Err(Error::run(format!("dropout: {} keys for {} sequences", dropout.record_keys.len(), offsets.count())));
        }
        let positions = offsets.positions();
        let pass = Pass { offsets, positions: &positions, dropout: context.dropout.as_ref(), trains: context.trains };
        let mut x = embedding::forward(&self.embed_tokens, ids)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let (y, kept) = layer.forward(&x, &self.rope, &pass)?;
            layers.push(match context.memory.keeps(i, self.layers.len()) {
                true => SavedLayer::Keep(Box::new(kept)),
                false => SavedLayer::Recompute(x),
            });
            x = y;
        }
        let (hidden_states, rstd) = self.norm.forward(&x)?;
        let (ids, offsets, context) = (ids.to_vec(), offsets.clone(), context.clone());
        Ok((hidden_states, Saved { ids, offsets, positions, context, layers, last: (x, rstd) }))
    }

    /// Adds to `gradients` those of everything `context.trains` names, from `d_hidden (tokens, hidden)`.
    ///
    /// With a frozen base nothing below the first layer is trained, so its dx is never computed.
    pub fn backward(&self, saved: Saved, d_hidden: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let Saved { ids, offsets, positions, context, layers, last: (x, rstd) } = saved;
        let pass = Pass { offsets: &offsets, positions: &positions, dropout: context.dropout.as_ref(), trains: context.trains };
        let trains_embedding = context.trains == Parameters::Full;
        let mut dx = Some(self.norm.backward(&x, &rstd, d_hidden, &pass, gradients)?);
        for (i, (layer, saved)) in self.layers.iter().zip(layers).enumerate().rev() {
            let Some(dy) = dx else { break };
            let kept = match saved {
                SavedLayer::Keep(kept) => *kept,
                SavedLayer::Recompute(x) => layer.forward(&x, &self.rope, &pass)?.1,
            };
            dx = layer.backward(kept, &dy, &self.rope, &pass, i > 0 || trains_embedding, gradients)?;
        }
        if let (Some(dx), true) = (dx, trains_embedding) {
            for range in offsets.ranges() {
                let rows = dx.narrow(0, range.start, range.len())?;
                let gradient = embedding::backward(self.config.vocab_size, &ids[range], &rows)?;
                accumulate(gradients, "model.embed_tokens.weight", gradient)?;
            }
        }
        Ok(())
    }

    /// LM head on some rows: `(n, hidden)` → `(n, vocab)`.
    pub fn logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        linear::forward(hidden_rows, self.lm_head_weight(), None)
    }

    /// Gradient of the rows; adds the LM head's own under `Parameters::Full`.
    ///
    /// Rows of one call are summed together: call it a record at a time for sums that do not depend on batching.
    pub fn logits_backward(&self, dlogits: &Tensor, hidden_rows: &Tensor, trains: Parameters, gradients: &mut Gradients) -> Result<Tensor> {
        if trains == Parameters::Full {
            let name = if self.lm_head.is_some() { "lm_head.weight" } else { "model.embed_tokens.weight" };
            accumulate(gradients, name, linear::backward_weight(dlogits, hidden_rows)?)?;
        }
        linear::backward_input(dlogits, self.lm_head_weight())
    }
}
