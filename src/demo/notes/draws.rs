//! A walk along one step of the NOTES stream: every draw is f(seed, step, position).

use crate::rng::{Rng, streams};

/// Draws in a row. Two walks with the same seed, step and start give the same numbers.
pub(super) struct Draws {
    rng: Rng,
    step: u64,
    next: u64,
}

impl Draws {
    /// Starts at position `start` of step `step`.
    pub fn new(seed: u64, step: u64, start: u64) -> Self {
        Self { rng: Rng::new(seed, streams::NOTES), step, next: start }
    }

    fn advance(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Uniform integer in `0..bound` (0 when `bound` is 0).
    pub fn below(&mut self, bound: usize) -> usize {
        let position = self.advance();
        self.rng.below(self.step, position, bound)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1u64 << 32) as f64
    }

    /// Whether an event of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Normal with this mean and deviation.
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let position = self.advance();
        mean + deviation * f64::from(self.rng.normal(self.step, position))
    }

    /// One of a list; the empty string of an empty list.
    pub fn pick(&mut self, list: &[&'static str]) -> &'static str {
        let place = self.below(list.len());
        list.get(place).copied().unwrap_or_default()
    }

    /// The places `0..n` in a drawn order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
