//! Requests shared with the other ranks of an MPI job, each of which holds the same model.
//!
//! ```text
//! rank 0: a command ─▶ open: every rank reads the model
//!                   ─▶ Engine ─▶ root ─┬▶ its own engine
//!                                      └▶ messages ─▶ worker: an engine on each other rank ─▶ messages back
//! ```
//!
//! Rank 0 runs the command as one process does: it alone reads records and writes files. The others wait for its orders
//! ([`serve`]). What they answer is a function of (model, request), so the command's files are those of one process.
//!
//! A model is opened, and a job is ended, at meetings; requests and answers go by message while every rank works. An
//! error on one rank is told at a meeting, which the others look for between their steps. Prompts and answers pass from
//! memory to memory and are in no log.

pub(super) mod open;
mod root;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{root::dismiss, worker::serve};
pub(super) use root::share;

use super::{Completed, Generation, Request, constrain::Constraint};
use crate::error::{Error, Result};

/// How long a rank that has nothing to do sleeps before it looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What rank 0 orders at a meeting.
#[derive(Serialize, Deserialize)]
enum Command {
    /// Read this model, the one of this number, in place of the one before.
    Open(usize, open::Opening),
    /// The command is done.
    End,
}

/// A message of rank 0's.
#[derive(Serialize, Deserialize)]
enum RootMessage {
    /// Requests follow, to be answered by the model of this number.
    Begin {
        opening: usize,
        /// Whether samples are trials, which rank 0 judges.
        trials: bool,
        constraint: Option<Constraint>,
    },
    /// Answer this; a request is known by its number.
    Request(usize, Request),
    /// Whether the last trial of this request is accepted.
    Judged(usize, bool),
    /// No more requests follow.
    End,
}

/// A message of another rank's.
#[derive(Serialize, Deserialize)]
enum WorkerMessage {
    /// A trial of this request, to be judged.
    Trial(usize, usize, Generation),
    /// This request is done.
    Done(CompletedMessage),
}

/// A [`Completed`] on its way.
#[derive(Serialize, Deserialize)]
struct CompletedMessage {
    request: usize,
    /// As bits, as are log-probabilities: they may be no numbers that JSON has.
    logits: Option<Vec<u32>>,
    generations: Vec<Generation>,
    log_probabilities: Vec<u64>,
}

impl CompletedMessage {
    fn new(request: usize, completed: Completed) -> Self {
        let Completed { logits, generations, log_probabilities, .. } = completed;
        let logits = logits.map(|logits| logits.into_iter().map(f32::to_bits).collect());
        let log_probabilities = log_probabilities.into_iter().map(f64::to_bits).collect();
        Self { request, logits, generations, log_probabilities }
    }

    fn completed(self) -> Completed {
        let Self { request, logits, generations, log_probabilities } = self;
        let logits = logits.map(|logits| logits.into_iter().map(f32::from_bits).collect());
        let log_probabilities = log_probabilities.into_iter().map(f64::from_bits).collect();
        Completed { index: request, logits, generations, log_probabilities }
    }
}

fn write(message: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|_| Error::run("a message to another rank has no JSON form"))
}

/// serde's message may quote a record: it is not told.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|_| Error::run("a message of another rank cannot be read"))
}
