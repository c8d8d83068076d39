//! Beginnings that prompts share: a system part, a judge's template, a document that is asked about twice. Each is read once a
//! run; prompts that begin so are read behind it, on a CPU to the same bits.
//!
//! Nobody names a beginning. It shows when two prompts near each other start with the same tokens, and it is kept while it is
//! among the few used last and small beside the budget.

use std::collections::VecDeque;

use crate::{
    error::Result,
    model::{
        Llama,
        kv_cache::{SequenceCache, in_blocks},
    },
    ops::Offsets,
};

/// Tokens that a beginning must have, and have more than one that is known: to read fewer once more costs less than a pass of
/// their own over the weights.
const LEAST: usize = 32;

/// Kinds of prompts that may take turns (a judge asks two questions about each record), and earlier prompts that a new one is
/// laid beside.
const KINDS: usize = 4;

/// The beginnings of one run's prompts, for one model.
#[derive(Default)]
pub struct Prefixes {
    /// The one used last at the end.
    known: Vec<Prefix>,
    recent: VecDeque<Vec<u32>>,
}

struct Prefix {
    ids: Vec<u32>,
    cache: SequenceCache,
}

impl Prefixes {
    /// Cached tokens that they hold, in whole blocks.
    pub(super) fn tokens(&self) -> usize {
        self.known.iter().map(|prefix| in_blocks(prefix.ids.len())).sum()
    }

    /// Frees what they hold.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// For each prompt a cache with what it need not read again, empty where that is nothing; at least its last token is left
    /// to read. New beginnings are read here, as far as all of them then hold at most `limit` tokens.
    pub(super) fn begin(&mut self, llama: &Llama, prompts: &[&[u32]], limit: usize) -> Result<Vec<SequenceCache>> {
        let begun = (0..prompts.len()).map(|i| {
            let shared = self.shared(prompts, i);
            self.begin_one(llama, prompts[i], shared, limit)
        });
        let begun = begun.collect::<Result<Vec<_>>>()?;
        self.recent.extend(prompts[prompts.len().saturating_sub(KINDS)..].iter().map(|prompt| prompt.to_vec()));
        self.recent.drain(..self.recent.len().saturating_sub(KINDS));
        Ok(begun)
    }

    /// Tokens with which prompt `i` and another one begin.
    fn shared(&self, prompts: &[&[u32]], i: usize) -> usize {
        let others = prompts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| *other);
        let all = others.chain(self.recent.iter().map(Vec::as_slice));
        all.map(|other| in_common(prompts[i], other)).max().unwrap_or(0)
    }

    fn begin_one(&mut self, llama: &Llama, prompt: &[u32], shared: usize, limit: usize) -> Result<SequenceCache> {
        let most = prompt.len().saturating_sub(1);
        let known = self.known.iter().map(|prefix| in_common(prompt, &prefix.ids)).enumerate();
        let (mut cache, mut tokens) = (SequenceCache::default(), 0);
        if let Some((i, found)) = known.max_by_key(|(_, tokens)| *tokens).filter(|(_, tokens)| *tokens >= LEAST) {
            let prefix = self.known.remove(i);
            tokens = found.min(most);
            cache = prefix.cache.first(tokens);
            self.known.push(prefix);
        }
        let shared = shared.min(most);
        if shared >= tokens + LEAST && in_blocks(shared) <= limit {
            // What it goes on from begins every prompt that the old one began.
            self.known.retain(|prefix| !prompt[..shared].starts_with(&prefix.ids));
            while self.known.len() >= KINDS || self.tokens() + in_blocks(shared) > limit {
                self.known.remove(0);
            }
            let rest = &prompt[tokens..shared];
            llama.prefill(rest, &Offsets::from_lengths(&[rest.len()]), std::slice::from_mut(&mut cache))?;
            self.known.push(Prefix { ids: prompt[..shared].to_vec(), cache: cache.clone() });
        }
        Ok(cache)
    }
}

