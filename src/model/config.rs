//! `config.json` of a Llama, in the forms that transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`)
//! write. Known variants that are not implemented are errors; other unknown keys are ignored.

use std::path::Path;

use candle_core::DType;
use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result, ResultExt},
    foreign,
    ops::rope::{Rope, RopeParameters, RopeScaling},
};

/// Hyperparameters of a Llama model, under Hugging Face's names except `rope` and `eos_token_ids`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Vocabulary size: rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// The rotary embedding.
    pub rope: RopeParameters,
    /// Longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    /// q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// The LM head shares the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Begin-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// End-of-sequence tokens: config.json holds one id or a list.
    pub eos_token_ids: Vec<u32>,
}

impl LlamaConfig {
    /// Reads `config.json`.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_keys(path).or_hint(
            "models of Llama's architecture are read, with config.json as Hugging Face writes it: fetch the folder \
            again, or name another model",
        )
    }

    fn read_keys(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = foreign::read_text(path, foreign::SMALL)
            .map_err(|e| Error::model(format!("cannot read {name}: {}", crate::storage::reason(&e))))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| Error::model(format!("{name} is not JSON: {}", foreign::reason(&e))))?;
        let Value::Object(keys) = json else { return Err(Error::model(format!("{name} is not a JSON object"))) };
        Self::parse(&keys).map_err(|e| e.context(name))
    }

    /// From the keys of `config.json`.
    pub fn parse(keys: &Map<String, Value>) -> Result<Self> {
        refuse_other_models(keys)?;
        let config = Self {
            vocab_size: size(keys, "vocab_size")?,
            hidden_size: size(keys, "hidden_size")?,
            intermediate_size: size(keys, "intermediate_size")?,
            num_hidden_layers: size(keys, "num_hidden_layers")?,
            num_attention_heads: size(keys, "num_attention_heads")?,
            num_key_value_heads: optional(keys, "num_key_value_heads", Value::as_u64)?
                .map_or_else(|| size(keys, "num_attention_heads"), |n| Ok(n as usize))?,
            head_dim: optional(keys, "head_dim", Value::as_u64)?.map_or_else(
                || Ok(size(keys, "hidden_size")? / size(keys, "num_attention_heads")?.max(1)),
                |n| Ok::<_, Error>(n as usize),
            )?,
            rms_norm_eps: optional(keys, "rms_norm_eps", Value::as_f64)?.unwrap_or(1e-6),
            rope: rope(keys)?,
            max_position_embeddings: optional(keys, "max_position_embeddings", Value::as_u64)?.unwrap_or(2048) as usize,
            attention_bias: optional(keys, "attention_bias", Value::as_bool)?.unwrap_or(false),
            mlp_bias: optional(keys, "mlp_bias", Value::as_bool)?.unwrap_or(false),
            tie_word_embeddings: optional(keys, "tie_word_embeddings", Value::as_bool)?.unwrap_or(false),
            bos_token_id: ids(keys, "bos_token_id")?.first().copied(),
            eos_token_ids: ids(keys, "eos_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Usage error (exit 2) if input + output tokens exceed `max_position_embeddings`, unless `allow_long`.
    pub fn check_window(&self, input: usize, output: usize, allow_long: bool) -> Result<()> {
        let positions = self.max_position_embeddings;
        if allow_long || input.saturating_add(output) <= positions {
            return Ok(());
        }
        Err(Error::usage(format!(
            "a window of {input} + {output} tokens (max_input_tokens + max_output_tokens) is beyond the model's \
             max_position_embeddings = {positions}"
        ))
        .hint("lower the window, or insist with --set model.allow_long=true"))
    }

    /// Checks sizes and constants. The upper bounds, far beyond any model there is, catch files that are damaged or
    /// made to exhaust memory: every product of sizes below them fits 64 bits.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 11),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 31),
        ];
        if let Some((name, size, _)) = sizes.iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(Error::model(format!("{name} = {size} is out of range")));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Error::model(format!(
                "num_attention_heads = {} is not a multiple of num_key_value_heads = {}",
                self.num_attention_heads, self.num_key_value_heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::model(format!("head_dim = {} is odd", self.head_dim)));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(Error::model(format!("rms_norm_eps = {} is not between 0 and 1", self.rms_norm_eps)));
        }
        Rope::new(self.rope, self.head_dim).map(drop)
    }

    /// Whether two models have the same tensors and compute the same from them; special tokens and the trained length
    /// are not compared.
    pub fn same_architecture(&self, other: &Self) -> bool {
        let other = Self {
            bos_token_id: self.bos_token_id,
            eos_token_ids: self.eos_token_ids.clone(),
            max_position_embeddings: self.max_position_embeddings,
            ..other.clone()
        };
        *self == other
    }

    /// As a `config.json` that transformers 4 and 5 both read.
    pub fn to_json(&self, dtype: DType) -> Value {
        let scaling = match self.rope.scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
        };
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers, "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads, "head_dim": self.head_dim, "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings, "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta, "rope_scaling": scaling,
            "attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id, "eos_token_id": self.eos_token_ids,
            "torch_dtype": if dtype == DType::BF16 { "bfloat16" } else { "float32" },
        })
    }
}

