//! The model: a Llama with LoRA adapters, its LM head and the classification head. Layer 3.
//!
//! ```text
//! ids ─▶ embed_tokens ─▶ layers ─▶ norm ─▶ hidden_states
//!     rows that predict a target ─▶ lm_head ─▶ (rows, vocab)
//!     row t_n, the prompt's last ─▶ cls_head ─▶ (1, classes)
//! ```
//!
//! [`source`] finds the files, [`config`] and `weights` check them, [`llama`] computes (training: forward and its
//! hand-written backward; inference: prefill and decode over a [`kv_cache`]), [`peft`] and [`checkpoint`] store.

pub mod adapter;
pub mod checkpoint;
pub mod config;
pub mod footprint;
mod gguf;
pub mod head;
mod hub;
mod inference;
pub mod kv_cache;
mod layer;
pub mod llama;
mod loading;
pub mod merge;
mod mmap;
pub mod peft;
mod precision;
mod projection;
mod read_rows;
mod rounded;
mod safetensors;
pub mod source;
pub mod tensor_spec;
pub mod tokenizer;
pub mod training;
pub mod weights;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::{config::Parameters, error::Result, parallel::Collective};

pub use adapter::{LoraConfig, LoraDropout};
pub use config::LlamaConfig;
pub use footprint::Footprint;
pub use head::ClsHead;
pub use llama::{ActivationCheckpointing, Llama, carries_adapter};
pub use loading::Loading;
pub use precision::Precision;
pub use safetensors::{load as load_tensors, save as save_tensors};
pub use source::ModelSource;
pub use training::{Saved, TrainingContext};

/// Gradients by tensor name, walked in name order.
pub type Gradients = BTreeMap<String, Tensor>;

/// Adds `gradient` to what `gradients` holds under `name`.
pub fn accumulate(gradients: &mut Gradients, name: &str, gradient: Tensor) -> Result<()> {
    let sum = match gradients.remove(name) {
        Some(held) => (held + gradient)?,
        None => gradient,
    };
    gradients.insert(name.to_string(), sum);
    Ok(())
}

/// A language model and its classification head.
#[derive(Debug)]
pub struct Model {
    /// The language model, adapters included.
    pub llama: Llama,
    /// The classification head.
    pub head: ClsHead,
    /// Other ranks that hold the same and answer with it.
    pub replicas: Option<Replicas>,
}

/// The ranks of a job that each read the same model, to answer what rank 0 asks.
#[derive(Debug, Clone)]
pub struct Replicas {
    /// The ranks.
    pub ranks: Collective,
    /// Which of the models that rank 0 had them read.
    pub opening: usize,
}

impl Model {
    /// A model of this process alone.
    pub fn new(llama: Llama, head: ClsHead) -> Self {
        Self { llama, head, replicas: None }
    }

    /// A base model as it is, with a head that is never asked: teachers, judges and prompted baselines only write.
    pub fn base(source: &ModelSource, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let llama = Llama::load(source, precision, device)?;
        let head = ClsHead::new(llama.config.hidden_size, 1, 2, Default::default(), 0.0, 0, device)?;
        Ok(Self::new(llama, head))
    }

    /// Handles of everything trained, by name: PEFT's names for adapters, HF's for base weights, `cls_head.…` for the
    /// head.
    ///
    /// The tensors share storage with the model, so an in-place optimizer step changes the model.
    pub fn trainable(&self, parameters: Parameters) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.llama.trainable(parameters)?;
        tensors.extend(self.head.tensors().map(|(name, tensor)| (format!("cls_head.{name}"), tensor.clone())));
        Ok(tensors)
    }
}
