//! The Llama: its tensors under their HF names, random initialisation, adapters, memory needs.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::{
    Footprint, LlamaConfig, ModelSource,
    adapter::{self, Adapter, LoraConfig},
    kv_cache::{self, BlockPool},
    layer::{DecoderLayer, Heads, Norm},
    precision::{BaseWeight, Precision},
    projection::Projection,
    tensor_spec, weights,
};
use crate::{
    config::Parameters,
    error::{Error, Result},
    ops::{Offsets, random, rope::Rope},
    rng::{Rng, hash_name, streams},
};

/// A Llama: base weights, and adapters once [`Llama::add_lora`] was called.
#[derive(Debug, Clone)]
pub struct Llama {
    /// Shape and constants.
    pub config: LlamaConfig,
    /// Shape of the adapters, when there are any.
    pub lora: Option<LoraConfig>,
    pub(super) device: Device,
    pub(super) rope: Rope,
    /// `(vocab, hidden)`.
    pub(super) embed_tokens: Tensor,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) norm: Norm,
    /// `(vocab, hidden)`; `None` when it is the embedding.
    pub(super) lm_head: Option<Tensor>,
    /// Blocks of its sequences' keys and values.
    pub(super) kv_pool: Arc<BlockPool>,
}

/// Which layers keep their activations for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationCheckpointing {
    /// All of them.
    Keep,
    /// None: each keeps its input and computes the rest again.
    Recompute,
    /// The last `n` (their gradients come first, so what they hold is freed first).
    KeepLast(usize),
}

impl Llama {
    /// Reads and checks a model's weights into a number type (F32 or BF16; norms and biases are always f32), the
    /// projections quantised if `precision` says so.
    pub fn load(source: &ModelSource, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let config = source.config()?;
        let tensors = weights::load(source, &config, precision.into(), device)?;
        Self::from_tensors(config, tensors, device)
    }

    /// Random weights (stream `MODEL_INIT`), matrices in `dtype` (F32 or BF16): normal with deviation 0.02, norms 1,
    /// biases 0, as transformers starts one.
    pub fn random(config: LlamaConfig, dtype: DType, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let rng = Rng::new(seed, streams::MODEL_INIT);
        let mut tensors = BTreeMap::new();
        for (name, shape) in tensor_spec::shapes(&config) {
            let tensor = match shape.len() {
                1 if name.ends_with("bias") => Tensor::zeros(shape, DType::F32, device)?,
                1 => Tensor::ones(shape, DType::F32, device)?,
                _ => random::normal(rng, hash_name(&name), 0.02, shape, dtype, device)?,
            };
            tensors.insert(name, tensor.into());
        }
        Self::from_tensors(config, tensors, device)
    }

    /// A model of tensors whose names and shapes are those of [`tensor_spec::shapes`].
    pub(super) fn from_tensors(
        config: LlamaConfig,
        mut tensors: BTreeMap<String, BaseWeight>,
        device: &Device,
    ) -> Result<Self> {
        let rope = Rope::new(config.rope, config.head_dim)?;
        let embed_tokens = take(&mut tensors, "model.embed_tokens.weight")?;
        let layers = (0..config.num_hidden_layers).map(|i| layer(&config, &mut tensors, i)).collect::<Result<_>>()?;
        let norm = norm(&config, &mut tensors, "model.norm.weight")?;
        let lm_head = if config.tie_word_embeddings { None } else { Some(take(&mut tensors, "lm_head.weight")?) };
        let kv_pool = Arc::new(BlockPool::new(&config, embed_tokens.dtype(), device));
        Ok(Self { config, lora: None, device: device.clone(), rope, embed_tokens, layers, norm, lm_head, kv_pool })
    }

