//! The Llama itself.

use candle_core::{DType, Device, Tensor};

use super::{Gradients, LlamaConfig, ModelSource, kv_cache::SequenceCache, lora::LoraConfig};
use crate::{
    config::{ActivationMemory, Parameters},
    error::Result,
    ops::Offsets,
};

/// A Llama: base weights, and adapters once [`Llama::add_lora`] was called.
#[derive(Debug)]
pub struct Llama {
    /// Shape and constants.
    pub config: LlamaConfig,
    /// Shape of the adapters, when there are any.
    pub lora: Option<LoraConfig>,
}

/// Which layers keep their activations for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// All of them.
    Keep,
    /// None: each keeps its input and computes the rest again.
    Recompute,
    /// The last `n` (their gradients come first, so what they hold is freed first).
    KeepLast(usize),
}

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

/// What [`Llama::backward`] needs of a forward pass.
#[derive(Debug)]
pub struct Saved {}

impl Llama {
    /// Reads and checks a model's weights into `dtype` (F32 or BF16; norms and biases are always f32).
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let _ = (source, dtype, device);
        todo!()
    }

    /// Random f32 weights (stream `MODEL_INIT`).
    pub fn random(config: LlamaConfig, seed: u64, device: &Device) -> Result<Self> {
        let _ = (config, seed, device);
        todo!()
    }

    /// Adds adapters: A Kaiming-uniform from stream `LORA_INIT`, B zero, so that the model's function does not change.
    pub fn add_lora(&mut self, lora: &LoraConfig, seed: u64) -> Result<()> {
        let _ = (lora, seed);
        todo!()
    }

    /// Bytes one token of a [`super::kv_cache::KvCache`] takes.
    pub fn kv_bytes_per_token(&self) -> usize {
        todo!()
    }

    /// Which layers can keep their activations for `tokens` rows within `available` bytes.
    pub fn memory_plan(&self, setting: ActivationMemory, tokens: usize, available: u64) -> Memory {
        let _ = (setting, tokens, available);
        todo!()
    }

    /// Training forward: ids of concatenated sequences → hidden states after the final norm `(tokens, hidden)`.
    pub fn forward(&self, ids: &[u32], offsets: &Offsets, context: &TrainingContext) -> Result<(Tensor, Saved)> {
        let _ = (ids, offsets, context);
        todo!()
    }

    /// Adds to `gradients` those of everything `context.trains` names, from `d_hidden (tokens, hidden)`.
    pub fn backward(&self, saved: Saved, d_hidden: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let _ = (saved, d_hidden, gradients);
        todo!()
    }

    /// LM head on some rows: `(n, hidden)` → `(n, vocab)`.
    pub fn logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        let _ = hidden_rows;
        todo!()
    }

    /// Gradient of the rows; adds the LM head's own under `Parameters::Full`.
    pub fn logits_backward(&self, dlogits: &Tensor, hidden_rows: &Tensor, trains: Parameters, gradients: &mut Gradients) -> Result<Tensor> {
        let _ = (dlogits, hidden_rows, trains, gradients);
        todo!()
    }

    /// Reads prompts into their caches; gives each sequence's last hidden state after the final norm, `(n, hidden)`.
    pub fn prefill(&self, ids: &[u32], offsets: &Offsets, caches: &mut [SequenceCache]) -> Result<Tensor> {
        let _ = (ids, offsets, caches);
        todo!()
    }

    /// As [`Llama::prefill`], keeping nothing.
    pub fn prefill_hidden_only(&self, ids: &[u32], offsets: &Offsets) -> Result<Tensor> {
        let _ = (ids, offsets);
        todo!()
    }

    /// One token a sequence → hidden states after the final norm `(rows, hidden)`; the caches grow by it.
    pub fn decode(&self, ids: &[u32], caches: &mut [&mut SequenceCache]) -> Result<Tensor> {
        let _ = (ids, caches);
        todo!()
    }

    /// LM head for decoding: streams its weight once for all rows.
    pub fn decode_logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        let _ = hidden_rows;
        todo!()
    }
}
