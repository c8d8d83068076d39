//! The one engine that generates for everything. Layer 4.
//!
//! A prompt is prefilled once; the CLS logits come from that same pass; its samples share the prompt's keys and values,
//! and so do prompts that begin alike. Rows leave the batch when they stop and new ones enter, within a budget of
//! cached tokens. What a request gets is a function of (model, request): never of its neighbours, its place in the
//! queue or the number of threads. Where other ranks hold the same model, an engine shares its requests with theirs
//! ([`ranks`]).

mod batch;
mod client;
pub mod constrain;
pub mod construct;
pub mod continuations;
mod engine;
mod in_order;
pub mod loading;
pub mod memory;
pub mod perplexity;
pub mod predict;
mod prefix_cache;
pub mod ranks;
pub mod remote;
pub mod sampler;
pub mod scoring;
#[cfg(test)]
mod tests;

pub use batch::Budget;
pub use client::{Accept, Emit};
pub use engine::Engine;
pub use prefix_cache::PrefixCache;
pub use sampler::Sampling;

use serde::{Deserialize, Serialize};

pub use crate::data::Finish;

use crate::model::kv_cache::{own_block_tokens, round_up_to_blocks};

/// What is asked of the engine for one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Names the prompt in the random stream: [`crate::rng::hash_name`] of the record's id.
    pub key: u64,
    /// Token ids, ending in t_n.
    pub prompt: Vec<u32>,
    /// Samples wanted; 0 = prefill only, for the probability.
    pub samples: usize,
    /// Cap on new tokens, the stop token included.
    pub max_new_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Whether the CLS head reads t_n.
    pub want_probability: bool,
    /// Texts, as token ids, whose log-probabilities behind the prompt are wanted; such a request has no samples.
    pub continuations: Vec<Vec<u32>>,
}

impl Request {
    /// Cached tokens, in whole blocks, that its prompt and one sample may come to.
    fn cost(&self) -> usize {
        if self.samples == 0 { 0 } else { round_up_to_blocks(self.prompt.len()) + self.sample_cost() }
    }

    /// What a sample may come to beside the prompt.
    fn sample_cost(&self) -> usize {
        own_block_tokens(self.prompt.len(), self.max_new_tokens)
    }
}

/// One sample of one request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// New token ids, without the stop token.
    pub ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// New tokens, the stop token included.
    pub generated_tokens: usize,
}

impl std::fmt::Debug for Generation {
    /// Counts only: generated text can quote its record.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("finish", &self.finish)
            .field("generated_tokens", &self.generated_tokens)
            .finish_non_exhaustive()
    }
}

/// A request that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// Its place in the iterator of requests, from 0.
    pub index: usize,
    /// The CLS head's two logits, where wanted.
    pub logits: Option<Vec<f32>>,
    /// Its samples in order. With an `accept` callback the last one is the accepted one, if any was.
    pub generations: Vec<Generation>,
    /// log p(continuation | prompt), one a continuation.
    pub log_probabilities: Vec<f64>,
}

impl Completed {
    /// Nothing of the request at this place yet.
    pub fn of(index: usize) -> Self {
        Self { index, logits: None, generations: Vec::new(), log_probabilities: Vec::new() }
    }
}
