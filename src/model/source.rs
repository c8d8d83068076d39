//! From what a user writes in `model.base` to files on this machine: a directory, a hub id in the local cache, a `.gguf`.

use std::path::{Path, PathBuf};

use crate::error::Result;

/// A model found on this machine.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The model's directory, or the `.gguf` file.
    pub path: PathBuf,
}

/// Finds `base`: an absolute path, a path relative to one of `search`, then a hub id in the local cache (downloaded only under `allow_network`).
pub fn resolve(base: &str, search: &[&Path], allow_network: bool) -> Result<ModelSource> {
    let _ = (base, search, allow_network);
    todo!()
}

impl ModelSource {
    /// The directory that holds tokenizer and chat template.
    pub fn tokenizer_dir(&self) -> &Path {
        todo!()
    }

    /// BLAKE3 over config and weights.
    pub fn hash(&self) -> Result<String> {
        todo!()
    }
}