    /// The same model elsewhere: matrices held as `dtype` (F32 or BF16) on `device`, vectors and adapters in f32. The
    /// base may share tensors with this one, adapters do not. A quantised model cannot be held otherwise.
    pub fn held_as(&self, dtype: DType, device: &Device) -> Result<Self> {
        let held = |(name, tensor): (String, Tensor)| {
            let dtype = if tensor.rank() == 1 { DType::F32 } else { dtype };
            Ok((name, tensor.to_dtype(dtype)?.to_device(device)?.into()))
        };
        let tensors = self.base_tensors().into_iter().map(held).collect::<Result<_>>()?;
        let mut llama = Self::from_tensors(self.config.clone(), tensors, device)?;
        if let Some(lora) = &self.lora {
            llama.add_lora(lora, 0)?;
            let from = self.adapter_tensors();
            let to = llama.adapter_tensors();
            from.iter()
                .zip(to.values())
                .try_for_each(|((_, from), to)| to.slice_set(&from.to_device(device)?, 0, 0))?;
        }
        Ok(llama)
    }

    /// Adds adapters: A Kaiming-uniform from stream `LORA_INIT`, B zero, so that the model's function does not change.
    pub fn add_lora(&mut self, lora: &LoraConfig, seed: u64) -> Result<()> {
        lora.check()?;
        let device = self.device.clone();
        for projection in self.layers.iter_mut().flat_map(DecoderLayer::projections_mut) {
            projection.adapter = if lora.targets.iter().any(|target| target == projection.kind()) {
                Some(Adapter::init(&projection.name, projection.weight.dims2()?, lora, seed, &device)?)
            } else {
                None
            };
        }
        self.lora = Some(lora.clone());
        Ok(())
    }

    /// Changes the dropout of every adapter's input: a setting of training, not of the weights.
    pub fn set_lora_dropout(&mut self, dropout: f64) {
        let adapters =
            self.layers.iter_mut().flat_map(DecoderLayer::projections_mut).filter_map(|p| p.adapter.as_mut());
        adapters.for_each(|adapter| adapter.dropout = dropout as f32);
        if let Some(lora) = &mut self.lora {
            lora.dropout = dropout;
        }
    }

