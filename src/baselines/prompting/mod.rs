//! The untuned base model, asked in words: no training, one engine (paper §5.2).
//!
//! | baseline | prompt | what is read |
//! |---|---|---|
//! | verbalized probability | [`super::prompts::verbalized`] | the last line `Probability: <0 to 100>`, / 100 |
//! | label prediction | the task's own, prefix included | the last line that is its verdict or `<label>` |
//! | self-consistency | label prediction's runs | majority of parsable runs (tie: the lowest), class 1's share |
//! | token probability | the task's own, prefix `Classification:` | softmax over the log-probabilities of ` <label>` |
//!
//! Of more than two classes, verbalized probability asks for a line `Probability of <class>: <0 to 100>` each and
//! divides by their sum; self-consistency's probabilities are the classes' shares of the votes.
//!
//! What a reasoning model thinks first is no answer: only what follows the last `</think>` is read, and a thought that
//! never ends is unparsable, also one that the chat template opened.
//!
//! A record's N runs share one prefill; run r of a record draws from `f(seed, record id, r, position)`.

mod ask;
mod parse;
mod token;
mod vote;

pub use ask::{AnsweredPrompt, Asker, Writer};
pub use parse::{label, probabilities, probability, probability_line};
pub use token::{ask_tokens, token_prompt};
pub use vote::{Vote, vote};

use serde::{Deserialize, Serialize};

use crate::{data::Finish, labels::Class, metrics::methods::BinaryAnswer};

/// A line of `RUN/eval/baselines/<name>.jsonl`: one record, all its runs.
#[derive(Clone, Serialize, Deserialize)]
pub struct BaselineRecord {
    /// The record's id.
    pub id: String,
    /// Its gold class.
    pub label: Option<Class>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the document that did not fit.
    pub truncated_tokens: usize,
    /// An entry a run.
    pub runs: Vec<BaselineAnswer>,
}

/// What one run says of a record.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct BaselineAnswer {
    /// Probability of class 1, where the method gives one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probability: Option<f64>,
    /// Probabilities of all of more than two classes, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probabilities: Option<Vec<f64>>,
    /// The class it names; null where it cannot be read.
    pub verbalized_label: Option<Class>,
    /// What was written, where something was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// Tokens written, the stop token included.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generated_tokens: Option<usize>,
    /// Why writing ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish: Option<Finish>,
}

impl BaselineAnswer {
    /// A probability of class 1; the call is class 1 from 0.5 on.
    pub fn of_probability(probability: f64) -> Self {
        let label = Some(Class::of_probability(probability));
        Self { probability: Some(probability), verbalized_label: label, ..Self::default() }
    }

    /// Probabilities of all classes; the call is the largest, of two class 1 from 0.5 on.
    pub fn of_probabilities(probabilities: Vec<f64>) -> Self {
        match probabilities[..] {
            [_, one] => Self::of_probability(one),
            _ => {
                let label = Class::of_largest(probabilities.iter().copied());
                Self { probabilities: Some(probabilities), verbalized_label: Some(label), ..Self::default() }
            }
        }
    }

    /// As the metrics want it; `None` where it cannot be read.
    pub fn answer(&self) -> Option<BinaryAnswer> {
        self.verbalized_label.map(|label| BinaryAnswer { score: self.probability, call: label == Class::ONE })
    }
}

impl std::fmt::Debug for BaselineAnswer {
    /// No text: what is written may quote its record.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaselineAnswer")
            .field("probability", &self.probability)
            .field("verbalized_label", &self.verbalized_label)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BaselineRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaselineRecord").field("label", &self.label).field("runs", &self.runs).finish_non_exhaustive()
    }
}
