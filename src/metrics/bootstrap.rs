//! Percentile intervals from resampling groups of records within strata.
//!
//! A resample draws as many clusters (a `group`, or a record without one) as there are, with replacement, within each of
//! two strata: clusters that hold a positive, and clusters that hold none. So the classes keep their shares, and records
//! that belong together stay together. Intervals are the 2.5 and 97.5 percentiles (Efron & Tibshirani, *An Introduction
//! to the Bootstrap*, 1993, §13.3) over the resamples in which the statistic is defined.
//!
//! A resample is a weight a record, drawn from `f(seed, BOOTSTRAP, resample, draw)`: the same on any number of threads.

use rayon::prelude::*;

use super::{Metric, Outcome, Sample};
use crate::rng::{Rng, streams};

/// What statistics compute from the records' weights.
type Compute<'a> = dyn Fn(&[u32]) -> Vec<Outcome> + Sync + 'a;

/// A statistic of weighted records, over `n` of them; or several that share the work of a resample.
pub struct Statistic<'a> {
    n: usize,
    compute: Box<Compute<'a>>,
}

impl<'a> Statistic<'a> {
    /// The statistic `compute(weights)`.
    pub fn new(n: usize, compute: impl Fn(&[u32]) -> Outcome + Sync + 'a) -> Self {
        Self::several(n, move |weights| [compute(weights)])
    }

    /// The statistics `compute(weights)`.
    pub fn several<const N: usize>(n: usize, compute: impl Fn(&[u32]) -> [Outcome; N] + Sync + 'a) -> Self {
        Self { n, compute: Box::new(move |weights| compute(weights).into()) }
    }

    /// Their values; NaN where undefined.
    fn values(&self, weights: &[u32]) -> impl Iterator<Item = f64> + use<> {
        (self.compute)(weights).into_iter().map(|outcome| outcome.unwrap_or(f64::NAN))
    }
}

/// The clusters of a sample, in strata.
#[derive(Debug, Clone)]
pub struct Resampler {
    rng: Rng,
    records: usize,
    members: Vec<Vec<u32>>,
    strata: [Vec<u32>; 2],
}

impl Resampler {
    /// Resamples of `sample` that depend on `seed` alone.
    pub fn new(sample: &Sample, seed: u64) -> Self {
        let mut members = vec![Vec::new(); sample.cluster_count()];
        for (i, &cluster) in sample.clusters().iter().enumerate() {
            members[cluster as usize].push(i as u32);
        }
        let holds_positive = |members: &[u32]| members.iter().any(|&i| sample.labels()[i as usize]);
        let (with, without) = (0..members.len() as u32).partition(|&c| holds_positive(&members[c as usize]));
        Self { rng: Rng::new(seed, streams::BOOTSTRAP), records: sample.len(), members, strata: [with, without] }
    }

    /// How often resample number `resample` holds each record.
    pub fn weights(&self, resample: u64) -> Vec<u32> {
        let mut weights = vec![0; self.records];
        let mut draw = 0;
        for stratum in &self.strata {
            for _ in 0..stratum.len() {
                let cluster = stratum[self.rng.below(resample, draw, stratum.len())];
                draw += 1;
                for &i in &self.members[cluster as usize] {
                    weights[i as usize] += 1;
                }
            }
        }
        weights
    }

    /// Every statistic, in order, with its interval from `resamples` resamples (none when 0).
    pub fn measure(&self, statistics: &[Statistic<'_>], resamples: usize) -> Vec<Metric> {
        let ones = vec![1; self.records];
        let draws: Vec<Vec<f64>> = (0..resamples as u64)
            .into_par_iter()
            .map(|resample| {
                let weights = self.weights(resample);
                statistics.iter().flat_map(|statistic| statistic.values(&weights)).collect()
            })
            .collect();
        let column = |k: usize| draws.iter().map(|draw| draw[k]).filter(|value| value.is_finite()).collect();
        let whole = statistics.iter().flat_map(|statistic| (statistic.compute)(&ones).into_iter().map(|outcome| (outcome, statistic.n)));
        let measured = whole.enumerate();
        measured.map(|(k, (outcome, n))| Metric::new(outcome, n).with_ci95(percentile_interval(column(k), resamples))).collect()
    }

    /// Paired two-sided p-value and interval of `statistic`, one difference, under "no difference".
    pub fn difference(&self, statistic: &Statistic<'_>, resamples: usize) -> (Metric, Option<f64>) {
        let mut draws: Vec<f64> =
            (0..resamples as u64).into_par_iter().flat_map_iter(|resample| statistic.values(&self.weights(resample))).collect();
        draws.retain(|value| value.is_finite());
        let share = |side: fn(f64) -> bool| (draws.iter().filter(|&&value| side(value)).count() + 1) as f64 / (draws.len() + 1) as f64;
        let p_value = (!draws.is_empty()).then(|| (2.0 * share(|d| d <= 0.0).min(share(|d| d >= 0.0))).min(1.0));
        let value = self.measure(std::slice::from_ref(statistic), 0).into_iter().next().unwrap_or_default();
        (value.with_ci95(percentile_interval(draws, resamples)), p_value)
    }
}

/// The 2.5 and 97.5 percentiles, linear between order statistics (numpy's default); `None` when the statistic was
/// undefined in more than one resample of twenty.
pub(super) fn percentile_interval(mut draws: Vec<f64>, resamples: usize) -> Option<[f64; 2]> {
    if draws.is_empty() || draws.len() * 20 < resamples * 19 {
        return None;
    }
    draws.sort_by(f64::total_cmp);
    Some([0.025, 0.975].map(|share| {
        let position = share * (draws.len() - 1) as f64;
        let (low, part) = (position.floor() as usize, position.fract());
        let high = (low + 1).min(draws.len() - 1);
        draws[low] + part * (draws[high] - draws[low])
    }))
}
