//! From a record to prompt and target ids.

use std::{fmt, sync::Arc};

use super::{PromptTemplate, TextTokenizer};
use crate::{config::Truncate, data::Record, error::Result};

/// A record's prompt. `Debug` prints counts only: ids are the note's text in another alphabet.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids; the last one is t_n.
    pub ids: Vec<u32>,
    /// Tokens by which the prompt was shortened.
    pub truncated_tokens: usize,
}

/// What a record teaches the model to write. `Debug` prints counts only.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Token ids; the last one is EOG.
    pub ids: Vec<u32>,
    /// Tokens by which the explanation was shortened.
    pub truncated_tokens: usize,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt").field("tokens", &self.ids.len()).field("truncated_tokens", &self.truncated_tokens).finish()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("tokens", &self.ids.len()).field("truncated_tokens", &self.truncated_tokens).finish()
    }
}

/// Makes prompts and targets for one task and one model.
pub struct Prompter {
    template: PromptTemplate,
    tokenizer: Arc<TextTokenizer>,
    labels: [String; 2],
}

impl Prompter {
    /// Renders the template once and checks that it fits the window without a document (exit 2 otherwise).
    pub fn new(
        _template: PromptTemplate,
        _tokenizer: Arc<TextTokenizer>,
        _labels: [String; 2],
        _max_input_tokens: usize,
        _max_output_tokens: usize,
        _truncate: Truncate,
    ) -> Result<Self> {
        todo!()
    }

    /// The prompt of a record, its document cut where it does not fit.
    pub fn prompt(&self, _record: &Record) -> Result<Prompt> {
        todo!()
    }

    /// The target for an explanation and a class, the explanation's end cut where it does not fit.
    pub fn target(&self, _explanation: &str, _class: u8) -> Result<Target> {
        todo!()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// The prompt file's keys.
    pub fn template(&self) -> &PromptTemplate {
        &self.template
    }

    /// The verbalized labels of class 0 and class 1.
    pub fn labels(&self) -> &[String; 2] {
        &self.labels
    }
}
