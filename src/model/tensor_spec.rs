//! Which tensors a [`LlamaConfig`] has: their HF names and shapes, how many bytes they take, and whether those found
//! are these.

use std::collections::{BTreeMap, HashSet};

use candle_core::DType;

use super::{LlamaConfig, Precision};
use crate::{
    error::{Error, Result},
    foreign,
};

/// Names shown of a long list.
const SHOWN: usize = 5;

/// Every tensor of a model, by its HF name, with its shape.
pub fn shapes(config: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let ffn = config.intermediate_size;
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let mut all = vec![("model.embed_tokens.weight".to_string(), vec![config.vocab_size, hidden])];
    for i in 0..config.num_hidden_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.push((format!("model.layers.{i}.{norm}.weight"), vec![hidden]));
        }
        let mut linear = |name: &str, out: usize, input: usize, bias: bool| {
            all.push((format!("model.layers.{i}.{name}.weight"), vec![out, input]));
            if bias {
                all.push((format!("model.layers.{i}.{name}.bias"), vec![out]));
            }
        };
        linear("self_attn.q_proj", q, hidden, config.attention_bias);
        linear("self_attn.k_proj", kv, hidden, config.attention_bias);
        linear("self_attn.v_proj", kv, hidden, config.attention_bias);
        linear("self_attn.o_proj", hidden, q, config.attention_bias);
        linear("mlp.gate_proj", ffn, hidden, config.mlp_bias);
        linear("mlp.up_proj", ffn, hidden, config.mlp_bias);
        linear("mlp.down_proj", hidden, ffn, config.mlp_bias);
    }
    all.push(("model.norm.weight".to_string(), vec![hidden]));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_string(), vec![config.vocab_size, hidden]));
    }
    all
}

/// Bytes the weights take in memory; of quantised ones with the room in which those of one product are dequantised.
pub fn bytes(config: &LlamaConfig, precision: impl Into<Precision>, cuda: bool) -> u64 {
    let precision = precision.into();
    let held = |(name, shape): &(String, Vec<usize>)| match (precision.format_of(name), shape.as_slice()) {
        (Some(format), [out, input]) => format.bytes(*out, *input, cuda) as u64,
        _ => elements(shape) * stored(precision.dtype, shape).size_in_bytes() as u64,
    };
    shapes(config).iter().map(held).sum::<u64>() + precision.scratch_bytes(config, cuda)
}

/// Parameters in all tensors.
pub fn count(config: &LlamaConfig) -> u64 {
    shapes(config).iter().map(|(_, shape)| elements(shape)).sum()
}

pub(super) fn elements(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64))
}

/// Matrices are held as asked, vectors (norms, biases) in f32.
pub(super) fn stored(dtype: DType, shape: &[usize]) -> DType {
    if shape.len() == 1 { DType::F32 } else { dtype }
}

/// The tensors, or one error that tells of the first few failures.
pub(super) fn gather<T>(results: Vec<Result<(String, T)>>) -> Result<BTreeMap<String, T>> {
    let (tensors, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let messages: Vec<String> = errors.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
    if messages.is_empty() {
        Ok(tensors.into_iter().flatten().collect())
    } else {
        Err(Error::model(list(messages, "; ")))
    }
}

/// Compares the tensors found with those expected; ignores, with a warning, what is known to be superfluous.
pub(super) fn check_names(
    expected: &[(String, Vec<usize>)],
    found: &BTreeMap<&str, &[usize]>,
    config: &LlamaConfig,
) -> Result<()> {
    let mut problems = Vec::new();
    let missing: Vec<String> =
        expected.iter().map(|(name, _)| name).filter(|name| !found.contains_key(name.as_str())).cloned().collect();
    if !missing.is_empty() {
        problems.push(format!("missing tensors: {}", list(missing, ", ")));
    }
    let misshapen = expected.iter().filter_map(|(name, shape)| {
        let has = found.get(name.as_str())?;
        (*has != shape.as_slice()).then(|| format!("{name} has shape {has:?}, {shape:?} expected"))
    });
    let misshapen: Vec<String> = misshapen.collect();
    if !misshapen.is_empty() {
        problems.push(format!("misshapen tensors: {}", list(misshapen, "; ")));
    }
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let (ignored, unexpected): (Vec<&str>, Vec<&str>) =
        found.keys().filter(|name| !known.contains(*name)).partition(|name| superfluous(name, config));
    if !unexpected.is_empty() {
        problems.push(format!("unexpected tensors: {}", foreign::names(unexpected)));
    }
    if !problems.is_empty() {
        return Err(
            Error::model(problems.join("; ")).hint("do config.json and the weights belong to the same Llama model?")
        );
    }
    if !ignored.is_empty() {
        tracing::warn!("ignored tensors: {}", foreign::names(ignored));
    }
    Ok(())
}

/// Tensors old exports carry and no Llama needs.
fn superfluous(name: &str, config: &LlamaConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")
}

/// The first few of a list, and how many more there are.
fn list(items: Vec<String>, separator: &str) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let shown = items.into_iter().take(SHOWN).collect::<Vec<_>>().join(separator);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
