//! What a run needs, before it starts: memory and disk (SPEC §5: exit 5 in seconds, naming what would fit).

use super::{examples::Example, optimizer::Optimizer};
use crate::{
    config::{ActivationMemory, Parameters},
    device::shown,
    error::{Error, Result},
    model::{LlamaConfig, Memory, Model},
};

/// Bytes of an f32.
const F32: u64 = 4;

/// The largest micro-batch a run can meet: as if its longest records came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Largest {
    /// Rows of the forward pass.
    pub rows: usize,
    /// Rows of the LM head.
    pub target_rows: usize,
}

impl Largest {
    /// Over all batches of `batch_size` that a shuffle can make; the LM head takes a record at a time.
    ///
    /// `whole`: the LM head reads the prompt's rows too.
    pub fn of(examples: &[Example], batch_size: usize, whole: bool) -> Self {
        let mut rows: Vec<usize> = examples.iter().map(Example::rows).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        let read = |example: &Example| if whole { example.rows() } else { example.target.len() };
        let target_rows = examples.iter().map(read).max().unwrap_or(0);
        Self { rows: rows.iter().take(batch_size).sum(), target_rows }
    }
}

/// Parameters of the base model.
pub fn parameter_count(config: &LlamaConfig) -> u64 {
    let (d, ffn) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let layer = d * (2 * q + 2 * kv) + 3 * d * ffn + 2 * d;
    let embeddings = config.vocab_size * d * if config.tie_word_embeddings { 1 } else { 2 };
    (embeddings + config.num_hidden_layers * layer + d) as u64
}

/// Bytes of one row that do not depend on the setting: a layer's input kept for each, one layer computed again, its
/// backward under way, and the ends.
fn bytes_per_row(config: &LlamaConfig) -> u64 {
    let (d, ffn) = (config.hidden_size as u64, config.intermediate_size as u64);
    let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let (q, kv) = (q as u64, kv as u64);
    let inputs = config.num_hidden_layers as u64 * d;
    let one_layer = 2 * d + 2 * q + 2 * kv + 2 * ffn + config.num_attention_heads as u64;
    let under_way = 6 * d + 2 * q + 2 * kv + 3 * ffn;
    let ends = 4 * d;
    F32 * (inputs + one_layer + under_way + ends)
}

/// Bytes the LM head takes for a row: logits and their gradient.
fn bytes_per_target_row(config: &LlamaConfig) -> u64 {
    2 * F32 * config.vocab_size as u64
}

/// Bytes of gradients and of the scaled copy under way; parameters and moments exist by the time this is asked.
fn gradient_bytes(optimizer: &Optimizer) -> u64 {
    2 * F32 * optimizer.elements()
}

/// Chooses what layers keep, or fails (exit 5) naming what would fit. Weights and moments are allocated already.
pub fn plan(model: &Model, optimizer: &Optimizer, setting: ActivationMemory, largest: Largest, available: u64) -> Result<Memory> {
    let config = &model.llama.config;
    let fixed = gradient_bytes(optimizer) + largest.target_rows as u64 * bytes_per_target_row(config);
    let need = fixed + largest.rows as u64 * bytes_per_row(config);
    if need > available {
        return Err(too_little(need, available, available.saturating_sub(fixed) / bytes_per_row(config), "training"));
    }
    let kept = (config.num_hidden_layers as u64 - 1) * model.llama.kept_bytes(largest.rows);
    if setting == ActivationMemory::Keep && need + kept > available {
        let message = format!("keeping every layer's activations needs about {}, {} are free", shown(need + kept), shown(available));
        return Err(Error::resources(message).hint("train.activation_memory = \"auto\" keeps what fits, \"recompute\" takes the least"));
    }
    let memory = model.llama.memory_plan(setting, largest.rows, available - fixed);
    tracing::debug!("largest micro-batch {} rows, {} target rows: {memory:?}", largest.rows, largest.target_rows);
    Ok(memory)
}

/// Fails (exit 5) before anything is loaded when weights, moments and the smallest pass cannot fit.
pub fn check_before_loading(
    config: &LlamaConfig,
    bytes_per_weight: u64,
    trains: Parameters,
    largest: Largest,
    available: u64,
) -> Result<()> {
    let parameters = parameter_count(config);
    let state = if trains == Parameters::Full { 4 * F32 * parameters } else { 0 };
    let fixed = parameters * bytes_per_weight + state + largest.target_rows as u64 * bytes_per_target_row(config);
    let need = fixed + largest.rows as u64 * bytes_per_row(config);
    if need > available {
        return Err(too_little(need, available, available.saturating_sub(fixed) / bytes_per_row(config), "the model and its training"));
    }
    Ok(())
}

fn too_little(need: u64, available: u64, rows: u64, what: &str) -> Error {
    let error = Error::resources(format!("{what} needs about {} of memory, {} are free", shown(need), shown(available)));
    match rows {
        0 => error.hint("a smaller base model would fit, or model.dtype = \"bf16\", or train.parameters = \"lora\""),
        rows => error.hint(format!(
            "about {rows} tokens in a forward pass would fit: lower train.batch_size, or model.max_input_tokens + model.max_output_tokens"
        )),
    }
}

/// Bytes a checkpoint takes on disk: trained tensors and both moments.
pub fn checkpoint_bytes(optimizer: &Optimizer) -> u64 {
    3 * F32 * optimizer.elements()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: usize, target: usize) -> Example {
        Example { prompt: vec![1; prompt], target: vec![1; target], class: 0 }
    }

    #[test]
    fn the_largest_batch_is_that_of_the_longest_records() {
        let examples = [example(10, 3), example(4, 0), example(7, 5)];
        assert_eq!(Largest::of(&examples, 1, false), Largest { rows: 12, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 2, false), Largest { rows: 23, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 9, false), Largest { rows: 27, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 1, true), Largest { rows: 12, target_rows: 12 });
    }

    /// Llama-3.1-8B.
    fn llama_8b() -> LlamaConfig {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0
        });
        LlamaConfig::parse(config.as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_cannot_fit_is_refused_before_loading_and_told_what_would() {
        let config = llama_8b();
        assert_eq!(parameter_count(&config), 8_030_261_248);
        let largest = Largest { rows: 7424, target_rows: 384 };
        let check = |gib: u64, weight| check_before_loading(&config, weight, Parameters::Lora, largest, gib << 30);
        assert!(check(80, 4).is_ok());
        let error = check(32, 4).unwrap_err();
        assert_eq!((error.exit_code(), error.hint_text().unwrap().contains("tokens")), (5, true), "{error}");
        assert!(check(8, 2).unwrap_err().hint_text().unwrap().contains("smaller base model"));
    }
}
