//! Records as token ids, and micro-batches of them.
//!
//! ```text
//! ids        p₀ p₁ … t_n │ e₀ e₁ … e_m₋₂            (EOG, the last target, is predicted and never read)
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
    error::{Context, Error, Result},
    ops::Offsets,
    prompt::Prompter,
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
        f.debug_struct("Example").field("prompt", &self.prompt.len()).field("target", &self.target.len()).finish_non_exhaustive()
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
        let place = || format!("record {}", record.number);
        let class = record.label.ok_or_else(|| Error::data(format!("{}, field label: missing", place())))?;
        found.unexplained += usize::from(record.explanation.is_none());
        if objective == Objective::Lm && record.explanation.is_none() {
            continue;
        }
        let prompt = prompter.prompt(record).with_place(place)?;
        found.truncated_prompts += usize::from(prompt.truncated_tokens > 0);
        let target = match &record.explanation {
            Some(explanation) if objective != Objective::Cls => {
                let target = prompter.target(explanation, class).with_place(place)?;
                found.truncated_targets += usize::from(target.truncated_tokens > 0);
                target.ids
            }
            _ => Vec::new(),
        };
        examples.push(Example { prompt: prompt.ids, target, class: u32::from(class) });
    }
    Ok((examples, found))
}

/// Context that is formatted only when there is an error.
trait Place<T> {
    fn with_place(self, place: impl Fn() -> String) -> Result<T>;
}

impl<T> Place<T> for Result<T> {
    fn with_place(self, place: impl Fn() -> String) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            error => error.context(place()),
        }
    }
}

/// A micro-batch: sequences one after another, never padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids of all sequences.
    pub ids: Vec<u32>,
    /// Where each begins.
    pub offsets: Offsets,
    /// A dropout key a sequence.
    pub keys: Vec<u64>,
    /// Row of each sequence's t_n.
    pub cls_rows: Vec<u32>,
    /// Gold class of each sequence.
    pub classes: Vec<u32>,
    /// Rows that predict a target token.
    pub target_rows: Vec<u32>,
    /// Those tokens.
    pub targets: Vec<u32>,
}

impl Batch {
    /// Concatenates the examples of `samples`.
    pub fn new(examples: &[Example], samples: &[Sample]) -> Self {
        let chosen: Vec<&Example> = samples.iter().map(|sample| &examples[sample.record]).collect();
        let lengths: Vec<usize> = chosen.iter().map(|example| example.rows()).collect();
        let mut batch = Self {
            ids: Vec::with_capacity(lengths.iter().sum()),
            offsets: Offsets::from_lengths(&lengths),
            keys: samples.iter().map(|sample| sample.key).collect(),
            cls_rows: Vec::with_capacity(chosen.len()),
            classes: chosen.iter().map(|example| example.class).collect(),
            target_rows: Vec::new(),
            targets: Vec::new(),
        };
        for example in chosen {
            let t_n = (batch.ids.len() + example.prompt.len() - 1) as u32;
            batch.cls_rows.push(t_n);
            batch.target_rows.extend((0..example.target.len() as u32).map(|j| t_n + j));
            batch.targets.extend(&example.target);
            batch.ids.extend(&example.prompt);
            batch.ids.extend(&example.target[..example.target.len().saturating_sub(1)]);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_n_feeds_the_head_and_predicts_the_first_target() {
        let examples = [
            Example { prompt: vec![1, 2, 3], target: vec![7, 8, 9], class: 1 },
            Example { prompt: vec![4, 5], target: vec![], class: 0 },
            Example { prompt: vec![6], target: vec![9], class: 1 },
        ];
        let samples = [1, 0, 2].map(|record| Sample { record, key: 10 + record as u64 });
        let batch = Batch::new(&examples, &samples);
        assert_eq!(batch.ids, [4, 5, 1, 2, 3, 7, 8, 6]);
        assert_eq!(batch.offsets, Offsets::from_lengths(&[2, 5, 1]));
        assert_eq!(batch.cls_rows, [1, 4, 7]);
        assert_eq!(batch.classes, [0, 1, 1]);
        assert_eq!(batch.target_rows, [4, 5, 6, 7]);
        assert_eq!(batch.targets, [7, 8, 9, 9]);
        assert_eq!(batch.keys, [11, 10, 12]);
    }
}
