//! Bookkeeping of the running batch: which prompts are open, which of their samples run, how many tokens they hold.

use std::collections::BTreeMap;

use super::{
    Completed, Finish, Generation, Request,
    constrain::{Constraint, Draw, Next, State},
    prefix_cache::PrefixCache,
    sampler::{Sampling, step},
};
use crate::{
    error::Result,
    model::kv_cache::{SequenceCache, round_up_to_blocks},
    ops::sample,
    prompt::TextTokenizer,
};

/// A prompt that was prefilled and whose samples are not all done.
pub(super) struct SequenceGroup {
    pub(super) request: Request,
    /// Keys and values of the prompt, shared by its samples.
    pub(super) prefix: SequenceCache,
    /// LM-head logits of t_n: every sample's first token is drawn from them.
    pub(super) first: Vec<f32>,
    /// CLS logits of t_n.
    pub(super) logits: Option<Vec<f32>>,
    generations: Vec<Option<Generation>>,
}

impl SequenceGroup {
    pub(super) fn new(request: Request, prefix: SequenceCache, first: Vec<f32>, logits: Option<Vec<f32>>) -> Self {
        let generations = (0..request.samples).map(|_| None).collect();
        Self { request, prefix, first, logits, generations }
    }

    /// Keeps a finished sample.
    pub(super) fn file(&mut self, sample: usize, generation: Generation) {
        self.generations[sample] = Some(generation);
    }

    /// Finished samples.
    pub(super) fn written(&self) -> usize {
        self.generations.iter().flatten().count()
    }

    pub(super) fn complete(self, index: usize) -> Completed {
        let generations = self.generations.into_iter().flatten().collect();
        Completed { logits: self.logits, generations, ..Completed::of(index) }
    }
}

/// One sample being written: one row of the decoding batch.
pub(super) struct ActiveSample {
    /// Index of its request.
    pub(super) job: usize,
    pub(super) sample: usize,
    /// The prompt's prefix and this sample's own tail.
    pub(super) cache: SequenceCache,
    pub(super) ids: Vec<u32>,
    sampling: Sampling,
    step: u64,
    state: State,
    /// Set when the row is done: why, and how many tokens it took, the stop token included.
    done: Option<(Finish, usize)>,
}

impl ActiveSample {
    pub(super) fn new(index: usize, sample: usize, job: &SequenceGroup) -> Self {
        let cache = job.prefix.clone();
        let step = step(job.request.key, sample);
        let sampling = job.request.sampling;
        Self { job: index, sample, cache, ids: Vec::new(), sampling, step, state: State::default(), done: None }
    }

    /// How its next token is drawn.
    pub(super) fn draw(&self) -> sample::Draw {
        sample::Draw { sampling: self.sampling, step: self.step, position: self.ids.len() as u64 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// Takes the token that follows from `logits`.
    pub(super) fn advance(
        &mut self,
        logits: sample::RowLogits<'_>,
        request: &Request,
        constraint: Option<&Constraint>,
        tokenizer: &TextTokenizer,
    ) -> Result<()> {
        let next = match constraint {
            Some(constraint) => {
                let draw = Draw { row: logits, remaining: request.max_new_tokens - self.ids.len() };
                constraint.next(&mut self.state, &self.ids, draw, tokenizer)?
            }
            None => match logits.choose()? {
                id if tokenizer.stop_ids().contains(&id) => Next::Close(vec![id]),
                id => Next::Token(id),
            },
        };
        match next {
            Next::Token(id) => self.ids.push(id),
            Next::Close(tail) => {
                self.done = Some((Finish::Stop, self.ids.len() + tail.len()));
                self.ids.extend(&tail[..tail.len().saturating_sub(1)]);
            }
        }
        if self.done.is_none() && self.ids.len() >= request.max_new_tokens {
            self.done = Some((Finish::Length, self.ids.len()));
        }
        Ok(())
    }

    pub(super) fn finish(self, tokenizer: &TextTokenizer) -> Result<Generation> {
        let (finish, generated_tokens) = self.done.unwrap_or((Finish::Length, self.ids.len()));
        Ok(Generation { text: tokenizer.decode(&self.ids)?, ids: self.ids, finish, generated_tokens })
    }
}

/// How much may be held at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of keys and values, in whole blocks: prompts as long as they are, samples as long as they may become.
    pub tokens: usize,
    /// Rows of the decoding batch.
    pub rows: usize,
}

impl Budget {
    /// Rows at once: beyond about this many a CPU's products are bound by arithmetic, and more rows would only delay
    /// the first answers (and lose more of them to a kill).
    pub(super) const ROWS: usize = 32;
}

/// The open prompts and running rows of one run.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) jobs: BTreeMap<usize, SequenceGroup>,
    pub(super) rows: Vec<ActiveSample>,
    /// Prefixes that later prompts may share.
    pub(super) prefixes: PrefixCache,
}

impl Batch {
    /// Tokens that are held or promised, cached prefixes included.
    pub(super) fn tokens(&self) -> usize {
        self.in_use() + self.prefixes.tokens()
    }

    /// Tokens of open prompts and of their running samples.
    fn in_use(&self) -> usize {
        let prompts: usize = self.jobs.values().map(|job| round_up_to_blocks(job.request.prompt.len())).sum();
        let samples: usize =
            self.rows.iter().filter_map(|row| self.jobs.get(&row.job)).map(|job| job.request.sample_cost()).sum();
        prompts + samples
    }

    /// Most tokens that cached prefixes may hold when prompts and samples are about to take `promised` more: at most a
    /// quarter of the budget, so that they hardly delay other work.
    pub(super) fn room_for_prefixes(&self, promised: usize, budget: Budget) -> usize {
        budget.tokens.saturating_sub(self.in_use() + promised).min(budget.tokens / 4)
    }

    /// Whether this many more tokens and one more row fit. With nothing running, anything does: a prompt larger than
    /// the budget runs alone.
    pub(super) fn fits(&self, tokens: usize, budget: Budget) -> bool {
        self.rows.is_empty() || (self.rows.len() < budget.rows && self.tokens() + tokens <= budget.tokens)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::{
        Sampling,
        tests::{WIDE, model, requests, run},
    };

    /// A prompt that the model makes no number of is told by its head's logits, and the others have their answers.
    #[test]
    fn a_prompt_without_finite_logits_ends_alone() {
        let model = model();
        let mut requests = requests(3, 1, Sampling::greedy());
        requests.iter_mut().for_each(|request| request.prompt.retain(|&id| id != 7));
        let expected = run(&model, WIDE, &requests);
        // All that the model knows of a token that only the second prompt has.
        let embedding = model.llama.base_tensors().remove("model.embed_tokens.weight").unwrap();
        embedding.slice_set(&Tensor::full(f32::NAN, (1, 32), &Device::Cpu).unwrap(), 0, 7).unwrap();
        requests[1].prompt[0] = 7;
        let found = run(&model, WIDE, &requests);
        for request in [&requests[0], &requests[2]] {
            assert_eq!(found[&request.key], expected[&request.key]);
        }
        let (logits, generations) = &found[&requests[1].key];
        assert!(logits.as_ref().unwrap().iter().all(|&bits| f32::from_bits(bits).is_nan()));
        assert!(generations.is_empty());
    }
}
