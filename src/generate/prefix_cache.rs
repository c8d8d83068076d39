//! A prefix cache: the keys and values of token prefixes that several prompts share (a system part, a judge's template,
//! a document that is asked about twice). Each is prefilled once a run; on a CPU every result has the same bits as
//! without the cache.
//!
//! Prefixes are found, not declared: one is cached when two prompts near each other start with the same tokens, and it
//! stays while it is among the most recently used few and small beside the budget.

use std::collections::VecDeque;

use crate::{
    error::Result,
    model::{
        Llama,
        kv_cache::{SequenceCache, round_up_to_blocks},
    },
    ops::Offsets,
};

/// Fewest tokens of a cached prefix, and fewest by which it must be longer than one that is cached already: its prefill
/// is one more pass over the weights, and sharing fewer tokens saves less than that pass costs.
const MIN_TOKENS: usize = 32;

/// Most prefixes that are cached: kinds of prompts may alternate (a judge asks two questions about each record). It is
/// also the number of earlier prompts that a new one is compared with.
const CAPACITY: usize = 4;

/// The cached prefixes of one run's prompts, for one model.
#[derive(Default)]
pub struct PrefixCache {
    /// Least recently used first.
    cached: Vec<Prefix>,
    /// The last few prompts.
    recent: VecDeque<Vec<u32>>,
}

struct Prefix {
    ids: Vec<u32>,
    cache: SequenceCache,
}

impl PrefixCache {
    /// Tokens of the blocks that the cache holds.
    pub(super) fn tokens(&self) -> usize {
        self.cached.iter().map(|prefix| round_up_to_blocks(prefix.ids.len())).sum()
    }

    /// Frees all cached prefixes.
    pub(super) fn clear(&mut self) {
        self.cached.clear();
    }

    /// For each prompt a sequence that starts with as much of a cached prefix as the prompt shares (empty if there is
    /// none) and leaves at least its last token to prefill. Newly found prefixes are prefilled and cached here if the
    /// cache holds at most `limit` tokens with them.
    pub(super) fn lookup_or_prefill(
        &mut self,
        llama: &Llama,
        prompts: &[&[u32]],
        limit: usize,
    ) -> Result<Vec<SequenceCache>> {
        let sequences = (0..prompts.len()).map(|i| {
            let shared = self.longest_shared(prompts, i);
            self.lookup_or_prefill_one(llama, prompts[i], shared, limit)
        });
        let sequences = sequences.collect::<Result<Vec<_>>>()?;
        self.recent.extend(prompts[prompts.len().saturating_sub(CAPACITY)..].iter().map(|prompt| prompt.to_vec()));
        self.recent.drain(..self.recent.len().saturating_sub(CAPACITY));
        Ok(sequences)
    }

    /// Length of the longest prefix that prompt `i` shares with another one of the group or of the recent ones.
    fn longest_shared(&self, prompts: &[&[u32]], i: usize) -> usize {
        let others = prompts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| *other);
        let all = others.chain(self.recent.iter().map(Vec::as_slice));
        all.map(|other| common_prefix_len(prompts[i], other)).max().unwrap_or(0)
    }

    fn lookup_or_prefill_one(
        &mut self,
        llama: &Llama,
        prompt: &[u32],
        shared: usize,
        limit: usize,
    ) -> Result<SequenceCache> {
        let most = prompt.len().saturating_sub(1);
        let matches = self.cached.iter().map(|prefix| common_prefix_len(prompt, &prefix.ids)).enumerate();
        let mut cache = SequenceCache::default();
        let mut tokens = 0;
        if let Some((i, found)) = matches.max_by_key(|(_, tokens)| *tokens).filter(|(_, tokens)| *tokens >= MIN_TOKENS)
        {
            let prefix = self.cached.remove(i);
            tokens = found.min(most);
            cache = prefix.cache.prefix(tokens);
            self.cached.push(prefix);
        }
        let shared = shared.min(most);
        if shared >= tokens + MIN_TOKENS && round_up_to_blocks(shared) <= limit {
            // The new prefix replaces a cached one that it extends.
            self.cached.retain(|prefix| !prompt[..shared].starts_with(&prefix.ids));
            while self.cached.len() >= CAPACITY || self.tokens() + round_up_to_blocks(shared) > limit {
                self.cached.remove(0);
            }
            let rest = &prompt[tokens..shared];
            llama.prefill(rest, &Offsets::from_lengths(&[rest.len()]), std::slice::from_mut(&mut cache))?;
            self.cached.push(Prefix { ids: prompt[..shared].to_vec(), cache: cache.clone() });
        }
        Ok(cache)
    }
}

