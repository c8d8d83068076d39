//! Model FLOPs utilisation: what share of the device's peak a training step uses.
//!
//! Chowdhery et al. 2022 (PaLM), appendix B: the operations that the method needs ÷ seconds ÷ the peak. What is
//! computed twice to save memory counts once. A product of (m, k) by (k, n) is 2·m·k·n operations.

use std::time::Instant;

use candle_core::{DType, Device};

use super::loss::{Counts, LossWeights};
use crate::{
    config::Parameters,
    error::Result,
    model::LlamaConfig,
    ops::{cuda, linear, random},
    rng::{Rng, streams},
};

/// Dense bf16 operations a second by the makers' data sheets, in TFLOP/s: a name holds all the words of its row; the
/// first row that fits counts.
const PEAKS: [(&str, f64); 12] = [
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("GH200", 989.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("A6000", 154.8),
];

/// Operations that a model's training step cannot do without, by what they grow with. Adapters, norms and the
/// classification head are left out: together they are under 1 % of an 8B model's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operations {
    /// A token, in the decoder layers' products.
    token: f64,
    /// A pair of a token and one that it attends to.
    pair: f64,
    /// A row that the LM head reads.
    logits: f64,
}

impl Operations {
    /// Of a model of this shape. A frozen base has no gradients of weights.
    pub fn of(config: &LlamaConfig, parameters: Parameters) -> Self {
        let d = config.hidden_size;
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        let layer = 2 * d * q + 2 * d * kv + 3 * d * config.intermediate_size;
        let layers = config.num_hidden_layers as f64;
        // Forward, the input's gradient, the weights' gradient.
        let products = match parameters {
            Parameters::Lora => 2.0,
            Parameters::Full => 3.0,
        };
        Self {
            token: products * 2.0 * layers * layer as f64,
            // Q·K and P·V forward; dV, dP, dQ and dK backward.
            pair: 6.0 * 2.0 * layers * q as f64,
            logits: products * 2.0 * (config.vocab_size * d) as f64,
        }
    }

    /// Of a step over so many tokens, of which the LM head reads `logits`.
    pub fn total(&self, tokens: usize, pairs: usize, logits: usize) -> f64 {
        self.token * tokens as f64 + self.pair * pairs as f64 + self.logits * logits as f64
    }
}

/// What steps are measured against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mfu {
    operations: Operations,
    /// Operations a second of all ranks together.
    peak: f64,
    /// The LM head reads the rows of prompts too.
    whole: bool,
}

impl Mfu {
    /// For a run on `ranks` devices like this one, whose weights have dtype `dtype`. Quantised ones count against it
    /// too.
    pub fn new(operations: Operations, weights: &LossWeights, ranks: usize, dtype: DType, on: &Device) -> Result<Self> {
        let peak = peak(on, dtype)?;
        tracing::debug!("mfu counts against {:.3} TFLOP/s a device", peak / 1e12);
        Ok(Self { operations, peak: peak * ranks as f64, whole: weights.prompt > 0.0 })
    }

    /// The share of the peak, 0 to 1, that a step used.
    pub fn of(&self, counts: &Counts, seconds: f64) -> f64 {
        let prompt = if self.whole { counts.prompt_tokens } else { 0 };
        let logits = counts.target_tokens + prompt;
        self.operations.total(counts.tokens, counts.pairs, logits) / seconds.max(1e-9) / self.peak
    }
}

/// Operations a second that a device can do at most: the data sheet's where it is known, else those of the best of a
/// few products here, which other work on the machine lowers.
fn peak(device: &Device, dtype: DType) -> Result<f64> {
    let tabled = cuda::name(device).filter(|_| dtype == DType::BF16).and_then(|name| tabled(&name));
    tabled.map_or_else(|| measured(device, dtype), Ok)
}

fn tabled(name: &str) -> Option<f64> {
    let has = |word: &str| name.split([' ', '-']).any(|part| part == word);
    let row = PEAKS.iter().find(|(words, _)| words.split(' ').all(has));
    row.map(|(_, peak)| peak * 1e12)
}

fn measured(device: &Device, dtype: DType) -> Result<f64> {
    const TRIES: usize = 4;
    let n = if device.is_cuda() { 4096 } else { 1024 };
    let activations = if device.is_cuda() { dtype } else { DType::F32 };
    let operand = |step, dtype| random::normal(Rng::new(1, streams::MODEL_INIT), step, 1.0, (n, n), dtype, device);
    let x = operand(1, activations)?;
    let weight = operand(2, dtype)?;
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let begun = Instant::now();
        linear::forward(&x, &weight, None)?;
        device.synchronize()?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (n as f64).powi(3) / best)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> LlamaConfig {
        let config = json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
        });
        LlamaConfig::parse(config.as_object().unwrap()).unwrap()
    }

    #[test]
    fn a_step_counts_every_product_once() {
        // q and o 16 × 16, k and v 16 × 8, three of 16 × 24: 1,920 weights a layer.
        let lora = Operations::of(&llama(), Parameters::Lora);
        assert_eq!(lora.total(5, 0, 0), 5.0 * 4.0 * 2.0 * 1920.0);
        // Two layers, two heads of 8, six products of 2 · 8 operations a pair.
        assert_eq!(lora.total(0, 15, 0), 15.0 * 2.0 * 2.0 * 6.0 * 16.0);
        assert_eq!(lora.total(0, 0, 3), 3.0 * 4.0 * 640.0);
        let full = Operations::of(&llama(), Parameters::Full);
        assert_eq!(full.total(5, 15, 3), 1.5 * lora.total(5, 0, 3) + lora.total(0, 15, 0));
    }

    #[test]
    fn cards_are_known_by_the_words_of_their_names() {
        for (name, peak) in [
            ("NVIDIA H200", Some(989e12)),
            ("NVIDIA H100 80GB HBM3", Some(989e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA A100-SXM4-80GB", Some(312e12)),
            ("NVIDIA L40S", Some(362e12)),
            ("NVIDIA L4", Some(121e12)),
            ("NVIDIA A1000", None),
        ] {
            assert_eq!(tabled(name), peak, "{name}");
        }
    }

    #[test]
    fn a_step_as_fast_as_the_peak_uses_all_of_it() {
        let operations = Operations::of(&llama(), Parameters::Lora);
        let counts = Counts { tokens: 5, pairs: 15, target_tokens: 3, prompt_tokens: 2, ..Counts::default() };
        let mfu = Mfu { operations, peak: operations.total(5, 15, 3), whole: false };
        assert_eq!(mfu.of(&counts, 1.0), 1.0);
        let whole = Mfu { peak: operations.total(5, 15, 5), whole: true, ..mfu };
        assert_eq!(whole.of(&counts, 2.0), 0.5);
    }

    #[test]
    fn a_device_without_a_row_is_measured() {
        assert!(peak(&Device::Cpu, DType::F32).unwrap() > 1e8);
    }
}
