//! Algorithm 1 (paper §4.2): up to K trials a record; the first valid one whose label is gold is kept.

pub mod output;
pub mod progress;
mod statistics;
mod trial;

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

pub use progress::Progress;
pub use statistics::{ByClass, Statistics};
pub use trial::{Failure, Gold, Rules, judge};

use super::{
    Completed, Generation, Request, Sampling,
    client::{Accept, Emit},
    engine::Engine,
};
use crate::{
    data::Record,
    error::{Error, Result},
    prompt::{Prompter, Tokens},
    rng::hash_name,
};

/// Anything that answers requests, one sample after the other, until one is accepted.
pub trait Teacher {
    /// Answers every request; `emit` gets each when it is done, in any order.
    fn answer(
        &self,
        requests: &mut dyn Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()>;

    /// Why the request that is being emitted has no further sample, where it could not be had.
    fn refusal(&self, _index: usize) -> Option<Failure> {
        None
    }
}

impl Teacher for Engine<'_> {
    fn answer(
        &self,
        requests: &mut dyn Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.run(requests, accept, emit)
    }
}

/// How trials are drawn and held against the gold label.
#[derive(Clone, Copy)]
pub struct Method<'a> {
    /// K.
    pub trials: usize,
    /// Trials before these (a rationalization is trial K + 1).
    pub trials_before: usize,
    /// Cap on a trial's tokens.
    pub max_new_tokens: usize,
    /// Temperature, nucleus, seed.
    pub sampling: Sampling,
    /// Beyond parsable and correct.
    pub rules: Rules,
    /// The base's prompts: its labels, its prefix, and whether a target fits.
    pub base: &'a Prompter,
    /// Whether the teacher's template opens a thought itself.
    pub opened_thought: bool,
}

/// A kept trial.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedTrial {
    /// Which trial, from 1.
    pub trial: usize,
    /// The explanation.
    pub explanation: String,
}

/// What the trials of one record gave.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The kept trial, if any.
    pub kept: Option<AcceptedTrial>,
    /// Why each trial before it failed.
    pub failures: Vec<Failure>,
    /// Tokens written in all trials.
    pub generated_tokens: usize,
    /// Tokens by which the teacher's prompt was shortened, its document being longer than the window; a log of an older
    /// version is silent about it, as one is about a prompt that fits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_tokens: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Runs the trials of `records`, whose teacher prompts `prompt` makes. `emit` gets `(index, what the trials gave)`, in
/// any order.
pub fn explain(
    teacher: &dyn Teacher,
    records: &[&Record],
    prompt: &dyn Fn(&Record) -> Result<Tokens>,
    method: Method<'_>,
    emit: &mut dyn FnMut(usize, Explained) -> Result<()>,
) -> Result<()> {
    // Tokens that each prompt lost, in the order of the requests.
    let truncated: RefCell<Vec<usize>> = RefCell::default();
    // The engine's requests cannot fail; what ended them early comes out at the end.
    let mut unprompted = None;
    let mut requests = records.iter().map_while(|record| match prompt(record) {
        Ok(prompt) => {
            truncated.borrow_mut().push(prompt.truncated_tokens);
            Some(Request {
                key: hash_name(&record.id).wrapping_add(method.trials_before as u64),
                prompt: prompt.ids,
                samples: method.trials,
                max_new_tokens: method.max_new_tokens,
                sampling: method.sampling,
                want_probability: false,
                continuations: Vec::new(),
            })
        }
        Err(error) => {
            unprompted = Some(error);
            None
        }
    });
    let mut accept = |request: usize, _: usize, generation: &Generation| {
        // A tokenizer that fails ends the record's trials; the error comes out when the record is emitted.
        !matches!(check_trial(records[request], generation, method), Ok(Err(_)))
    };
    let mut finished = |completed: Completed| {
        let mut explained = Explained {
            generated_tokens: completed.generations.iter().map(|generation| generation.generated_tokens).sum(),
            truncated_tokens: truncated.borrow().get(completed.index).copied().unwrap_or_default(),
            ..Explained::default()
        };
        for (trial, generation) in completed.generations.iter().enumerate() {
            match check_trial(records[completed.index], generation, method)? {
                Ok(explanation) => {
                    explained.kept = Some(AcceptedTrial { trial: method.trials_before + trial + 1, explanation })
                }
                Err(failure) => explained.failures.push(failure),
            }
        }
        explained.failures.extend(teacher.refusal(completed.index));
        emit(completed.index, explained)
    };
    teacher.answer(&mut requests, &mut accept, &mut finished)?;
    unprompted.map_or(Ok(()), Err)
}

/// One trial against its record: its explanation, or why it was refused. The outer error is ours.
fn check_trial(record: &Record, generation: &Generation, method: Method<'_>) -> Result<Result<String, Failure>> {
    let label = record.label.ok_or_else(|| Error::data(format!("record {}, field label: missing", record.place())))?;
    let texts: Vec<&str> = record.fields.values().map(String::as_str).collect();
    let gold = Gold {
        texts: &texts,
        labels: method.base.labels(),
        verdict: method.base.verdict(),
        prefix: &method.base.template().prefix,
        label,
        opened_thought: method.opened_thought,
    };
    let explanation = match judge(generation, gold, method.rules) {
        Ok(explanation) => explanation,
        Err(failure) => return Ok(Err(failure)),
    };
    let fits = method.base.target(&explanation, label)?.truncated_tokens == 0;
    Ok(if fits { Ok(explanation) } else { Err(Failure::TooLong) })
}

#[cfg(test)]
mod tests;
