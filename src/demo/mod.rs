//! The embedded default: a tiny Llama pretrained on synthetic notes, the notes themselves, its tokenizer, and the
//! config that demonstrates the whole method on it. Layer 2 (data).
//!
//! Everything here is made by this project: `clsgen demo --pretrain DIR` makes the model again, from the seed in
//! `configs/demo-pretrain.toml`.

pub mod notes;
pub mod tokenizer;

use std::path::Path;

use crate::{
    error::Result,
    storage::{self, packed},
};

/// `configs/demo.toml`.
pub const CONFIG: &str = include_str!("../../configs/demo.toml");
/// `configs/demo-pretrain.toml`.
pub const PRETRAIN_CONFIG: &str = include_str!("../../configs/demo-pretrain.toml");
/// The prompt of the demonstration: the paper's, for LCD 30 days (A.4).
pub const PROMPT: (&str, &str) = ("lcd30.toml", include_str!("../../prompts/lcd30.toml"));
/// The same prompt for pretraining: the explanation is the teacher's whole answer.
pub const PRETRAIN_PROMPT: (&str, &str) = ("demo-pretrain.toml", include_str!("../../prompts/demo-pretrain.toml"));

/// The model's shape and settings, which pretraining starts from.
const SHAPE: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("model/config.json")),
    ("generation_config.json", include_bytes!("model/generation_config.json")),
    ("tokenizer_config.json", include_bytes!("model/tokenizer_config.json")),
];

/// What pretraining makes, packed: bf16 weights and a byte-level BPE tokenizer.
const LEARNED: [(&str, &[u8]); 2] =
    [("model.safetensors", packed!("model.safetensors")), ("tokenizer.json", packed!("tokenizer.json"))];

/// Writes the embedded model as a Hugging Face folder.
pub fn write_model(dir: &Path) -> Result<()> {
    storage::create_dir_all(dir)?;
    model_files()?.iter().try_for_each(|(name, bytes)| storage::write_file_atomic(&dir.join(name), bytes))
}

/// The files of the embedded model, a Hugging Face folder.
pub fn model_files() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files = shape_files();
    for (name, packed) in LEARNED {
        files.push((name, storage::unpack(packed)?));
    }
    Ok(files)
}

/// The same without what is learned: what `train.init = "random"` starts from, once a tokenizer is beside it.
pub fn shape_files() -> Vec<(&'static str, Vec<u8>)> {
    SHAPE.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect()
}
