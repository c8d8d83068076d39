//! Records in, what the model writes about each of them out, N times.

use std::{cell::RefCell, collections::VecDeque};

use crate::{
    data::Record,
    error::Result,
    generate::{Budget, Completed, Engine, Generation, Request, Sampling, remote::Remote},
    model::Model,
    prompt::{Prompter, Tokens, after_thoughts},
    rng,
};

/// How to ask.
pub struct Asker<'a> {
    /// The model that writes.
    pub model: Writer<'a>,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Cap on new tokens.
    pub max_new_tokens: usize,
    /// Runs of each prompt, which share its prefill.
    pub runs: usize,
    /// Cached tokens held at once; `None` goes by memory.
    pub batch_tokens: Option<usize>,
}

/// What writes.
#[derive(Clone, Copy)]
pub enum Writer<'a> {
    /// A model whose weights are here.
    Here(&'a Model),
    /// One on a server.
    There(&'a Remote),
}

impl Writer<'_> {
    /// The prompt of the request that is asked next.
    pub(super) fn prompt(self, prompter: &Prompter, record: &Record) -> Result<Tokens> {
        match self {
            Self::Here(_) => prompter.prompt(record),
            Self::There(remote) => remote.prompt_of_all(prompter, record),
        }
    }

    /// Runs requests whose samples, or continuations, are all wanted, and emits them in order. Their prompts are no
    /// longer than the `prompter`'s.
    pub(super) fn run_in_order(
        self,
        prompter: &Prompter,
        batch_tokens: Option<usize>,
        requests: impl Iterator<Item = Result<Request>>,
        emit: &mut dyn FnMut(Completed) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Here(model) => {
                let budget = Budget::beside(&model.llama, prompter.max_input_tokens(), batch_tokens);
                Engine::new(model, prompter.tokenizer(), budget).run_in_order(requests, emit)
            }
            Self::There(remote) => remote.run_in_order(requests, emit),
        }
    }
}

/// A prompt that was answered.
#[derive(Debug)]
pub struct AnsweredPrompt {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the document that did not fit.
    pub truncated_tokens: usize,
    /// Whether the prompt left a thought open.
    pub opened_thought: bool,
    /// An answer a run.
    pub answers: Vec<Generation>,
}

impl AnsweredPrompt {
    /// What an answer says once its thoughts are over; `None` where they never are: no verdict is read inside a
    /// thought.
    pub fn said<'a>(&self, answer: &'a Generation) -> Option<&'a str> {
        after_thoughts(&answer.text, self.opened_thought)
    }
}

impl Asker<'_> {
    /// Asks about each (prompter, record) in turn; `emit` gets the answers in that order. The prompters share one
    /// tokenizer.
    pub fn ask<'r>(
        &self,
        questions: impl Iterator<Item = (&'r Prompter, &'r Record)>,
        emit: &mut dyn FnMut(AnsweredPrompt) -> Result<()>,
    ) -> Result<()> {
        let mut questions = questions.peekable();
        let Some(&(first, _)) = questions.peek() else { return Ok(()) };
        // What is known of the prompts under way, in order: answers come back in the same order.
        let under_way = RefCell::new(VecDeque::new());
        let mut asked = 0usize;
        let mut cut = 0usize;
        let requests = questions.map(|(prompter, record)| {
            let prompt = self.model.prompt(prompter, record)?;
            under_way.borrow_mut().push_back((prompt.ids.len(), prompt.truncated_tokens, prompter.opens_thought()));
            Ok(Request {
                key: rng::hash_name(&record.id),
                prompt: prompt.ids,
                samples: self.runs,
                max_new_tokens: self.max_new_tokens,
                sampling: self.sampling,
                want_probability: false,
                continuations: Vec::new(),
            })
        });
        self.model.run_in_order(first, self.batch_tokens, requests, &mut |completed| {
            let (prompt_tokens, truncated_tokens, opened_thought) =
                under_way.borrow_mut().pop_front().unwrap_or_default();
            asked += 1;
            cut += usize::from(truncated_tokens > 0);
            emit(AnsweredPrompt { prompt_tokens, truncated_tokens, opened_thought, answers: completed.generations })
        })?;
        if cut > 0 {
            tracing::warn!("{cut} of {asked} prompts are longer than the window: their documents were cut");
        }
        Ok(())
    }
}