/// Other architectures, and variants of a Llama that compute something else.
fn refuse_other_models(keys: &Map<String, Value>) -> Result<()> {
    let hint = "clsgen fine-tunes Llama-architecture models (model_type \"llama\")";
    let model_type = keys.get("model_type").and_then(Value::as_str).unwrap_or("absent");
    if model_type != "llama" {
        let model_type = foreign::name(model_type);
        return Err(Error::model(format!("model_type is \"{model_type}\", not \"llama\"")).hint(hint));
    }
    let architectures: Vec<&str> =
        keys.get("architectures").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !architectures.is_empty() && !architectures.contains(&"LlamaForCausalLM") {
        return Err(
            Error::model(format!("architecture is {}, not LlamaForCausalLM", foreign::names(architectures))).hint(hint)
        );
    }
    let activation = keys.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
    if activation != "silu" {
        let activation = foreign::name(activation);
        return Err(Error::model(format!("hidden_act is \"{activation}\"; only \"silu\" is supported")));
    }
    if keys.get("quantization_config").is_some_and(|value| !value.is_null()) {
        return Err(Error::model("the weights are quantized (quantization_config)")
            .hint("use the unquantized model, or a .gguf file"));
    }
    let parts = [keys, keys.get("rope_parameters").and_then(Value::as_object).unwrap_or(keys)];
    if parts.iter().any(|keys| keys.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|f| f != 1.0)) {
        return Err(Error::model("partial_rotary_factor other than 1 is not supported"));
    }
    Ok(())
}

/// `rope_parameters` (v5), or `rope_theta` and `rope_scaling` (v4).
fn rope(keys: &Map<String, Value>) -> Result<RopeParameters> {
    let object = |name: &str| keys.get(name).and_then(Value::as_object);
    let empty = Map::new();
    let parameters = object("rope_parameters").or_else(|| object("rope_scaling")).unwrap_or(&empty);
    let theta = match optional(parameters, "rope_theta", Value::as_f64)? {
        Some(theta) => theta,
        None => optional(keys, "rope_theta", Value::as_f64)?.unwrap_or(10_000.0),
    };
    let number = |name: &str| {
        let value = optional(parameters, name, Value::as_f64)?
            .ok_or_else(|| Error::model(format!("rope parameter {name} is missing")))?;
        if value > 0.0 && value.is_finite() {
            Ok(value)
        } else {
            Err(Error::model(format!("rope parameter {name} = {value} is out of range")))
        }
    };
    let kind = ["rope_type", "type"]
        .iter()
        .find_map(|name| parameters.get(*name).and_then(Value::as_str))
        .unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: number("original_max_position_embeddings")? as usize,
        },
        other => {
            return Err(Error::model(format!("rope type \"{}\" is not supported", foreign::name(other)))
                .hint("supported: default, linear, llama3"));
        }
    };
    Ok(RopeParameters { theta, scaling })
}

/// A key's value of the right type; absent and null are `None`.
fn optional<T>(keys: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
    match keys.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| Error::model(format!("{name} has the wrong type"))),
    }
}

fn size(keys: &Map<String, Value>, name: &str) -> Result<usize> {
    let value = optional(keys, name, Value::as_u64)?.ok_or_else(|| Error::model(format!("{name} is missing")))?;
    Ok(value as usize)
}

/// A token id, or a list of them.
fn ids(keys: &Map<String, Value>, name: &str) -> Result<Vec<u32>> {
    let read = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let list = optional(keys, name, |value| match value {
        Value::Array(items) => items.iter().map(read).collect(),
        one => read(one).map(|id| vec![id]),
    })?;
    Ok(list.unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two layers, grouped queries, biases, untied.
    pub fn tiny() -> LlamaConfig {
        LlamaConfig {
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 10,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            rms_norm_eps: 1e-5,
            rope: RopeParameters { theta: 100.0, scaling: RopeScaling::None },
            max_position_embeddings: 64,
            attention_bias: true,
            mlp_bias: true,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
        }
    }

    fn read(json: Value) -> Result<LlamaConfig> {
        LlamaConfig::parse(json.as_object().unwrap())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        for scaling in [RopeScaling::None, RopeScaling::Linear { factor: 2.0 }, llama3] {
            let config =
                LlamaConfig { rope: RopeParameters { theta: 5e5, scaling }, eos_token_ids: vec![2, 9], ..tiny() };
            assert_eq!(read(config.to_json(DType::F32)).unwrap(), config);
        }
    }

    #[test]
    fn llama_3_1_reads_the_same_from_version_4_and_version_5() {
        let mut v4 = tiny().to_json(DType::BF16);
        v4["rope_theta"] = json!(500000.0);
        v4["rope_scaling"] = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"});
        let mut v5 = v4.clone();
        let keys = v5.as_object_mut().unwrap();
        keys.remove("rope_theta");
        keys.remove("torch_dtype");
        let mut rope = keys.remove("rope_scaling").unwrap();
        rope["rope_theta"] = json!(500000.0);
        keys.insert("rope_parameters".into(), rope);
        keys.insert("dtype".into(), json!("bfloat16"));
        assert_eq!(read(v4).unwrap(), read(v5).unwrap());
    }

    #[test]
    fn absent_keys_take_transformers_defaults() {
        let config = read(json!({"model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 4, "eos_token_id": 2}))
        .unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim, config.rms_norm_eps), (4, 8, 1e-6));
        assert_eq!(config.rope, RopeParameters { theta: 10_000.0, scaling: RopeScaling::None });
        assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
        assert_eq!(config.eos_token_ids, [2]);
    }
}
