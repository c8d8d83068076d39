//! What the rows of a training pass take in memory, from a model's shape and the types its layers hold.

use candle_core::DType;

use super::{LlamaConfig, LoraConfig};

/// Bytes a row (a token of the forward pass) takes, by what takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Layers.
    pub layers: u64,
    /// A layer's input, held from forward to backward in any case.
    pub input: u64,
    /// What backward reads of a layer beyond its input.
    pub kept: u64,
    /// What the backward pass of one layer makes on its way.
    pub working: u64,
    /// Embedding, final norm and their gradients.
    pub ends: u64,
    /// Of a row of the LM head: logits, over which their gradient is written, and that as the product takes it.
    pub logits: u64,
}

impl Footprint {
    /// Of a model whose matrices are `weights` (f32 or bf16). Activations are f32 on a CPU and of the weights' type on
    /// CUDA; attention's operands have the weights' type on both; log-sum-exps and norms' 1/rms are f32.
    pub fn of(config: &LlamaConfig, weights: DType, cuda: bool, lora: Option<&LoraConfig>) -> Self {
        let weight = weights.size_in_bytes() as u64;
        let (activation, wide) = (if cuda { weight } else { 4 }, 4);
        let (d, ffn, heads) =
            (config.hidden_size as u64, config.intermediate_size as u64, config.num_attention_heads as u64);
        let (q, kv) = (heads * config.head_dim as u64, (config.num_key_value_heads * config.head_dim) as u64);
        // The down-projection's A x is computed again.
        let low_rank = lora
            .map_or(0, |lora| lora.rank * lora.targets.iter().filter(|target| *target != "down_proj").count())
            as u64;
        Self {
            layers: config.num_hidden_layers as u64,
            input: activation * d,
            kept: weight * (q + 2 * kv) + activation * (q + d + 2 * ffn + low_rank) + wide * (heads + 2),
            working: activation * (6 * d + 2 * q + 2 * kv + 3 * ffn),
            ends: activation * 4 * d,
            logits: (activation + weight) * config.vocab_size as u64,
        }
    }

    /// A pass that keeps the activations of `kept` layers. The one in work has its own in any case.
    pub fn row(&self, kept: u64) -> u64 {
        self.layers * self.input + kept.max(1) * self.kept + self.working + self.ends
    }
}

/// What is left of free memory for tensors: a GPU's libraries take theirs, and the kernels' code, when they are first
/// used.
pub fn usable(available: u64, cuda: bool) -> u64 {
    const LIBRARIES: u64 = 512 << 20;
    if cuda { available.saturating_sub(LIBRARIES) } else { available }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{
        config::{Lora, Parameters},
        model::{ActivationCheckpointing, Llama, TrainingContext, config::tests::tiny},
        ops::Offsets,
    };

    /// The storage behind every tensor that a forward pass keeps, against the estimate: to the byte.
    #[test]
    fn a_layer_holds_what_is_said() {
        let all = crate::model::lora::PROJECTIONS.map(String::from).to_vec();
        for weights in [DType::F32, DType::BF16] {
            for targets in [Lora::default().targets, all.clone()] {
                let mut llama = Llama::random(tiny(), weights, 3, &Device::Cpu).unwrap();
                let lora = LoraConfig { targets, ..LoraConfig::from(&Lora::default()) };
                llama.add_lora(&lora, 1).unwrap();
                let (ids, offsets) = ([1, 2, 3, 4, 5, 6, 7], Offsets::from_lengths(&[4, 3]));
                let footprint = Footprint::of(&llama.config, weights, false, Some(&lora));
                for (memory, each) in [
                    (ActivationCheckpointing::Keep, footprint.input + footprint.kept),
                    (ActivationCheckpointing::Recompute, footprint.input),
                ] {
                    let context = TrainingContext { dropout: None, memory, trains: Parameters::Lora };
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
