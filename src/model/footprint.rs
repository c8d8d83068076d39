//! Estimates the activation memory of a training pass per token, from the model's dimensions and dtypes.

use super::{LlamaConfig, LoraConfig, Precision, head, tensor_spec};
use crate::ops::attention::backward_scratch;

/// Bytes of activation memory per token, by component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Number of decoder layers: a count, not bytes.
    pub layers: u64,
    /// A layer's input, saved for backward even with activation checkpointing.
    pub input: u64,
    /// Other activations of a layer that backward reads, saved when the layer is not recomputed.
    pub kept: u64,
    /// Temporaries of one layer's backward pass, [`Footprint::phases`] among them.
    pub working: u64,
    /// Embedding, final norm and their gradients.
    pub ends: u64,
    /// Per token that the LM head reads: its logits, which their gradient overwrites, and a copy of that gradient in
    /// the weights' dtype for the product. Not part of [`Footprint::row`].
    pub logits: u64,
}

impl Footprint {
    /// For a model whose matrices are held in this precision. Activations are f32 on a CPU and of the weights' type on
    /// CUDA; attention's operands have the weights' type on both; log-sum-exps and norms' 1/rms are f32.
    pub fn of(config: &LlamaConfig, weights: impl Into<Precision>, cuda: bool, lora: Option<&LoraConfig>) -> Self {
        let precision = weights.into();
        let weight = precision.dtype.size_in_bytes() as u64;
        let activation = if cuda { weight } else { 4 };
        let wide = 4;
        let d = config.hidden_size as u64;
        let ffn = config.intermediate_size as u64;
        let heads = config.num_attention_heads as u64;
        let q = heads * config.head_dim as u64;
        let kv = (config.num_key_value_heads * config.head_dim) as u64;
        // LoRA's A·x is saved for every target except down_proj, where backward computes it again.
        let lora_ax = lora
            .map_or(0, |lora| lora.rank * lora.targets.iter().filter(|target| *target != "down_proj").count())
            as u64;
        let scratch = if cuda { backward_scratch(config.num_attention_heads, config.head_dim) } else { 0 };
        Self {
            layers: config.num_hidden_layers as u64,
            input: activation * d,
            // q, k, v as attention reads them · attention's output, the stream behind it, gate and up, A·x ·
            // log-sum-exp a head and two 1/rms.
            kept: weight * (q + 2 * kv) + activation * (q + d + 2 * ffn + lora_ax) + wide * (heads + 2),
            // Counted from layer.rs's backward: six of the stream's width, q and its gradient, k and v's.
            working: activation * (6 * d + 2 * q + 2 * kv)
                + Self::phases(activation * ffn, scratch)
                + precision.row_bytes(config, cuda, activation),
            ends: activation * 4 * d,
            logits: (activation + weight) * config.vocab_size as u64,
        }
    }

    /// What one half of a layer's backward gives back before the other begins: three of the MLP's width, then
    /// attention's scratch.
    fn phases(mlp: u64, attention: u64) -> u64 {
        (3 * mlp).max(attention)
    }

    /// Bytes per token of a pass in which `kept` layers keep their activations and the others are recomputed. The layer
    /// that is being recomputed always holds one set.
    pub fn row(&self, kept: u64) -> u64 {
        self.layers * self.input + kept.max(1) * self.kept + self.working + self.ends
    }
}

/// Parameters of adapters on every layer.
pub fn lora_parameters(config: &LlamaConfig, lora: &LoraConfig) -> u64 {
    let adapted = |name: &str| lora.targets.iter().any(|target| name.ends_with(&format!(".{target}.weight")));
    let sides = |shape: &[usize]| shape.iter().map(|&n| n as u64).sum::<u64>();
    let shapes = tensor_spec::shapes(config);
    shapes.iter().filter(|(name, _)| adapted(name)).map(|(_, shape)| lora.rank as u64 * sides(shape)).sum()
}

/// Parameters of a classification head of width `hidden` over so many classes.
pub fn head_parameters(config: &LlamaConfig, hidden: usize, classes: usize) -> u64 {
    head::shapes(config.hidden_size, hidden, classes).iter().map(|(_, shape)| tensor_spec::elements(shape)).sum()
}

/// Set aside of a GPU for libraries and kernels, which are loaded when they are first used.
pub const LIBRARIES: u64 = 512 << 20;

/// Free memory that tensors may use.
pub fn usable(available: u64, cuda: bool) -> u64 {
    if cuda { available.saturating_sub(LIBRARIES) } else { available }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{
        config::{Lora, Parameters},
        model::{ActivationCheckpointing, Llama, TrainingContext, config::tests::tiny},
        ops::Offsets,
    };

    /// Attention's scratch of an 8B, 16 KB a token, lies where the MLP's gradients did; beside a narrow MLP it counts.
    #[test]
    fn attention_has_what_the_mlp_gave_back() {
        assert_eq!(Footprint::phases(2 * 14_336, 4 * 4096), 3 * 2 * 14_336);
        assert_eq!(Footprint::phases(2 * 1024, 4 * 4096), 4 * 4096);
    }

    /// The storage behind every tensor that a forward pass keeps, against the estimate: to the byte.
    #[test]
    fn a_layer_holds_what_is_said() {
        let all = crate::model::adapter::PROJECTIONS.map(String::from).to_vec();
        for weights in [DType::F32, DType::BF16] {
            for targets in [Lora::default().targets, all.clone()] {
                let mut llama = Llama::random(tiny(), weights, 3, &Device::Cpu).unwrap();
                let lora = LoraConfig { targets, ..LoraConfig::from(&Lora::default()) };
                llama.add_lora(&lora, 1).unwrap();
                let ids = [1, 2, 3, 4, 5, 6, 7];
                let offsets = Offsets::from_lengths(&[4, 3]);
                let footprint = Footprint::of(&llama.config, weights, false, Some(&lora));
                for (memory, each) in [
                    (ActivationCheckpointing::Keep, footprint.input + footprint.kept),
                    (ActivationCheckpointing::Recompute, footprint.input),
                ] {
                    let context = TrainingContext { dropout: None, memory, trains: Parameters::Lora, read_from: None };
                    let (_, saved) = llama.forward(&ids, &offsets, &context).unwrap();
                    let held = saved.held_bytes();
                    assert_eq!(
                        held,
                        vec![ids.len() as u64 * each; llama.config.num_hidden_layers],
                        "{weights:?} {memory:?}"
                    );
                }
            }
        }
    }
}
