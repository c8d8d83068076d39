//! Which records an optimizer step sees, on which rank, in which micro-batch: a pure function of seed and step.
//!
//! An epoch's order is cut into groups of `batch_size × accumulation × ranks` samples, one optimizer step each; a
//! partial last group is a step with its own means. A group is cut into micro-batches of `batch_size`, dealt to the
//! ranks in turn. Nothing is stored: a resume asks for step k and gets what an uninterrupted run would have seen.

use super::class_balance::BalancedSampler;
use crate::{
    config,
    error::{Error, Result},
    rng::{Rng, streams},
};

/// The shape of a training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Records of the train split (n).
    pub records: usize,
    /// Records in one forward pass.
    pub batch_size: usize,
    /// Forward passes of a rank in one optimizer step.
    pub accumulation: usize,
    /// Data-parallel processes.
    pub ranks: usize,
    /// Passes over the records.
    pub epochs: usize,
    /// A new order each epoch?
    pub shuffle: bool,
    /// Draws an epoch's records, where that is not every one once.
    pub balanced: Option<BalancedSampler>,
    /// Prompt tokens of each record, where the short ones go first in every epoch.
    pub short_first: Option<Vec<usize>>,
    /// Seed of the order.
    pub seed: u64,
}

/// A record's place in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Index into the train split.
    pub record: usize,
    /// Index within training, counted over epochs: keys dropout, so a mask does not depend on batching or ranks.
    pub key: u64,
}

impl BatchPlan {
    /// The plan `[train]` asks for, of records with so many prompt tokens, on so many ranks.
    pub fn new(
        settings: &config::Train,
        prompt_tokens: Vec<usize>,
        balanced: Option<BalancedSampler>,
        ranks: usize,
        seed: u64,
    ) -> Result<Self> {
        let records = prompt_tokens.len();
        let epochs = settings.epochs;
        let shuffle = settings.shuffle;
        let short_first = (settings.curriculum == config::Curriculum::ShortFirst).then_some(prompt_tokens);
        let batch_size = settings.batch_size.max(1);
        let accumulation = match settings.effective_batch {
            None => settings.grad_accumulation.max(1),
            Some(effective) if effective > 0 && effective.is_multiple_of(batch_size * ranks) => {
                effective / (batch_size * ranks)
            }
            Some(effective) => return Err(indivisible(effective, batch_size, ranks)),
        };
        Ok(Self { records, batch_size, accumulation, ranks, epochs, shuffle, balanced, short_first, seed })
    }

    /// Samples in a full group.
    pub fn group_size(&self) -> usize {
        self.batch_size * self.accumulation * self.ranks
    }

    /// Optimizer steps in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.records.div_ceil(self.group_size())
    }

    /// T: optimizer steps in all.
    pub fn total_steps(&self) -> usize {
        self.epochs * self.steps_per_epoch()
    }

    /// The last optimizer step of a run of at most so many.
    pub fn last_step(&self, max_steps: Option<usize>) -> usize {
        max_steps.unwrap_or(usize::MAX).min(self.total_steps())
    }

    /// The epoch, counted from 1, of optimizer step `k`, counted from 1.
    pub fn epoch_of(&self, k: usize) -> usize {
        (k - 1) / self.steps_per_epoch() + 1
    }

    /// Does step `k` end an epoch?
    pub fn ends_epoch(&self, k: usize) -> bool {
        k.is_multiple_of(self.steps_per_epoch())
    }

    /// Record indices in the order of `epoch`, counted from 1.
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order = if self.shuffle {
            Rng::new(self.seed, streams::SHUFFLE).permutation(epoch as u64, self.records)
        } else {
            (0..self.records).collect()
        };
        if let Some(balanced) = &self.balanced {
            let drawn = balanced.epoch(self.seed, epoch);
            order.iter_mut().for_each(|place| *place = drawn[*place]);
        }
        if let Some(tokens) = &self.short_first {
            // Stable: records of equal length stay shuffled.
            order.sort_by_key(|&record| tokens[record]);
        }
        order
    }

    /// The samples of optimizer step `k`; `order` is [`BatchPlan::order`] of its epoch.
    pub fn group(&self, k: usize, order: &[usize]) -> Vec<Sample> {
        let start = (k - 1) % self.steps_per_epoch() * self.group_size();
        let end = (start + self.group_size()).min(self.records);
        let before = (self.epoch_of(k) - 1) * self.records;
        (start..end).map(|i| Sample { record: order[i], key: (before + i) as u64 }).collect()
    }

    /// The micro-batches of `rank` within a group.
    pub fn micro_batches<'a>(&self, group: &'a [Sample], rank: usize) -> impl Iterator<Item = &'a [Sample]> + use<'a> {
        group.chunks(self.batch_size).skip(rank).step_by(self.ranks)
    }
}