    /// Handles of the adapters' tensors under PEFT's names, sharing storage with the model.
    pub fn adapter_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::new();
        for projection in self.layers.iter().flat_map(DecoderLayer::projections) {
            if let Some(adapter) = &projection.adapter {
                tensors.insert(adapter::name_a(&projection.name), adapter.a.clone());
                tensors.insert(adapter::name_b(&projection.name), adapter.b.clone());
            }
        }
        tensors
    }

    /// Handles of the base's tensors under HF's names, sharing storage with the model; a quantised matrix is not among
    /// them.
    pub fn base_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::from([
            ("model.embed_tokens.weight".to_string(), self.embed_tokens.clone()),
            (self.norm.name.clone(), self.norm.weight.clone()),
        ]);
        tensors.extend(self.lm_head.iter().map(|weight| ("lm_head.weight".to_string(), weight.clone())));
        for layer in &self.layers {
            for norm in [&layer.input_layernorm, &layer.post_attention_layernorm] {
                tensors.insert(norm.name.clone(), norm.weight.clone());
            }
            for projection in layer.projections() {
                let weight = projection.weight.whole();
                tensors.extend(weight.map(|weight| (format!("{}.weight", projection.name), weight.clone())));
                tensors.extend(projection.bias.iter().map(|bias| (format!("{}.bias", projection.name), bias.clone())));
            }
        }
        tensors
    }

    /// Handles of what `parameters` trains.
    pub(super) fn trainable(&self, parameters: Parameters) -> Result<BTreeMap<String, Tensor>> {
        match (parameters, &self.lora) {
            (Parameters::Lora, None) => Err(Error::run("train.parameters = \"lora\", and the model has no adapters")),
            (Parameters::Lora, Some(_)) => Ok(self.adapter_tensors()),
            (Parameters::Full, Some(_)) => Err(carries_adapter()),
            (Parameters::Full, None) if self.embed_tokens.dtype() != DType::F32 => {
                Err(Error::usage("train.parameters = \"full\" needs f32 weights").hint("set model.dtype = \"f32\""))
            }
            (Parameters::Full, None) => Ok(self.base_tensors()),
        }
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of its products' operands, and of what is not quantised.
    pub fn dtype(&self) -> DType {
        self.embed_tokens.dtype()
    }

    /// Bytes one token of a [`super::kv_cache::SequenceCache`] takes, where its block is full.
    pub fn kv_bytes_per_token(&self) -> usize {
        kv_cache::bytes_per_token(&self.config, self.dtype(), &self.device)
    }

    /// Tokens for which there are blocks in use.
    #[cfg(test)]
    pub(crate) fn kv_tokens_held(&self) -> usize {
        self.kv_pool.in_use() * crate::ops::kv_store::BLOCK
    }

    /// How the matrices are held.
    pub fn precision(&self) -> Precision {
        self.layers.first().map_or_else(|| self.dtype().into(), |layer| layer.q_proj.weight.precision())
    }

    /// What rows of a training pass take.
    pub fn footprint(&self) -> Footprint {
        Footprint::of(&self.config, self.precision(), self.device.is_cuda(), self.lora.as_ref())
    }

    /// The LM head's weight, tied or not.
    pub(super) fn lm_head_weight(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Refuses a batch with an empty sequence or of another length than its offsets.
    pub(super) fn check_batch(&self, ids: &[u32], offsets: &Offsets) -> Result<()> {
        if offsets.total() != ids.len() || offsets.count() == 0 || offsets.ranges().any(|range| range.is_empty()) {
            return Err(Error::run(format!(
                "a batch of {} tokens in {} sequences: every sequence needs a token",
                ids.len(),
                offsets.count()
            )));
        }
        Ok(())
    }
}

fn heads(config: &LlamaConfig) -> Heads {
    Heads { heads: config.num_attention_heads, kv_heads: config.num_key_value_heads, head_dim: config.head_dim }
}

fn take(tensors: &mut BTreeMap<String, BaseWeight>, name: &str) -> Result<Tensor> {
    take_weight(tensors, name)?.matrix()
}

fn take_weight(tensors: &mut BTreeMap<String, BaseWeight>, name: &str) -> Result<BaseWeight> {
    tensors.remove(name).ok_or_else(|| Error::model(format!("tensor {name} is missing")))
}

fn norm(config: &LlamaConfig, tensors: &mut BTreeMap<String, BaseWeight>, name: &str) -> Result<Norm> {
    Ok(Norm { name: name.to_string(), weight: take(tensors, name)?, eps: config.rms_norm_eps })
}

fn projection(tensors: &mut BTreeMap<String, BaseWeight>, name: String) -> Result<Projection> {
    let weight = take_weight(tensors, &format!("{name}.weight"))?;
    let bias = tensors.remove(&format!("{name}.bias")).map(|bias| bias.matrix()).transpose()?;
    Ok(Projection { name, weight, bias, adapter: None })
}

fn layer(config: &LlamaConfig, tensors: &mut BTreeMap<String, BaseWeight>, i: usize) -> Result<DecoderLayer> {
    let name = |part: &str| format!("model.layers.{i}.{part}");
    Ok(DecoderLayer {
        heads: heads(config),
        input_layernorm: norm(config, tensors, &name("input_layernorm.weight"))?,
        q_proj: projection(tensors, name("self_attn.q_proj"))?,
        k_proj: projection(tensors, name("self_attn.k_proj"))?,
        v_proj: projection(tensors, name("self_attn.v_proj"))?,
        o_proj: projection(tensors, name("self_attn.o_proj"))?,
        post_attention_layernorm: norm(config, tensors, &name("post_attention_layernorm.weight"))?,
        gate_proj: projection(tensors, name("mlp.gate_proj"))?,
        up_proj: projection(tensors, name("mlp.up_proj"))?,
        down_proj: projection(tensors, name("mlp.down_proj"))?,
    })
}

/// Full training of what is a base and an adapter (exit 2).
pub fn carries_adapter() -> Error {
    Error::usage("train.parameters = \"full\" cannot train a model that carries an adapter")
        .hint("start from the base model, or set train.parameters = \"lora\"")
}