/// Tokens with which both begin.
fn in_common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate::{
            Budget, Completed, Engine, Request, Sampling,
            tests::{WIDE, bf16_model, byte_tokenizer, hot, model, run},
        },
        model::Model,
    };

    fn ids(n: usize, seed: u32, vocab: u32) -> Vec<u32> {
        (0..n as u32).map(|i| (i * 7 + i * i * seed + seed) % vocab).collect()
    }

    /// Lengths of what `prompts` begin with, read as one group.
    fn begun(prefixes: &mut Prefixes, model: &Model, prompts: &[Vec<u32>], limit: usize) -> Vec<usize> {
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        prefixes.begin(&model.llama, &prompts, limit).unwrap().iter().map(SequenceCache::len).collect()
    }

    /// Prompts of two kinds in turn, and one of neither.
    fn requests(samples: usize, sampling: Sampling, vocab: u32) -> Vec<Request> {
        let kinds = [ids(100, 3, vocab), ids(41, 5, vocab), ids(64, 9, vocab), Vec::new()];
        let order = [0, 1, 0, 1, 2, 3, 2, 0, 1, 2, 2];
        let prompt = |i: usize, kind: usize| [kinds[kind].clone(), ids(1 + 13 * i, 11 + i as u32, vocab)].concat();
        let request = |(i, &kind): (usize, &usize)| Request {
            key: 1000 + i as u64,
            prompt: prompt(i, kind),
            samples,
            max_new_tokens: 6 + i,
            sampling,
            want_probability: true,
        };
        order.iter().enumerate().map(request).collect()
    }

    #[test]
    fn sharing_changes_no_bit() {
        for model in [model(), bf16_model()] {
            let requests = requests(2, hot(), model.llama.config.vocab_size as u32);
            let alone: Vec<_> = requests.iter().map(|request| run(&model, WIDE, std::slice::from_ref(request))).collect();
            let alone: std::collections::BTreeMap<_, _> = alone.into_iter().flatten().collect();
            for budget in [WIDE, Budget { tokens: 4000, rows: 2 }, Budget { tokens: 900, rows: 64 }, Budget { tokens: 1, rows: 64 }] {
                assert_eq!(run(&model, budget, &requests), alone, "{budget:?}");
            }
            let backwards: Vec<Request> = requests.iter().rev().cloned().collect();
            assert_eq!(run(&model, WIDE, &backwards), alone);
            let brief: Vec<Request> = requests.iter().map(|request| Request { samples: 0, ..request.clone() }).collect();
            for (key, (logits, _)) in run(&model, WIDE, &brief) {
                assert_eq!(logits, alone[&key].0);
            }
        }
    }

    #[test]
    fn a_beginning_is_found_between_prompts_near_each_other() {
        let model = model();
        let mut prefixes = Prefixes::default();
        let prompts: Vec<Vec<u32>> = requests(0, Sampling::greedy(), 257).into_iter().map(|request| request.prompt).collect();
        // The first group: two of one kind, two of another, one of a third.
        assert_eq!(begun(&mut prefixes, &model, &prompts[..5], usize::MAX), [100, 41, 100, 41, 0]);
        assert_eq!(prefixes.tokens(), 128 + 64);
        // The others one at a time: the sixth is alone, the seventh begins as the fifth, which is still remembered.
        let found: Vec<usize> =
            prompts[5..].iter().map(|prompt| begun(&mut prefixes, &model, std::slice::from_ref(prompt), usize::MAX)[0]).collect();
        assert_eq!(found, [0, 64, 100, 41, 64, 64]);
        assert_eq!(model.llama.kv_tokens_held(), 128 + 64 + 64);
        prefixes.forget();
        assert_eq!((prefixes.tokens(), model.llama.kv_tokens_held()), (0, 0));
    }

    #[test]
    fn the_last_token_is_always_left_to_read() {
        let model = model();
        let (mut prefixes, prompt) = (Prefixes::default(), ids(90, 3, 257));
        let longer = [&prompt[..], &[1, 2, 3]].concat();
        assert_eq!(begun(&mut prefixes, &model, &[prompt.clone(), prompt.clone(), longer.clone()], usize::MAX), [89, 89, 89]);
        assert_eq!(begun(&mut prefixes, &model, &[prompt[..60].to_vec(), vec![7]], usize::MAX), [59, 0]);
        // One more token than is known is not worth a pass over the weights, LEAST are.
        let document = [&longer[..], &ids(LEAST, 5, 257)].concat();
        assert_eq!(begun(&mut prefixes, &model, &[document.clone(), [&document[..], &[1]].concat()], usize::MAX), [124, 124]);
        assert_eq!(prefixes.tokens(), 128, "the shorter one is a part of the longer");
        assert_eq!(begun(&mut prefixes, &model, &[prompt], usize::MAX), [89]);
    }

    #[test]
    fn few_are_kept_and_within_the_limit() {
        let model = model();
        let mut prefixes = Prefixes::default();
        let pair = |seed: u32| [1, 2].map(|last| [ids(40, seed, 257), vec![last]].concat());
        assert_eq!(begun(&mut prefixes, &model, &pair(1), 63), [0, 0], "no room for a block");
        for seed in 2..8 {
            assert_eq!(begun(&mut prefixes, &model, &pair(seed), usize::MAX), [40, 40]);
        }
        assert_eq!(prefixes.tokens(), KINDS * 64);
        assert_eq!(begun(&mut prefixes, &model, &pair(9), 2 * 64), [40, 40]);
        assert_eq!(prefixes.tokens(), 2 * 64);
        // The one used before the last is still there.
        prefixes.recent.clear();
        assert_eq!(begun(&mut prefixes, &model, &pair(7)[..1], usize::MAX), [40]);
        assert_eq!(begun(&mut prefixes, &model, &pair(3)[..1], usize::MAX), [0]);
    }

    #[test]
    fn beginnings_are_within_the_budget_and_gone_after_the_run() {
        let (model, tokenizer) = (model(), byte_tokenizer());
        let mut requests = requests(2, hot(), 257);
        // Some want no text: nothing is promised to them.
        requests.iter_mut().step_by(3).for_each(|request| request.samples = 0);
        for tokens in [700, 2000] {
            let most = std::cell::Cell::new(0);
            let mut emit = |_: Completed| {
                most.set(most.get().max(model.llama.kv_tokens_held()));
                Ok(())
            };
            Engine::new(&model, &tokenizer, Budget { tokens, rows: 64 }).run_all(requests.iter().cloned(), &mut emit).unwrap();
            assert!(most.get() > 256 && most.get() <= tokens, "{} of {tokens}", most.get());
            assert_eq!(model.llama.kv_tokens_held(), 0);
        }
    }
}
