//! `for_each` and `map` over rayon's indexed parallel iterators, run by the current [thread team](super::thread_team)
//! where there is one and by rayon otherwise.
//!
//! Ops keep rayon's adaptors (`par_chunks_mut`, `zip`, `enumerate`, `with_min_len`); only the last call differs.

use std::sync::{Mutex, PoisonError};

use rayon::iter::IndexedParallelIterator;
use rayon::iter::plumbing::{Producer, ProducerCallback};

use super::thread_team::map;

/// Pieces per thread that a loop is split into: enough that all threads end at about the same time.
const PIECES: usize = 4;

/// Consumes an indexed parallel iterator on the current team's threads. Results do not depend on which thread runs
/// what.
pub(crate) trait ParFor: IndexedParallelIterator {
    /// Calls `body` with every item, in any order.
    fn par_for_each(self, body: impl Fn(Self::Item) + Sync) {
        let length = self.len();
        self.with_producer(Loop { length, body: |items: &mut dyn Iterator<Item = Self::Item>| items.for_each(&body) });
    }

    /// The results of `body` for each item, in the items' order.
    fn par_map<T: Send + Sync>(self, body: impl Fn(Self::Item) -> T + Sync) -> Vec<T> {
        let length = self.len();
        let pieces =
            Loop { length, body: |items: &mut dyn Iterator<Item = Self::Item>| items.map(&body).collect::<Vec<T>>() };
        self.with_producer(pieces).into_iter().flatten().collect()
    }
}

impl<I: IndexedParallelIterator> ParFor for I {}

/// Applies `body` to each piece of a producer of `length` items.
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
        let mut pieces = Vec::with_capacity(count);
        let mut rest = producer;
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
    use crate::ops::tests::on_threads;
    use crate::ops::{DECODE_THREADS, with_spinning_workers};

    #[test]
    fn every_item_is_met_once_and_results_are_in_order() {
        for threads in [1, 2, 3] {
            for length in [0, 1, 2, 7, 8, 9, 1000] {
                for [least, most] in [[1, usize::MAX], [1, 1], [3, usize::MAX], [2000, usize::MAX]] {
                    let run = || {
                        let mut met = vec![0; length];
                        met.par_iter_mut().with_min_len(least).with_max_len(most).par_for_each(|met| *met += 1);
                        let doubled =
                            (0..length).into_par_iter().with_min_len(least).with_max_len(most).par_map(|i| 2 * i);
                        (met, doubled)
                    };
                    let expected = (vec![1; length], (0..length).map(|i| 2 * i).collect());
                    assert_eq!(on_threads(threads, run), expected);
                    assert_eq!(
                        on_threads(threads, || with_spinning_workers(&Device::Cpu, DECODE_THREADS, run)),
                        expected
                    );
                }
            }
        }
    }
}
