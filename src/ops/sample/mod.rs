//! From rows of logits to their next tokens, on the CPU and, with the same ids, on a CUDA device.
//!
//! Greedy: the largest logit, ties to the lowest id. Sampled: each token weighs e^((logit − largest) / temperature),
//! an integer in units of 2⁻⁴⁰ ([`weights`]); the nucleus is the smallest set of the heaviest tokens (ties to the
//! lowest id) that holds `top_p` of all weight; one uniform number `u = f(seed, SAMPLING, step, position)` of 24 bits
//! falls on the first token at which the running sum exceeds ⌊u·mass⌋, heaviest first, or by id when `top_p` is 1.

#[cfg(feature = "cuda")]
mod cuda;
mod rows;
mod weights;

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::cpu::simd::{max, vectorised};
use crate::rng::{Rng, streams};

pub use rows::{RowLogits, Rows};

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus: 1 keeps every token.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// All that the choice of one token depends on besides its logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// How to choose.
    pub sampling: Sampling,
    /// The sample's random step.
    pub step: u64,
    /// New tokens before this one.
    pub position: u64,
}

impl Draw {
    /// The random word, of which the upper 24 bits count.
    fn word(&self) -> u32 {
        Rng::new(self.sampling.seed, streams::SAMPLING).word(self.step, self.position)
    }

    /// The part of `mass` that the random number is of 1, rounded down.
    fn part_of(&self, mass: u64) -> u64 {
        ((u128::from(mass) * u128::from(self.word() >> 8)) >> 24) as u64
    }
}

/// The next token of a row, or `None` when the largest logit is no finite number (a broken model); `allowed` narrows
/// the choice to these ids (constrained decoding).
pub fn choose(logits: &[f32], allowed: Option<&[u32]>, draw: &Draw) -> Option<u32> {
    let Some(allowed) = allowed else { return pick(logits, draw).map(|id| id as u32) };
    let mut ids: Vec<u32> = allowed.iter().copied().filter(|&id| (id as usize) < logits.len()).collect();
    ids.sort_unstable();
    ids.dedup();
    let logits: Vec<f32> = ids.iter().map(|&id| logits[id as usize]).collect();
    pick(&logits, draw).map(|i| ids[i])
}

/// [`choose`] among all of these logits.
fn pick(logits: &[f32], draw: &Draw) -> Option<usize> {
    let Sampling { temperature, top_p, .. } = draw.sampling;
    let best = best(logits);
    if !best.is_finite() {
        return None;
    }
    if temperature <= 0.0 {
        return logits.iter().position(|&logit| logit == best);
    }
    let mut weights = vec![0; logits.len()];
    weights::softmax_weights(logits, best, temperature, &mut weights);
    let total: u64 = weights.iter().sum();
    if top_p >= 1.0 {
        return first_beyond(draw.part_of(total), weights.into_iter().enumerate());
    }
    let wanted = ((top_p * total as f64).ceil() as u64).clamp(1, total);
    let nucleus = nucleus(&weights, wanted);
    let mass = nucleus.iter().map(|(_, weight)| weight).sum();
    first_beyond(draw.part_of(mass), nucleus)
}

vectorised! {
    /// The largest that is a number; −∞ of none.
    fn best(logits: &[f32]) -> f32 {
        max(logits)
    }
}

/// The heaviest tokens up to a mass of `wanted`, the heaviest first.
fn nucleus(weights: &[u64], wanted: u64) -> Vec<(usize, u64)> {
    // Sorting a whole vocabulary costs more than the LM head of a small model, and the nucleus is nearly always in
    // its few heavy tokens: sort those, and everything only where they do not reach the mass.
    let heavy = |floor: u64| weights.iter().copied().enumerate().filter(move |(_, weight)| *weight >= floor);
    let floor = weights::ONE >> 10;
    let enough = heavy(floor).map(|(_, weight)| weight).sum::<u64>() >= wanted;
    let mut kept: Vec<(usize, u64)> = heavy(if enough { floor } else { 1 }).collect();
    kept.sort_unstable_by_key(|&(id, weight)| (Reverse(weight), id));
    let mut mass = 0;
    let before = kept.iter().take_while(|(_, weight)| {
        mass += weight;
        mass < wanted
    });
    let count = before.count() + 1;
    kept.truncate(count);
    kept
}

