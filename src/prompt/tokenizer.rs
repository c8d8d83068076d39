//! Text to ids and back.

use std::path::Path;

use crate::error::{Error, Result};

/// The bytes a tokenizer is made from, wherever they lie: a model folder, the binary itself, a GGUF's metadata.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<Vec<u8>>,
    /// `chat_template.jinja`
    pub chat_template: Option<String>,
    /// `generation_config.json`
    pub generation_config: Option<Vec<u8>>,
    /// `config.json`
    pub config: Option<Vec<u8>>,
}

/// A model's tokenizer with its control tokens kept apart from text.
pub struct TextTokenizer {
    vocab_size: usize,
    eog: u32,
    stop_ids: Vec<u32>,
}

impl TextTokenizer {
    /// Reads a model folder.
    pub fn load(_dir: &Path) -> Result<Self> {
        todo!()
    }

    /// From bytes in memory.
    pub fn from_files(_files: &TokenizerFiles) -> Result<Self> {
        todo!()
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a generation: `tokenizer_config.eos_token`.
    pub fn eog(&self) -> u32 {
        self.eog
    }

    /// Every token that stops a generation, [`TextTokenizer::eog`] among them, ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Plain text to ids: no control tokens, nothing put before or after (constrained decoding writes the verdict line with it).
    pub fn encode(&self, _text: &str) -> Result<Vec<u32>> {
        todo!()
    }

    /// The text of ids, special tokens left out.
    pub fn decode(&self, _ids: &[u32]) -> String {
        todo!()
    }

    /// Refuses a tokenizer with ids beyond the model's vocabulary (exit 4).
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        if self.vocab_size > model_vocab {
            return Err(Error::model(format!(
                "the tokenizer has ids up to {}, the model's vocabulary ends at {model_vocab}",
                self.vocab_size - 1
            )));
        }
        Ok(())
    }
}
