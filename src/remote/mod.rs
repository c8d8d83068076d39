//! Models on an OpenAI-compatible server (vLLM, SGLang, llama.cpp, TGI): how they are asked. Layer 3.
//!
//! ```text
//! RemoteModel (address, name, tokenizer) ─▶ probe ─▶ Server (token ids | text | chat)
//! ids of a prompt ─▶ Question ─▶ Pool (threads, retries) ─▶ Completion, or RequestFailure
//! ```
//!
//! No socket is opened without `--allow-network`, to this machine's own servers neither. The prompt goes out as token
//! ids where the server takes them: it is ours byte for byte, and the name of a control token in a note stays text.
//! Else it goes as a text that the server reads as exactly these ids, which is checked here, before, by reading it
//! back, and there, after, by the server's own count of its tokens. Where neither can be had, the server makes the
//! prompt of messages (`/v1/chat/completions`), and a warning says so.
//!
//! Offline, [`batch`] files go to `vllm run-batch` and come back.
//!
//! What a server sends back may quote its prompt. Of an error's body nothing is shown, logged or kept.

mod answer;
pub mod batch;
mod client;
mod failure;
mod model;
mod pool;
mod probe;
mod proxy;
mod question;
mod scores;

pub use answer::Completion;
pub use failure::RequestFailure;
pub use model::{Named, RemoteModel};
pub use pool::Pool;
pub use question::{Choice, Question};

use std::{sync::Arc, time::Duration};

use client::Client;
use serde_json::Value;

use crate::{context::Context, error::Result, prompt::TextTokenizer, signals};

/// How a prompt is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptTransport {
    /// Token ids to `/completions`.
    Ids,
    /// Text to `/completions`.
    Text {
        /// The server puts its BOS before every text.
        adds_bos: bool,
    },
    /// Messages to `/chat/completions`.
    Chat,
}

/// A server that answered when it was tried.
pub struct Server {
    model: RemoteModel,
    client: Client,
    transport: PromptTransport,
    /// Fields beyond OpenAI's are taken.
    all_fields: bool,
    retries: u32,
    concurrency: usize,
}

impl Server {
    /// Finds out how the server at `model` takes prompts; `longest` is a prompt's and an answer's length together.
    ///
    /// # Errors
    /// `--allow-network` is missing, the server does not answer, has no model of that name or another tokenizer, or
    /// its window is too small.
    pub fn connect(context: &Context, model: RemoteModel, longest: usize) -> Result<Arc<Self>> {
        model.allow(context)?;
        let remote = &context.config.remote;
        let client = Client::new(&model, remote)?;
        let (transport, all_fields) = probe::probe(&client, &model, longest, remote.retries)?;
        let concurrency = remote.concurrency;
        Ok(Arc::new(Self { model, client, transport, all_fields, retries: remote.retries, concurrency }))
    }

    /// Where it is and what it is asked for.
    pub fn model(&self) -> &RemoteModel {
        &self.model
    }

    /// The tokenizer of its prompts.
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        self.model.tokenizer()
    }

    /// How prompts are sent.
    pub fn transport(&self) -> PromptTransport {
        self.transport
    }

    /// Requests that may be under way at once.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Asks, again where that may help; the seconds between two attempts double.
    pub fn ask(&self, question: &Question) -> Result<Completion, RequestFailure> {
        self.patiently(question, |body| answer::read(body, question.counts(self.transport), question.max_tokens()))
    }

    fn patiently<T>(
        &self,
        question: &Question,
        read: impl Fn(&Value) -> Result<T, RequestFailure>,
    ) -> Result<T, RequestFailure> {
        let body = question.body(&self.model, self.all_fields);
        patiently(self.retries, || read(&self.client.post(question.path(), &body)?))
    }
}

/// Up to `retries` further attempts, as long as the trouble may pass.
fn patiently<T>(retries: u32, attempt: impl Fn() -> Result<T, RequestFailure>) -> Result<T, RequestFailure> {
    let mut failed = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if failed >= retries || !failure.may_pass() => return Err(failure),
            Err(failure) => pause(delay(failure, failed))?,
        }
        failed += 1;
    }
}

/// As long as the server asks for, but no shorter than without its word: it may say 0, or a date that is past.
fn delay(failure: RequestFailure, failed: u32) -> Duration {
    failure.wait().unwrap_or_default().max(doubling(failed))
}

/// Half a second, then twice as long each time, a minute at most.
fn doubling(failed: u32) -> Duration {
    Duration::from_millis(500 << failed.min(7)).min(Duration::from_secs(60))
}

/// Sleeps, but not on when the process is to end.
fn pause(time: Duration) -> Result<(), RequestFailure> {
    let step = Duration::from_millis(50);
    let mut left = time;
    while !left.is_zero() {
        signals::check_interrupted().map_err(|_| RequestFailure::Lost)?;
        std::thread::sleep(left.min(step));
        left = left.saturating_sub(step);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_lengthen_the_wait_but_not_shorten_it() {
        let asks = |seconds| RequestFailure::Busy(Some(Duration::from_secs(seconds)));
        assert_eq!(delay(asks(0), 0), Duration::from_millis(500));
        assert_eq!(delay(asks(0), 3), Duration::from_secs(4));
        assert_eq!(delay(asks(90), 3), Duration::from_secs(90));
        assert_eq!(delay(RequestFailure::Lost, 1), Duration::from_secs(1));
    }
}