/// The first token at which the running sum exceeds `target`.
fn first_beyond(target: u64, weights: impl IntoIterator<Item = (usize, u64)>) -> Option<usize> {
    let mut mass = 0;
    weights.into_iter().find_map(|(id, weight)| {
        mass += weight;
        (mass > target).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, step: u64, position: u64) -> Draw {
        Draw { sampling, step, position }
    }

    fn counts(logits: &[f32], sampling: Sampling, draws: u64) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for position in 0..draws {
            counts[choose(logits, None, &draw(sampling, 5, position)).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals_and_skips_nan() {
        let greedy = draw(Sampling::greedy(), 0, 0);
        assert_eq!(choose(&[0.0, 2.0, f32::NAN, 2.0], None, &greedy), Some(1));
        assert_eq!(choose(&[f32::NAN; 3], None, &greedy), None);
        assert_eq!(choose(&[f32::NEG_INFINITY; 3], None, &greedy), None);
        assert_eq!(choose(&[0.0, f32::INFINITY], None, &greedy), None);
    }

    #[test]
    fn allowed_ids_alone_are_considered() {
        let logits = [9.0, 1.0, 3.0, 2.0];
        assert_eq!(choose(&logits, Some(&[3, 1, 7]), &draw(Sampling::greedy(), 0, 0)), Some(3));
        let hot = Sampling { temperature: 100.0, top_p: 1.0, seed: 1 };
        let chosen: Vec<u32> =
            (0..200).map(|position| choose(&logits, Some(&[3, 1]), &draw(hot, 9, position)).unwrap()).collect();
        assert!(chosen.contains(&1) && chosen.contains(&3) && chosen.iter().all(|id| [1, 3].contains(id)));
    }

    #[test]
    fn frequencies_follow_the_softmax_at_the_temperature() {
        // exp(logit / 0.5) = 1, 4, 16 → shares 1/21, 4/21, 16/21.
        let logits = [0.0, 2f32.ln(), 4f32.ln()];
        let counts = counts(&logits, Sampling { temperature: 0.5, top_p: 1.0, seed: 3 }, 21_000);
        for (count, share) in counts.iter().zip([1.0, 4.0, 16.0]) {
            assert!((*count as f64 - share * 1000.0).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        // Shares 0.5, 0.3, 0.15, 0.05.
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
        let kept = |top_p| {
            counts(&logits, Sampling { temperature: 1.0, top_p, seed: 3 }, 2000).iter().filter(|&&n| n > 0).count()
        };
        assert_eq!([kept(0.0), kept(0.4), kept(0.6), kept(0.9), kept(0.97), kept(1.0)], [1, 1, 2, 3, 4, 4]);
    }

    #[test]
    fn a_nucleus_may_reach_beyond_the_heavy_tokens() {
        // One token of weight 1 and 4000 of 1/1100 each: the first has about a fifth of the mass.
        let mut logits = vec![-1100f32.ln(); 4001];
        logits[2000] = 0.0;
        let counts = counts(&logits, Sampling { temperature: 1.0, top_p: 0.9, seed: 3 }, 500);
        assert!((60..160).contains(&counts[2000]) && counts[3800..].iter().all(|&n| n == 0), "{}", counts[2000]);
    }

    #[test]
    fn a_flat_vocabulary_is_cut_by_lowest_id() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.1, seed: 3 };
        let counts = counts(&[0.0; 100], sampling, 3000);
        assert!(counts[..10].iter().all(|&n| n > 0));
        assert!(counts[11..].iter().all(|&n| n == 0));
    }
}
