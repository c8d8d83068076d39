//! A llama.cpp `.gguf` file as a base model: its metadata is the config, its tensors are dequantized once.
//!
//! llama.cpp stores q and k with each head's channels interleaved (its rotary layout pairs neighbours); HF's layout
//! pairs channel c with c + head_dim/2, so rows are put back. `rope_freqs.weight` holds what Llama 3's rope scaling
//! makes of the inverse frequencies; it is matched against the published settings.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::BufReader,
    path::Path,
};

use candle_core::{
    DType, Device, Tensor,
    quantized::gguf_file::{Content, Value},
};

use super::{LlamaConfig, precision::BaseWeight, safetensors::to_tensor, tensor_spec};
use crate::{
    error::{Error, Result, ResultExt},
    foreign,
    ops::rope::{Rope, RopeParameters, RopeScaling},
    prompt::gguf::open,
};

/// A tensor's numbers, or why there are none. candle panics on some bytes that no quantizer writes.
fn dequantized(content: &Content, reader: &mut BufReader<File>, name: &str) -> Result<Tensor, String> {
    let read = || content.tensor(reader, name, &Device::Cpu)?.dequantize(&Device::Cpu);
    match foreign::caught(read) {
        Some(read) => read.map_err(|e| foreign::reason(&e)),
        None => Err("its blocks are damaged".into()),
    }
}

/// The model's shape, from the metadata.
pub(super) fn config(path: &Path) -> Result<LlamaConfig> {
    let (mut reader, content) = open(path)?;
    let config = parse(&content, &mut reader).and_then(|config| config.check().map(|()| config));
    config
        .context(path.display())
        .or_hint("name a GGUF file of Llama's architecture, or the model's safetensors folder")
}

fn parse(content: &Content, reader: &mut BufReader<File>) -> Result<LlamaConfig> {
    let meta = Metadata(&content.metadata);
    let architecture = meta.text("general.architecture").unwrap_or("absent");
    if architecture != "llama" {
        let architecture = foreign::name(architecture);
        return Err(Error::model(format!("architecture is \"{architecture}\", not \"llama\"")));
    }
    let hidden_size = meta.size("llama.embedding_length")?;
    let heads = meta.size("llama.attention.head_count")?;
    let head_dim = meta.size("llama.attention.key_length").or_else(|_| meta.size("llama.rope.dimension_count"));
    let head_dim = head_dim.unwrap_or(hidden_size / heads.max(1));
    if meta.size("llama.expert_count").is_ok_and(|n| n > 0) {
        return Err(Error::model("mixtures of experts are not supported"));
    }
    let embedding = content
        .tensor_infos
        .get("token_embd.weight")
        .ok_or_else(|| Error::model("tensor token_embd.weight is missing"))?;
    Ok(LlamaConfig {
        vocab_size: embedding.shape.dims().first().copied().unwrap_or(0),
        hidden_size,
        intermediate_size: meta.size("llama.feed_forward_length")?,
        num_hidden_layers: meta.size("llama.block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: meta.size("llama.attention.head_count_kv").unwrap_or(heads),
        head_dim,
        rms_norm_eps: meta.number("llama.attention.layer_norm_rms_epsilon").map(shortest)?,
        rope: rope(&meta, content, reader, head_dim)?,
        max_position_embeddings: meta.size("llama.context_length").unwrap_or(2048),
        attention_bias: content.tensor_infos.contains_key("blk.0.attn_q.bias"),
        mlp_bias: content.tensor_infos.contains_key("blk.0.ffn_gate.bias"),
        tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
        bos_token_id: meta.size("tokenizer.ggml.bos_token_id").ok().and_then(|id| u32::try_from(id).ok()),
        eos_token_ids: meta
            .size("tokenizer.ggml.eos_token_id")
            .into_iter()
            .filter_map(|id| u32::try_from(id).ok())
            .collect(),
    })
}

/// An f32 as the f64 one would write for it (1e-5, not 9.999999747e-6), as config.json holds it.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

struct Metadata<'a>(&'a HashMap<String, Value>);

impl Metadata<'_> {
    fn size(&self, key: &str) -> Result<usize> {
        let value = self.0.get(key).ok_or_else(|| Error::model(format!("{key} is missing")))?;
        let value = value
            .to_u64()
            .or_else(|_| value.to_i64().map(|v| v.max(0) as u64))
            .or_else(|_| value.to_u32().map(u64::from));
        value.map(|v| v as usize).map_err(|_| Error::model(format!("{key} is not one whole number")))
    }

    fn number(&self, key: &str) -> Result<f64> {
        let value = self.0.get(key).ok_or_else(|| Error::model(format!("{key} is missing")))?;
        value
            .to_f32()
            .map(f64::from)
            .or_else(|_| value.to_f64())
            .map_err(|_| Error::model(format!("{key} is not a number")))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_string().ok().map(String::as_str)
    }
}