/// Number of leading tokens that are equal.
fn common_prefix_len(a: &[u32], b: &[u32]) -> usize {
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

    /// Lengths of the prefixes found for one group of prompts.
    fn found(prefixes: &mut PrefixCache, model: &Model, prompts: &[Vec<u32>], limit: usize) -> Vec<usize> {
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        prefixes.lookup_or_prefill(&model.llama, &prompts, limit).unwrap().iter().map(SequenceCache::len).collect()
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
            continuations: Vec::new(),
        };
        order.iter().enumerate().map(request).collect()
    }

    #[test]
    fn sharing_changes_no_bit() {
        for model in [model(), bf16_model()] {
            let requests = requests(2, hot(), model.llama.config.vocab_size as u32);
            let alone: Vec<_> =
                requests.iter().map(|request| run(&model, WIDE, std::slice::from_ref(request))).collect();
            let alone: std::collections::BTreeMap<_, _> = alone.into_iter().flatten().collect();
            for budget in [
                WIDE,
                Budget { tokens: 4000, rows: 2 },
                Budget { tokens: 900, rows: 64 },
                Budget { tokens: 1, rows: 64 },
            ] {
                assert_eq!(run(&model, budget, &requests), alone, "{budget:?}");
            }
            let backwards: Vec<Request> = requests.iter().rev().cloned().collect();
            assert_eq!(run(&model, WIDE, &backwards), alone);
            let prefill_only: Vec<Request> =
                requests.iter().map(|request| Request { samples: 0, ..request.clone() }).collect();
            for (key, (logits, _)) in run(&model, WIDE, &prefill_only) {
                assert_eq!(logits, alone[&key].0);
            }
        }
    }

    #[test]
    fn a_prefix_is_found_between_prompts_near_each_other() {
        let model = model();
        let mut prefixes = PrefixCache::default();
        let prompts: Vec<Vec<u32>> =
            requests(0, Sampling::greedy(), 257).into_iter().map(|request| request.prompt).collect();
        // The first group: two of one kind, two of another, one of a third.
        assert_eq!(found(&mut prefixes, &model, &prompts[..5], usize::MAX), [100, 41, 100, 41, 0]);
        assert_eq!(prefixes.tokens(), 128 + 64);
        // The others one at a time: the sixth is alone, the seventh begins as the fifth, which is still remembered.
        let lengths: Vec<usize> = prompts[5..]
            .iter()
            .map(|prompt| found(&mut prefixes, &model, std::slice::from_ref(prompt), usize::MAX)[0])
            .collect();
        assert_eq!(lengths, [0, 64, 100, 41, 64, 64]);
        assert_eq!(model.llama.kv_tokens_held(), 128 + 64 + 64);
        prefixes.clear();
        assert_eq!((prefixes.tokens(), model.llama.kv_tokens_held()), (0, 0));
    }

    #[test]
    fn the_last_token_is_always_left_to_read() {
        let model = model();
        let mut prefixes = PrefixCache::default();
        let prompt = ids(90, 3, 257);
        let longer = [&prompt[..], &[1, 2, 3]].concat();
        assert_eq!(
            found(&mut prefixes, &model, &[prompt.clone(), prompt.clone(), longer.clone()], usize::MAX),
            [89, 89, 89]
        );
        assert_eq!(found(&mut prefixes, &model, &[prompt[..60].to_vec(), vec![7]], usize::MAX), [59, 0]);
        // One more token than is known is not worth a pass over the weights, MIN_TOKENS are.
        let document = [&longer[..], &ids(MIN_TOKENS, 5, 257)].concat();
        assert_eq!(
            found(&mut prefixes, &model, &[document.clone(), [&document[..], &[1]].concat()], usize::MAX),
            [124, 124]
        );
        assert_eq!(prefixes.tokens(), 128, "the shorter one is a part of the longer");
        assert_eq!(found(&mut prefixes, &model, &[prompt], usize::MAX), [89]);
    }

    #[test]
    fn few_are_kept_and_within_the_limit() {
        let model = model();
        let mut prefixes = PrefixCache::default();
        let pair = |seed: u32| [1, 2].map(|last| [ids(40, seed, 257), vec![last]].concat());
        assert_eq!(found(&mut prefixes, &model, &pair(1), 63), [0, 0], "no room for a block");
        for seed in 2..8 {
            assert_eq!(found(&mut prefixes, &model, &pair(seed), usize::MAX), [40, 40]);
        }
        assert_eq!(prefixes.tokens(), CAPACITY * 64);
        assert_eq!(found(&mut prefixes, &model, &pair(9), 2 * 64), [40, 40]);
        assert_eq!(prefixes.tokens(), 2 * 64);
        // The one used before the last is still there.
        prefixes.recent.clear();
        assert_eq!(found(&mut prefixes, &model, &pair(7)[..1], usize::MAX), [40]);
        assert_eq!(found(&mut prefixes, &model, &pair(3)[..1], usize::MAX), [0]);
    }

    #[test]
    fn prefixes_are_within_the_budget_and_freed_after_the_run() {
        let model = model();
        let tokenizer = byte_tokenizer();
        let mut requests = requests(2, hot(), 257);
        // Some want no text: nothing is promised to them.
        requests.iter_mut().step_by(3).for_each(|request| request.samples = 0);
        for tokens in [700, 2000] {
            let most = std::cell::Cell::new(0);
            let mut emit = |_: Completed| {
                most.set(most.get().max(model.llama.kv_tokens_held()));
                Ok(())
            };
            Engine::new(&model, &tokenizer, Budget { tokens, rows: 64 })
                .run_all(requests.iter().cloned(), &mut emit)
                .unwrap();
            assert!(most.get() > 256 && most.get() <= tokens, "{} of {tokens}", most.get());
            assert_eq!(model.llama.kv_tokens_held(), 0);
        }
    }
}
