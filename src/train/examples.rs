//! Records as token ids, and micro-batches of them.
//!
//! ```text
//! ids        p₀ p₁ … t_n │ e₀ e₁ … e_m₋₂        (EOG, the last target, is predicted, never read)
//! predicts    ·  ·  … e₀ │ e₁ e₂ … EOG
//! CLS head            ▲
//! ```
//!
//! t_n's row feeds the CLS head and is also the first target row. Prompt and target were encoded apart, so t_n is the
//! same token with and without an explanation.

use std::fmt;

use super::plan::Sample;
use crate::{
    config::Objective,
    data::Record,
    error::{Error, Result, ResultExt},
    ops::Offsets,
    prompt::{Prompter, Tokens},
    signals::check_interrupted,
};

/// A record ready to train on. `Debug` prints counts only.
#[derive(Clone, PartialEq, Eq)]
pub struct Example {
    /// Prompt ids; the last one is t_n.
    pub prompt: Vec<u32>,
    /// Target ids ending in EOG; empty where there is nothing to write (no explanation, or objective `cls`).
    pub target: Vec<u32>,
    /// Gold class.
    pub class: u32,
    /// Its record's number in the file that is trained on, for messages.
    pub record: usize,
}

impl Example {
    /// Tokens of prompt and target.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.target.len()
    }

    /// Rows of the forward pass: every token but the last target.
    pub fn rows(&self) -> usize {
        self.prompt.len() + self.target.len().saturating_sub(1)
    }
}

impl fmt::Debug for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Example")
            .field("prompt", &self.prompt.len())
            .field("target", &self.target.len())
            .finish_non_exhaustive()
    }
}

/// What encoding a split found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encoded {
    /// Records without an explanation.
    pub unexplained: usize,
    /// Documents cut to fit the window.
    pub truncated_prompts: usize,
    /// Explanations cut to fit the output window.
    pub truncated_targets: usize,
}

/// Encodes a split for `objective`. Under `lm` a record without an explanation teaches nothing and is left out.
pub fn encode(prompter: &Prompter, records: &[Record], objective: Objective) -> Result<(Vec<Example>, Encoded)> {
    let mut examples = Vec::with_capacity(records.len());
    let mut found = Encoded::default();
    for record in records {
        check_interrupted()?;
        let place = || format!("record {}", record.place());
        let class = record.label.ok_or_else(|| Error::data(format!("{}, field label: missing", place())))?;
        found.unexplained += usize::from(record.explanation.is_none());
        if objective == Objective::Lm && record.explanation.is_none() {
            continue;
        }
        let prompt = prompter.prompt(record).with_place(place)?;
        found.truncated_prompts += usize::from(prompt.truncated_tokens > 0);
        let target = target(prompter, record, objective)?;
        found.truncated_targets += usize::from(target.as_ref().is_some_and(|target| target.truncated_tokens > 0));
        let target = target.map_or_else(Vec::new, |target| target.ids);
        examples.push(Example { prompt: prompt.ids, target, class: class.index() as u32, record: record.number });
    }
    Ok((examples, found))
}

/// What a record teaches to write under `objective`; `None` without an explanation.
pub fn target(prompter: &Prompter, record: &Record, objective: Objective) -> Result<Option<Tokens>> {
    let (Some(explanation), Some(class)) = (&record.explanation, record.label) else { return Ok(None) };
    let target = (objective != Objective::Cls).then(|| prompter.target(explanation, class)).transpose();
    target.with_place(|| format!("record {}, field explanation", record.place()))
}

/// Context that is formatted only when there is an error.
trait Place<T> {
    fn with_place(self, place: impl Fn() -> String) -> Result<T>;
}

impl<T> Place<T> for Result<T> {
    fn with_place(self, place: impl Fn() -> String) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            // The prompter names the record in some of its messages.
            Err(error) if error.to_string().starts_with(&place()) => Err(error),
            error => error.context(place()),
        }
    }
}

/// A micro-batch: sequences one after another, never padded.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids of all sequences.
    pub ids: Vec<u32>,
    /// Where each begins.
    pub offsets: Offsets,
    /// What the two heads are taught on each.
    pub sequences: Vec<SequenceTargets>,
}

/// What a sequence of a batch teaches.
#[derive(Clone, PartialEq, Eq)]
pub struct SequenceTargets {
    /// Dropout key.
    pub key: u64,
    /// Row of the prompt's first token in the batch.
    pub start: usize,
    /// Row of t_n: read by the CLS head, and the first that predicts a target.
    pub t_n: usize,
    /// Gold class.
    pub class: u32,
    /// The id that each row from `start` on predicts: the rest of the prompt, then the target.
    pub next: Vec<u32>,
}

impl SequenceTargets {
    /// Target ids, predicted by the rows from t_n on.
    pub fn target(&self) -> &[u32] {
        &self.next[self.t_n - self.start..]
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

impl Batch {
    /// Concatenates the examples of `samples`.
    pub fn new(examples: &[Example], samples: &[Sample]) -> Self {
        let lengths: Vec<usize> = samples.iter().map(|sample| examples[sample.record].rows()).collect();
        let mut ids = Vec::with_capacity(lengths.iter().sum());
        let mut sequences = Vec::with_capacity(samples.len());
        for sample in samples {
            let Example { prompt, target, class, .. } = &examples[sample.record];
            let start = ids.len();
            sequences.push(SequenceTargets {
                key: sample.key,
                start,
                t_n: start + prompt.len() - 1,
                class: *class,
                next: [&prompt[1..], target].concat(),
            });
            ids.extend(prompt);
            ids.extend(&target[..target.len().saturating_sub(1)]);
        }
        Self { ids, offsets: Offsets::from_lengths(&lengths), sequences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_n_feeds_the_head_and_predicts_the_first_target() {
        let examples = [
            Example { prompt: vec![1, 2, 3], target: vec![7, 8, 9], class: 1, record: 0 },
            Example { prompt: vec![4, 5], target: vec![], class: 0, record: 0 },
            Example { prompt: vec![6], target: vec![9], class: 1, record: 0 },
        ];
        let samples = [1, 0, 2].map(|record| Sample { record, key: 10 + record as u64 });
        let batch = Batch::new(&examples, &samples);
        assert_eq!(batch.ids, [4, 5, 1, 2, 3, 7, 8, 6]);
        assert_eq!(batch.offsets, Offsets::from_lengths(&[2, 5, 1]));
        let sequences: Vec<_> = batch.sequences.iter().map(|l| (l.key, l.t_n, l.class, l.next.as_slice())).collect();
        let expected: [(u64, usize, u32, &[u32]); 3] =
            [(11, 1, 0, &[5]), (10, 4, 1, &[2, 3, 7, 8, 9]), (12, 7, 1, &[9])];
        assert_eq!(sequences, expected);
    }
}
