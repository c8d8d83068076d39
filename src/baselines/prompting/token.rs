//! Token probability of the label: what the base model would give the labels, without writing a word.
//!
//! The prompt is the task's own with `Classification:` (the opening of its verdict) in place of its generation prefix.
//! Every label is read as it would follow it, ` <label>` tokenised apart (in a byte-level BPE a word carries its
//! leading space; a prefix that ended in one would leave a lone-space token that no such text has). With `l_c` the sum
//! of the log-probabilities of label c's tokens, `probability = softmax(l)_1` (of more than two classes, all of
//! softmax(l)). Sums are not divided by length: they are what the model would have to write.

use std::{cell::RefCell, collections::VecDeque};

use super::{BaselineAnswer, BaselineRecord, Writer};
use crate::{
    data::Record,
    error::Result,
    generate::{Request, Sampling},
    metrics::softmax,
    prompt::{PromptTemplate, Prompter},
    rng,
};

/// The task's prompt, its prefix replaced by the opening of a verdict.
pub fn token_prompt(own: &PromptTemplate) -> Result<PromptTemplate> {
    Ok(PromptTemplate { prefix: own.verdict()?.opening().to_owned(), ..own.clone() })
}

/// The probability of each class (of two: of class 1) for each record, in turn. `prompter` holds a [`token_prompt`];
/// `batch_tokens` bounds cached tokens.
pub fn ask_tokens(
    model: Writer<'_>,
    prompter: &Prompter,
    batch_tokens: Option<usize>,
    records: &[Record],
    emit: &mut dyn FnMut(BaselineRecord) -> Result<()>,
) -> Result<()> {
    // Token ids of ` <label>`, by class.
    let ending = |label: &String| prompter.tokenizer().encode_within(&prompter.verdict().ending(label));
    let labels: Vec<Vec<u32>> = prompter.labels().iter().map(ending).collect::<Result<_>>()?;
    // Lines under way, complete but for what the model says: answers come back in the records' order.
    let under_way = RefCell::new(VecDeque::new());
    let requests = records.iter().map(|record| {
        let prompt = model.prompt(prompter, record)?;
        under_way.borrow_mut().push_back(BaselineRecord {
            id: record.id.clone(),
            label: record.label,
            prompt_tokens: prompt.ids.len(),
            truncated_tokens: prompt.truncated_tokens,
            runs: Vec::new(),
        });
        Ok(Request {
            key: rng::hash_name(&record.id),
            prompt: prompt.ids,
            samples: 0,
            max_new_tokens: 0,
            sampling: Sampling::greedy(),
            want_probability: false,
            continuations: labels.clone(),
        })
    });
    model.run_in_order(prompter, batch_tokens, requests, &mut |completed| {
        let Some(line) = under_way.borrow_mut().pop_front() else { return Ok(()) };
        emit(BaselineRecord {
            runs: vec![BaselineAnswer::of_probabilities(softmax(&completed.log_probabilities))],
            ..line
        })
    })
}
