//! Rayon's iterators over the parts of slices, run by the threads of a [`team`](super::thread_team) where one is at work.
//!
//! A training step is hundreds of parallel loops. Rayon's threads fall asleep between them, and to wake one costs as much
//! as many a loop; a team's are awake.

use std::sync::{Mutex, PoisonError};

use rayon::iter::IndexedParallelIterator;
use rayon::iter::plumbing::{Producer, ProducerCallback};

use super::thread_team::map;

/// Pieces a loop is cut into for each thread: enough that all end at about the same time.
const PIECES: usize = 4;

/// Loops over what an iterator yields. Which thread takes what decides nothing but time.
pub(crate) trait Share: IndexedParallelIterator {
    /// `body` of every item, in any order.
    fn share(self, body: impl Fn(Self::Item) + Sync) {
        let length = self.len();
        self.with_producer(Loop { length, body: |items: &mut dyn Iterator<Item = Self::Item>| items.for_each(&body) });
    }

    /// What `body` makes of each item, in order.
    fn share_map<T: Send + Sync>(self, body: impl Fn(Self::Item) -> T + Sync) -> Vec<T> {
        let length = self.len();
        let pieces = Loop { length, body: |items: &mut dyn Iterator<Item = Self::Item>| items.map(&body).collect::<Vec<T>>() };
        self.with_producer(pieces).into_iter().flatten().collect()
    }
}

impl<I: IndexedParallelIterator> Share for I {}

/// What is done with each piece of an iterator over `length` items.
struct Loop<F> {
    length: usize,
    body: F,
}

impl<T, R: Send + Sync, F: Fn(&mut dyn Iterator<Item = T>) -> R + Sync> ProducerCallback<T> for Loop<F> {
    type Output = Vec<R>;

    fn callback<P: Producer<Item = T>>(self, producer: P) -> Vec<R> {
        let Self { length, body } = self;
        let wanted = (PIECES * rayon::current_num_threads()).max(length.div_ceil(producer.max_len()));
        let count = wanted.min(length / producer.min_len().max(1));
        if count <= 1 {
            return vec![body(&mut producer.into_iter())];
        }
        let (mut pieces, mut rest) = (Vec::with_capacity(count), producer);
        for i in 1..count {
            let (piece, behind) = rest.split_at(length * i / count - length * (i - 1) / count);
            pieces.push(Mutex::new(Some(piece)));
            rest = behind;
        }
        pieces.push(Mutex::new(Some(rest)));
        let take = |i: usize| pieces[i].lock().unwrap_or_else(PoisonError::into_inner).take();
        map(count, |i| take(i).map(|piece| body(&mut piece.into_iter()))).into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rayon::prelude::*;

    use super::*;
    use crate::ops::testing::on_threads;
    use crate::ops::{FEW, together};

    #[test]
    fn every_item_is_met_once_and_results_are_in_order() {
        for threads in [1, 2, 3] {
            for length in [0, 1, 2, 7, 8, 9, 1000] {
                for [least, most] in [[1, usize::MAX], [1, 1], [3, usize::MAX], [2000, usize::MAX]] {
                    let run = || {
                        let mut met = vec![0; length];
                        met.par_iter_mut().with_min_len(least).with_max_len(most).share(|met| *met += 1);
                        let doubled = (0..length).into_par_iter().with_min_len(least).with_max_len(most).share_map(|i| 2 * i);
                        (met, doubled)
                    };
                    let expected = (vec![1; length], (0..length).map(|i| 2 * i).collect());
                    assert_eq!(on_threads(threads, run), expected);
                    assert_eq!(on_threads(threads, || together(&Device::Cpu, FEW, run)), expected);
                }
            }
        }
    }
}