/// `effective_batch` cannot be cut into micro-batches for these ranks; the hint names what would divide it.
fn indivisible(effective: usize, batch_size: usize, ranks: usize) -> Error {
    let list = |of: usize| {
        let divisors: Vec<String> = (1..=of).filter(|n| of.is_multiple_of(*n)).map(|n| n.to_string()).collect();
        divisors.join(", ")
    };
    let error = Error::usage(format!(
        "train.effective_batch = {effective} is not a multiple of batch_size {batch_size} × {ranks} ranks"
    ));
    if effective.is_multiple_of(ranks) {
        return error.hint(format!("on so many ranks it takes a batch_size of {}", list(effective / ranks)));
    }
    let batch_size = if effective.is_multiple_of(batch_size) { batch_size } else { 1 };
    error.hint(format!("with batch_size {batch_size} it takes {} ranks", list(effective / batch_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> BatchPlan {
        BatchPlan {
            records: 11,
            batch_size: 2,
            accumulation: 2,
            ranks: 1,
            epochs: 3,
            shuffle: true,
            balanced: None,
            short_first: None,
            seed: 7,
        }
    }

    #[test]
    fn every_record_is_seen_once_an_epoch_and_the_last_group_is_partial() {
        let plan = plan();
        assert_eq!((plan.steps_per_epoch(), plan.total_steps()), (3, 9));
        for epoch in 1..=3 {
            let order = plan.order(epoch);
            let steps = (epoch - 1) * 3 + 1..=epoch * 3;
            let groups: Vec<Vec<Sample>> = steps.map(|k| plan.group(k, &order)).collect();
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 3]);
            let mut seen: Vec<usize> = groups.concat().iter().map(|s| s.record).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..11).collect::<Vec<_>>());
        }
        assert_ne!(plan.order(1), plan.order(2));
    }

    #[test]
    fn short_prompts_go_first_and_equal_ones_are_shuffled_anew() {
        let tokens: Vec<usize> = (0..40).map(|record| 9 - record / 5).collect();
        let settings = config::Train { curriculum: config::Curriculum::ShortFirst, ..config::Train::default() };
        let plan = BatchPlan::new(&settings, tokens.clone(), None, 1, 7).unwrap();
        let first = plan.order(1);
        let second = plan.order(2);
        for order in [&first, &second] {
            assert!(order.is_sorted_by_key(|&record| tokens[record]));
            let mut seen = order.clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_eq!(first, BatchPlan::new(&settings, tokens.clone(), None, 1, 7).unwrap().order(1));
        let in_file = BatchPlan { shuffle: false, ..plan };
        assert_eq!(in_file.order(3)[..6], [35, 36, 37, 38, 39, 30]);
    }

    #[test]
    fn keys_do_not_depend_on_batching_or_ranks() {
        let keys = |plan: BatchPlan| -> Vec<Sample> {
            (1..=plan.total_steps()).flat_map(|k| plan.group(k, &plan.order(plan.epoch_of(k)))).collect()
        };
        let one = keys(plan());
        assert_eq!(one, keys(BatchPlan { batch_size: 1, accumulation: 4, ..plan() }));
        assert_eq!(one, keys(BatchPlan { batch_size: 1, accumulation: 1, ranks: 4, ..plan() }));
        assert_eq!(one.iter().map(|s| s.key).collect::<Vec<_>>(), (0..33).collect::<Vec<_>>());
    }

    #[test]
    fn ranks_share_a_group_without_overlap() {
        let plan = BatchPlan { batch_size: 1, accumulation: 2, ranks: 2, ..plan() };
        let group = plan.group(1, &plan.order(1));
        let dealt: Vec<Sample> =
            (0..2).flat_map(|rank| plan.micro_batches(&group, rank).flatten().copied().collect::<Vec<_>>()).collect();
        assert_eq!(dealt, [group[0], group[2], group[1], group[3]]);
    }

    #[test]
    fn effective_batch_sets_accumulation_or_is_refused() {
        let plan = |batch_size, ranks| {
            let settings = config::Train { batch_size, effective_batch: Some(32), ..config::Train::default() };
            BatchPlan::new(&settings, vec![1; 100], None, ranks, 0)
        };
        assert_eq!([1, 2, 8].map(|ranks| plan(4, ranks).unwrap().accumulation), [8, 4, 1]);
        let refused = |batch_size, ranks| {
            let error = plan(batch_size, ranks).unwrap_err();
            (error.exit_code(), error.hint_text().unwrap().to_owned())
        };
        assert_eq!(refused(5, 2), (2, "on so many ranks it takes a batch_size of 1, 2, 4, 8, 16".into()));
        assert_eq!(refused(4, 3), (2, "with batch_size 4 it takes 1, 2, 4, 8 ranks".into()));
        assert_eq!(refused(5, 3), (2, "with batch_size 1 it takes 1, 2, 4, 8, 16, 32 ranks".into()));
    }
}
