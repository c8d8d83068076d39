//! Token probability of the label (SPEC A29): what the base model would give the labels, without writing a word.
//!
//! The prompt is the task's own with `Classification:` (the opening of its verdict) in place of its generation prefix.
//! Every label is read as it would follow it, ` <label>` tokenised apart (in a byte-level BPE a word carries its
//! leading space; a prefix that ended in one would leave a lone-space token that no such text has). With `l_c` the sum
//! of the log-probabilities of label c's tokens, `probability = softmax(l)_1` (of more than two classes, all of
//! softmax(l)). Sums are not divided by length: they are what the model would have to write.

use super::{Line, Run};
use crate::{
    data::Record,
    error::Result,
    generate::{PrefixCache, continuations::log_probabilities},
    metrics::softmax,
    model::Llama,
    prompt::{PromptTemplate, Prompter},
};

/// The task's prompt, its prefix replaced by the opening of a verdict.
pub fn token_prompt(own: &PromptTemplate) -> Result<PromptTemplate> {
    Ok(PromptTemplate { prefix: own.verdict()?.opening().to_owned(), ..own.clone() })
}

/// Scores records with one model and prompt.
pub struct TokenAsker<'a> {
    llama: &'a Llama,
    prompter: &'a Prompter,
    /// Token ids of ` <label>`, by class.
    labels: Vec<Vec<u32>>,
    prefixes: PrefixCache,
}

impl<'a> TokenAsker<'a> {
    /// `prompter` holds a [`token_prompt`].
    pub fn new(llama: &'a Llama, prompter: &'a Prompter) -> Result<Self> {
        let labels = prompter
            .labels()
            .iter()
            .map(|label| prompter.tokenizer().encode(&prompter.verdict().ending(label)))
            .collect::<Result<_>>()?;
        Ok(Self { llama, prompter, labels, prefixes: PrefixCache::default() })
    }

    /// The probability of each class (of two: of class 1) for one record.
    pub fn ask(&mut self, record: &Record) -> Result<Line> {
        let prompt = self.prompter.prompt(record)?;
        let log_p = log_probabilities(self.llama, &mut self.prefixes, &prompt.ids, &self.labels)?;
        Ok(Line {
            id: record.id.clone(),
            label: record.label,
            prompt_tokens: prompt.ids.len(),
            truncated_tokens: prompt.truncated_tokens,
            runs: vec![Run::of_probabilities(softmax(&log_p))],
        })
    }
}
