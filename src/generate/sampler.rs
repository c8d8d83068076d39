//! From a row of logits to the next token.
//!
//! Greedy: the largest logit, ties to the lowest id. Sampled: p = softmax(logits / temperature), cut to the smallest set
//! of most probable tokens whose mass reaches `top_p` (ties to the lowest id), then one uniform draw
//! `u = f(seed, SAMPLING, step(key, sample), position)` against the running sum. All sums in f64.

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, streams};

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

/// The random step of sample `sample` of the request named `key`: splitmix64's finaliser, so that the trials of one
/// record and the same trial of two records never meet.
pub fn step(key: u64, sample: usize) -> u64 {
    let mut z = key.wrapping_add((sample as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The next token of a row, or `None` when no logit is a number (a broken model).
///
/// `allowed` narrows the choice to these ids (constrained decoding); `position` counts new tokens from 0.
pub fn choose(logits: &[f32], allowed: Option<&[u32]>, sampling: &Sampling, step: u64, position: usize) -> Option<u32> {
    let at = |id: u32| logits.get(id as usize).copied().filter(|logit| !logit.is_nan()).map(|logit| (id, logit));
    let best = match allowed {
        Some(ids) => argmax(ids.iter().filter_map(|&id| at(id))),
        None => argmax(logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan()).map(|(id, &logit)| (id as u32, logit))),
    }?;
    if !best.1.is_finite() || sampling.temperature <= 0.0 {
        return best.1.is_finite().then_some(best.0);
    }
    let weight = |logit: f32| (f64::from(logit - best.1) / sampling.temperature).exp();
    let weights: Vec<(u32, f64)> = match allowed {
        Some(ids) => ids.iter().filter_map(|&id| at(id)).map(|(id, logit)| (id, weight(logit))).collect(),
        None => (0u32..).zip(logits).filter(|(_, logit)| !logit.is_nan()).map(|(id, &logit)| (id, weight(logit))).collect(),
    };
    let uniform = Rng::new(sampling.seed, streams::SAMPLING).uniform(step, position as u64);
    Some(draw(&nucleus(weights, sampling.top_p), f64::from(uniform)))
}

/// The largest logit and its id; the lowest id among equals.
fn argmax(candidates: impl Iterator<Item = (u32, f32)>) -> Option<(u32, f32)> {
    candidates.reduce(|best, next| if next.1 > best.1 || (next.1 == best.1 && next.0 < best.0) { next } else { best })
}

/// The most probable tokens up to a mass of `top_p`, most probable first; every token, by id, when `top_p` is 1.
fn nucleus(weights: Vec<(u32, f64)>, top_p: f64) -> Vec<(u32, f64)> {
    if top_p >= 1.0 {
        return weights;
    }
    let wanted = top_p * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    // Sorting a whole vocabulary costs more than the LM head of a small model, and the nucleus is nearly always in
    // its few heavy tokens: sort those, and everything only where they do not reach the mass.
    for floor in [1e-3, 0.0] {
        let mut heavy: Vec<(u32, f64)> = weights.iter().copied().filter(|(_, weight)| *weight >= floor).collect();
        heavy.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut mass = 0.0;
        for kept in 0..heavy.len() {
            mass += heavy[kept].1;
            if mass >= wanted {
                heavy.truncate(kept + 1);
                return heavy;
            }
        }
        if floor == 0.0 {
            return heavy;
        }
    }
    weights
}

/// The token in whose share of the total mass `uniform` falls.
fn draw(weights: &[(u32, f64)], uniform: f64) -> u32 {
    let target = uniform * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut mass = 0.0;
    for &(id, weight) in weights {
        mass += weight;
        if mass > target {
            return id;
        }
    }
    // Rounding can leave the sum a hair below the target; the last token with any weight takes it.
    weights.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(0, |&(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(logits: &[f32], sampling: Sampling, draws: usize) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for position in 0..draws {
            counts[choose(logits, None, &sampling, step(5, 0), position).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals_and_skips_nan() {
        assert_eq!(choose(&[0.0, 2.0, f32::NAN, 2.0], None, &Sampling::greedy(), 0, 0), Some(1));
        assert_eq!(choose(&[f32::NAN; 3], None, &Sampling::greedy(), 0, 0), None);
        assert_eq!(choose(&[f32::NEG_INFINITY; 3], None, &Sampling::greedy(), 0, 0), None);
    }

    #[test]
    fn allowed_ids_alone_are_considered() {
        let logits = [9.0, 1.0, 3.0, 2.0];
        assert_eq!(choose(&logits, Some(&[3, 1]), &Sampling::greedy(), 0, 0), Some(3));
        let hot = Sampling { temperature: 100.0, top_p: 1.0, seed: 1 };
        assert!((0..200).all(|position| [1, 3].contains(&choose(&logits, Some(&[3, 1]), &hot, 9, position).unwrap())));
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
        let kept = |top_p| counts(&logits, Sampling { temperature: 1.0, top_p, seed: 3 }, 2000).iter().filter(|&&n| n > 0).count();
        assert_eq!([kept(0.4), kept(0.6), kept(0.9), kept(0.97), kept(1.0)], [1, 2, 3, 4, 4]);
    }

    #[test]
    fn a_flat_vocabulary_is_cut_by_lowest_id() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.1, seed: 3 };
        let counts = counts(&[0.0; 100], sampling, 3000);
        assert!(counts[..10].iter().all(|&n| n > 0));
        assert!(counts[11..].iter().all(|&n| n == 0));
    }

    #[test]
    fn steps_differ_between_trials_and_records() {
        let steps: std::collections::BTreeSet<u64> = (0..50).flat_map(|key| (0..50).map(move |sample| step(key, sample))).collect();
        assert_eq!(steps.len(), 2500);
    }
}
