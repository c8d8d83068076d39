//! Log-probabilities of a prompt's own tokens, and whether a server's are to be trusted.

use super::{
    PromptTransport, RequestFailure, Server, answer,
    question::{Choice, LogProbabilities, Question},
};
use crate::error::Result;

/// Words that a likely one follows.
const BEGINNINGS: [&str; 3] =
    ["The patient was discharged", "He was treated with", "Blood pressure and heart rate were"];

/// Apart by more than rounding: a token that is read is not computed in the same shapes as one that is written.
const TOLERANCE: f64 = 0.1;

impl Server {
    /// The log-probabilities of the last `count` tokens of a prompt.
    pub fn log_probabilities(&self, ids: &[u32], count: usize) -> Result<Vec<f64>, RequestFailure> {
        let question = self.scored(ids, LogProbabilities::Prompt)?;
        self.patiently(&question, |body| answer::log_probabilities(body, ids.len(), count))
    }

    /// Whether it gives the log-probabilities of a prompt's own tokens, and of these: what it writes behind some
    /// words must be as likely as it says then when it reads it. (`llama_cpp.server` gives each token the number of
    /// its neighbour, where a model has no BOS.)
    pub fn scores(&self) -> Result<bool> {
        let mut compared = 0;
        for beginning in BEGINNINGS {
            match self.reads_as_it_writes(beginning) {
                Ok(Some(false)) => return Ok(false),
                Ok(Some(true)) => compared += 1,
                Ok(None) => {}
                Err(
                    RequestFailure::Garbled
                    | RequestFailure::Refused(_)
                    | RequestFailure::ControlText
                    | RequestFailure::Failed(500 | 501, _),
                ) => {
                    return Ok(false);
                }
                Err(failure) => return Err(failure.into_error(self.model().key(), self.model().url())),
            }
        }
        Ok(compared > 0)
    }

    /// `None` where what it writes is not one token of ours.
    fn reads_as_it_writes(&self, beginning: &str) -> Result<Option<bool>, RequestFailure> {
        let read = |text: &str| self.tokenizer().read(text).map_err(|_| RequestFailure::ControlText);
        let mut ids = read(beginning)?;
        let question = self.scored(&ids, LogProbabilities::Answer)?;
        let (text, written) = self.patiently(&question, answer::one_token)?;
        let &[next] = &*read(&text)? else { return Ok(None) };
        ids.push(next);
        let numbers = self.log_probabilities(&ids, 1)?;
        Ok(numbers.first().map(|number| (number - written).abs() <= TOLERANCE))
    }

    fn scored(&self, ids: &[u32], of: LogProbabilities) -> Result<Question, RequestFailure> {
        if self.transport() == PromptTransport::Chat {
            return Err(RequestFailure::ControlText);
        }
        self.question(ids, None, Choice::scored(of))
    }
}
