//! The model's part of a checkpoint directory: `clsgen.json`, adapter, head; or a whole HF folder.

use std::path::Path;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{Model, ModelSource};
use crate::{config::Truncate, error::Result, storage::AtomicDir};

/// Shape of the head, as `clsgen.json` holds it.
pub type HeadShape = crate::config::Head;

/// `clsgen.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClsgenJson {
    /// 1.
    pub schema: u32,
    /// Base model: hub id or path.
    pub base_model: String,
    /// Its [`ModelSource::hash`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
    /// Verbalized labels.
    pub labels: [String; 2],
    /// The prompt file's keys.
    pub prompt: serde_json::Value,
    /// Shape of the head.
    pub head: HeadShape,
    /// Window of the prompt.
    pub max_input_tokens: usize,
    /// Window of the answer.
    pub max_output_tokens: usize,
    /// Which part of a too-long document goes.
    #[serde(default)]
    pub truncate: Truncate,
    /// Version of clsgen that wrote it.
    #[serde(default)]
    pub clsgen_version: String,
}

/// A checkpoint, ready to predict.
#[derive(Debug)]
pub struct LoadedModel {
    /// Base, adapters and head.
    pub model: Model,
    /// Where the base (and the tokenizer) came from.
    pub source: ModelSource,
    /// What the checkpoint says of itself.
    pub info: ClsgenJson,
}

/// Reads a checkpoint directory's model; `base` overrides its `base_model`.
pub fn load_model(dir: &Path, base: Option<&str>, search: &[&Path], dtype: DType, device: &Device) -> Result<LoadedModel> {
    let _ = (dir, base, search, dtype, device);
    todo!()
}

/// Reads the adapter and head of `dir` into a model of the same base (`train.init_from`).
pub fn load_into(model: &mut Model, dir: &Path) -> Result<()> {
    let _ = (model, dir);
    todo!()
}

/// Writes the model's files of a checkpoint: adapter (or, under `Parameters::Full`, the HF folder), head, `clsgen.json`.
pub fn write_model_files(
    dir: &AtomicDir,
    model: &Model,
    source: &ModelSource,
    info: &ClsgenJson,
    parameters: crate::config::Parameters,
) -> Result<()> {
    let _ = (dir, model, source, info, parameters);
    todo!()
}