fn rope(meta: &Metadata, content: &Content, reader: &mut BufReader<File>, head_dim: usize) -> Result<RopeParameters> {
    let theta = meta.number("llama.rope.freq_base").map(shortest).unwrap_or(10_000.0);
    let plain = RopeParameters { theta, scaling: RopeScaling::None };
    if content.tensor_infos.contains_key("rope_freqs.weight") {
        let factors = dequantized(content, reader, "rope_freqs.weight")
            .map_err(|e| Error::model(format!("tensor rope_freqs.weight: {e}")))?;
        return llama3(plain, &factors.flatten_all()?.to_vec1::<f32>()?, head_dim);
    }
    // llama.cpp's defaults: the type is linear, the factor 1; it had another name once. 0 stands for 1.
    let names = ["llama.rope.scaling.factor", "llama.rope.scale_linear"];
    let factor = names.into_iter().find(|name| meta.0.contains_key(*name)).map(|name| meta.number(name)).transpose()?;
    match meta.text("llama.rope.scaling.type") {
        Some("none") => Ok(plain),
        None | Some("linear") => match factor.filter(|factor| ![0.0, 1.0].contains(factor)) {
            Some(factor) => Ok(RopeParameters { theta, scaling: RopeScaling::Linear { factor } }),
            None => Ok(plain),
        },
        Some(other) => Err(Error::model(format!("rope scaling \"{}\" is not supported", foreign::name(other)))),
    }
}

/// The published Llama 3.1 (factor 8) or 3.2 (factor 32) setting whose inverse frequencies are 1/factors of the plain
/// ones.
fn llama3(plain: RopeParameters, factors: &[f32], head_dim: usize) -> Result<RopeParameters> {
    let base = Rope::new(plain, head_dim)?;
    for factor in [8.0, 32.0] {
        let scaling = RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let candidate = RopeParameters { scaling, ..plain };
        let scaled = Rope::new(candidate, head_dim)?;
        let near = |((base, scaled), factor): ((&f32, &f32), &f32)| (base / factor / scaled - 1.0).abs() < 1e-4;
        if factors.len() == head_dim / 2 && base.inv_freq().iter().zip(scaled.inv_freq()).zip(factors).all(near) {
            return Ok(candidate);
        }
    }
    Err(Error::model("rope_freqs.weight holds an unknown rope scaling").hint("use the model's safetensors files"))
}

/// Reads and dequantizes every tensor of `config`, held as `stored(shape)`.
pub(super) fn load(
    path: &Path,
    config: &LlamaConfig,
    stored: impl Fn(&[usize]) -> DType,
    hold: impl Fn(&str, Tensor) -> Result<BaseWeight>,
) -> Result<BTreeMap<String, BaseWeight>> {
    let (mut reader, content) = open(path)?;
    let mut found = BTreeMap::new();
    for (name, info) in content.tensor_infos.iter().filter(|(name, _)| *name != "rope_freqs.weight") {
        found.insert(hf_name(name).unwrap_or_else(|| name.clone()), (name, info.shape.dims()));
    }
    let expected = tensor_spec::shapes(config);
    let found_shapes = found.iter().map(|(hf, (_, shape))| (hf.as_str(), *shape)).collect();
    tensor_spec::check_names(&expected, &found_shapes, config).map_err(|e| e.context(path.display()))?;
    let mut results = Vec::with_capacity(expected.len());
    for (hf, shape) in expected {
        let failed = |what: String| Error::model(format!("{}: tensor {hf}: {what}", path.display()));
        let Some((name, _)) = found.get(&hf) else { return Err(failed("missing".into())) };
        let tensor = pair_halves(&hf, dequantized(&content, &mut reader, name).map_err(failed)?, config)?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let tensor = to_tensor(values, &shape, stored(&shape), &Device::Cpu)?
            .ok_or_else(|| failed("holds NaN or infinite values".into()));
        results.push(tensor.and_then(|tensor| Ok((hf.clone(), hold(&hf, tensor)?))));
    }
    tensor_spec::gather(results)
}

/// Undoes llama.cpp's reordering of q and k rows: `(heads, head_dim/2, 2)` → `(heads, 2, head_dim/2)`.
fn pair_halves(name: &str, tensor: Tensor, config: &LlamaConfig) -> Result<Tensor> {
    let heads = match name {
        name if name.contains("q_proj") => config.num_attention_heads,
        name if name.contains("k_proj") => config.num_key_value_heads,
        _ => return Ok(tensor),
    };
    let shape = tensor.dims().to_vec();
    Ok(tensor.reshape((heads, config.head_dim / 2, 2, ()))?.transpose(1, 2)?.contiguous()?.reshape(shape)?)
}

/// HF's name of a llama.cpp tensor.
fn hf_name(name: &str) -> Option<String> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let whole = match stem {
        "token_embd" => Some("model.embed_tokens"),
        "output_norm" => Some("model.norm"),
        "output" => Some("lm_head"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(format!("{whole}.{suffix}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_factors_of_llama_3_1_and_3_2_are_recognised() {
        let plain = RopeParameters { theta: 5e5, scaling: RopeScaling::None };
        for factor in [8.0, 32.0] {
            let scaling = RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            };
            let wanted = RopeParameters { scaling, ..plain };
            let base = Rope::new(plain, 128).unwrap();
            let scaled = Rope::new(wanted, 128).unwrap();
            let factors: Vec<f32> =
                base.inv_freq().iter().zip(scaled.inv_freq()).map(|(base, scaled)| base / scaled).collect();
            assert_eq!(llama3(plain, &factors, 128).unwrap(), wanted);
            assert_eq!(llama3(plain, &factors[..63], 128).unwrap_err().exit_code(), 4);
        }
        assert_eq!(llama3(plain, &[1.5; 64], 128).unwrap_err().exit_code(), 4);
    }
}
