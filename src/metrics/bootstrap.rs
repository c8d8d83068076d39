//! Percentile intervals from resampling groups of records within strata.
//!
//! A resample draws as many clusters (a `group`, or a record without one) as there are, with replacement, within each
//! stratum. Of two classes the strata are clusters that hold a positive and clusters that hold none; of more, clusters
//! by the rarest class that they hold. So the classes keep their shares, and records that belong together stay
//! together. Intervals are the 2.5 and 97.5 percentiles (Efron & Tibshirani, *An
//! Introduction to the Bootstrap*, 1993, §13.3) over the resamples in which the statistic is defined.
//!
//! There is an interval only where resamples can tell one, in this order: a proportion of 0 or 1 gets
//! Clopper and Pearson's with the clusters of its denominator; none where a stratum is a single cluster, none from
//! fewer than 200 resamples in which the statistic is defined or under 95 % of them, and none where the resamples do
//! not vary, or where resampling biases the statistic so much that its own value lies outside of the percentiles.
//!
//! A resample is a weight a record, drawn from `f(seed, BOOTSTRAP, resample, draw)`: the same on any number of threads.

use rayon::prelude::*;

use super::{Metric, Outcome, Sample, clusters::Clusters};
use crate::{
    progress,
    rng::{Rng, streams},
    signals::leave_if_stopped,
};

/// An interval, or why there is none.
pub type Interval = Result<[f64; 2], &'static str>;

const ONE_POSITIVE: &str = "no interval: all positives are one group";
const ONE_OTHER: &str = "no interval: only one group holds no positive";
const FEW_CLUSTERS: &str = "no interval: fewer than two groups in the denominator";
const FEW_RESAMPLES: &str = "no interval: fewer than 200 resamples (eval.bootstrap)";
const FEW_DEFINED: &str = "no interval: undefined in too many resamples";
/// Of a statistic that resampling biases, such as a small calibration error, all that is known is that percentiles are
/// not its interval.
const BESIDE: &str = "no interval: the resamples lie beside the value";
/// Sums of the same records in another order differ by less.
const ROUNDING: f64 = 1e-12;
pub(super) const NO_VARIATION: &str = "no interval: no variation";

/// What statistics compute from the records' weights.
type Compute<'a> = dyn Fn(&[u32]) -> Vec<Outcome> + Sync + 'a;

/// A statistic of weighted records, over `n` of them; or several that share the work of a resample.
pub struct Statistic<'a> {
    n: usize,
    compute: Box<Compute<'a>>,
    /// Clusters in the denominator of each, where it is a proportion; what is beyond the end is none.
    proportions: Vec<Option<usize>>,
}

impl<'a> Statistic<'a> {
    /// The statistic `compute(weights)`.
    pub fn new(n: usize, compute: impl Fn(&[u32]) -> Outcome + Sync + 'a) -> Self {
        Self::several(n, move |weights| [compute(weights)])
    }

    /// The statistics `compute(weights)`.
    pub fn several<const N: usize>(n: usize, compute: impl Fn(&[u32]) -> [Outcome; N] + Sync + 'a) -> Self {
        Self::many(n, move |weights| compute(weights).into())
    }

    /// The statistics `compute(weights)`, always as many.
    pub fn many(n: usize, compute: impl Fn(&[u32]) -> Vec<Outcome> + Sync + 'a) -> Self {
        Self { n, compute: Box::new(compute), proportions: Vec::new() }
    }

    /// Says that it is a proportion with so many clusters in its denominator.
    #[must_use]
    pub fn proportion_of(self, clusters: usize) -> Self {
        self.proportions_of(vec![Some(clusters)])
    }

    /// Says which of them are proportions, with so many clusters in the denominator.
    #[must_use]
    pub fn proportions_of(mut self, clusters: Vec<Option<usize>>) -> Self {
        self.proportions = clusters;
        self
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
    strata: Vec<Stratum>,
}

/// Clusters that are drawn among themselves.
#[derive(Debug, Clone, Default)]
struct Stratum {
    /// The records of the first cluster, then those of the second, and so on.
    records: Vec<u32>,
    /// Where each cluster ends among them.
    ends: Vec<u32>,
    /// Why there is no interval where it is a single cluster.
    alone: &'static str,
}

impl Resampler {
    /// Resamples of `sample` that depend on `seed` alone.
    pub fn new(sample: &Sample, seed: u64) -> Self {
        let holds_positive = |members: &[u32]| members.iter().any(|&i| sample.labels()[i as usize]);
        let stratum = |members: &[u32]| usize::from(!holds_positive(members));
        Self::stratified(sample.grouping(), &[ONE_POSITIVE, ONE_OTHER], stratum, seed)
    }

    /// Resamples within strata: `stratum` numbers that of a cluster by its records, `alone` says of each why there is
    /// no interval where it is a single cluster.
    pub(super) fn stratified(
        clusters: &Clusters,
        alone: &[&'static str],
        stratum: impl Fn(&[u32]) -> usize,
        seed: u64,
    ) -> Self {
        let members = clusters.members();
        let mut strata: Vec<Stratum> = alone.iter().map(|alone| Stratum { alone, ..Stratum::default() }).collect();
        for members in &members {
            let Stratum { records, ends, .. } = &mut strata[stratum(members)];
            records.extend(members);
            ends.push(records.len() as u32);
        }
        Self { rng: Rng::new(seed, streams::BOOTSTRAP), records: clusters.of().len(), strata }
    }

    /// How often resample number `resample` holds each record.
    pub fn weights(&self, resample: u64) -> Vec<u32> {
        leave_if_stopped();
        progress::resampled();
        let mut weights = vec![0; self.records];
        let mut draw = 0;
        for Stratum { records, ends, .. } in &self.strata {
            // Clusters are counted first: a million records would be reached in random order, again and again.
            let mut times = vec![0u32; ends.len()];
            self.rng.each_below(resample, draw, ends.len(), |cluster| times[cluster] += 1);
            draw += ends.len() as u64;
            let mut start = 0;
            for (&end, times) in ends.iter().zip(times) {
                for &i in &records[start as usize..end as usize] {
                    weights[i as usize] += times;
                }
                start = end;
            }
        }
        weights
    }

    /// Which stratum holds a single cluster: it is the same in every resample, so no resample tells how it varies.
    fn thin(&self) -> Option<&'static str> {
        self.strata.iter().find(|stratum| stratum.ends.len() == 1).map(|stratum| stratum.alone)
    }

    /// Every statistic, in order, with its interval from `resamples` resamples.
    pub fn measure(&self, statistics: &[Statistic<'_>], resamples: usize) -> Vec<Metric> {
        let draws = self.draw(statistics, resamples);
        let measured = self.whole(statistics).into_iter().enumerate();
        measured.map(|(k, whole)| whole.metric(self.interval(&whole, column(&draws, k), resamples))).collect()
    }

    /// Every statistic, a difference, with its interval and the paired two-sided p-value under "no difference".
    pub fn differences(&self, statistics: &[Statistic<'_>], resamples: usize) -> Vec<(Metric, Option<f64>)> {
        let draws = self.draw(statistics, resamples);
        let measured = self.whole(statistics).into_iter().enumerate().map(|(k, whole)| {
            let draws = column(&draws, k);
            let p_value = whole.outcome.ok().and_then(|value| self.p_value(value, &draws, resamples));
            (whole.metric(self.interval(&whole, draws, resamples)), p_value)
        });
        measured.collect()
    }

    /// The statistics of every resample.
    fn draw(&self, statistics: &[Statistic<'_>], resamples: usize) -> Vec<Vec<f64>> {
        let draw = |resample| {
            let weights = self.weights(resample);
            statistics.iter().flat_map(|statistic| statistic.values(&weights)).collect()
        };
        (0..resamples as u64).into_par_iter().map(draw).collect()
    }

    /// The statistics of the sample itself.
    fn whole(&self, statistics: &[Statistic<'_>]) -> Vec<Whole> {
        let ones = vec![1; self.records];
        let whole = statistics.iter().flat_map(|statistic| {
            let outcomes = (statistic.compute)(&ones).into_iter().enumerate();
            outcomes.map(move |(k, outcome)| Whole {
                outcome,
                n: statistic.n,
                proportion_of: statistic.proportions.get(k).copied().flatten(),
            })
        });
        whole.collect()
    }

    fn interval(&self, whole: &Whole, draws: Vec<f64>, resamples: usize) -> Interval {
        match (whole.outcome, whole.proportion_of) {
            (Ok(value), Some(clusters)) if value == 0.0 || value == 1.0 => {
                clopper_pearson_at_end(value == 1.0, clusters).ok_or(FEW_CLUSTERS)
            }
            (outcome, _) => {
                let interval = self.percentile_interval(draws, resamples)?;
                let beside = |value: f64| value < interval[0] - ROUNDING || value > interval[1] + ROUNDING;
                if outcome.is_ok_and(beside) { Err(BESIDE) } else { Ok(interval) }
            }
        }
    }

    /// The interval of a statistic that is no proportion of 0 or 1, from its values over the resamples (those that are
    /// defined).
    pub(super) fn percentile_interval(&self, draws: Vec<f64>, resamples: usize) -> Interval {
        if let Some(reason) = self.thin() {
            return Err(reason);
        }
        if draws.len() < MINIMUM || draws.len() * 20 < resamples * 19 {
            return Err(if resamples < MINIMUM { FEW_RESAMPLES } else { FEW_DEFINED });
        }
        let [low, high] = percentiles(draws);
        if is_point([low, high]) { Err(NO_VARIATION) } else { Ok([low, high]) }
    }

    fn p_value(&self, value: f64, draws: &[f64], resamples: usize) -> Option<f64> {
        match self.percentile_interval(draws.to_vec(), resamples) {
            // The two are the same throughout; a difference that never varies is beyond what resamples can judge.
            Err(NO_VARIATION) => (value == 0.0).then_some(1.0),
            Err(_) => None,
            Ok(_) => {
                let share = |side: fn(f64) -> bool| {
                    (draws.iter().filter(|&&draw| side(draw)).count() + 1) as f64 / (draws.len() + 1) as f64
                };
                Some((2.0 * share(|draw| draw <= 0.0).min(share(|draw| draw >= 0.0))).min(1.0))
            }
        }
    }
}

/// A statistic of the whole sample.
struct Whole {
    outcome: Outcome,
    n: usize,
    proportion_of: Option<usize>,
}

impl Whole {
    fn metric(&self, interval: Interval) -> Metric {
        Metric::new(self.outcome, self.n).with_interval(interval)
    }
}

/// The values of statistic `k` that are defined.
fn column(draws: &[Vec<f64>], k: usize) -> Vec<f64> {
    draws.iter().map(|draw| draw[k]).filter(|value| value.is_finite()).collect()
}

/// Defined resamples below which percentiles at 2.5 and 97.5 say nothing.
const MINIMUM: usize = 200;

/// Clopper and Pearson's 95 % interval (*Biometrika* 26, 1934) of `n` of `n` (`all`) or 0 of `n`; `None` for fewer than
/// two.
pub(super) fn clopper_pearson_at_end(all: bool, n: usize) -> Option<[f64; 2]> {
    let tail = 0.025f64.powf(1.0 / n as f64);
    (n >= 2).then_some(if all { [tail, 1.0] } else { [0.0, 1.0 - tail] })
}

/// Whether the two ends are one, but for rounding.
pub(super) fn is_point([low, high]: [f64; 2]) -> bool {
    high - low <= 1e-12 * high.abs().max(low.abs()).max(1.0)
}

/// The 2.5 and 97.5 percentiles, linear between order statistics (numpy's default).
fn percentiles(mut draws: Vec<f64>) -> [f64; 2] {
    draws.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let position = share * (draws.len() - 1) as f64;
        let low = position.floor() as usize;
        let part = position.fract();
        let high = (low + 1).min(draws.len() - 1);
        draws[low] + part * (draws[high] - draws[low])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(groups: &[(&str, bool)]) -> Sample {
        let mut sample = Sample::new();
        groups
            .iter()
            .enumerate()
            .for_each(|(i, &(group, label))| sample.push(i as f64 / 10.0, label, None, Some(group)));
        sample
    }

    fn reason(sample: &Sample, statistic: Statistic<'_>, resamples: usize) -> (Option<[f64; 2]>, Option<String>) {
        let metric = Resampler::new(sample, 1).measure(&[statistic], resamples).swap_remove(0);
        (metric.ci95, metric.reason)
    }

    #[test]
    fn every_missing_interval_has_the_reason_that_is_its_cause() {
        let apart = sample(&[("a", true), ("b", true), ("c", false), ("d", false), ("e", false)]);
        let thin = sample(&[("a", true), ("a", true), ("c", false), ("d", false)]);
        let first = |weights: &[u32]| Ok(f64::from(weights[0]));
        let half = |_: &[u32]| Ok(0.5);
        let all = |_: &[u32]| Ok(1.0);
        assert!(reason(&apart, Statistic::new(5, first), 200).0.is_some());
        assert_eq!(reason(&apart, Statistic::new(5, first), 199), (None, Some(FEW_RESAMPLES.into())));
        assert_eq!(reason(&apart, Statistic::new(5, half), 300), (None, Some(NO_VARIATION.into())));
        assert_eq!(reason(&thin, Statistic::new(4, first), 300), (None, Some(ONE_POSITIVE.into())));
        let seldom =
            |weights: &[u32]| if weights[0] == 1 || weights.iter().all(|&w| w == 1) { Ok(1.0) } else { Err("no") };
        assert_eq!(reason(&apart, Statistic::new(5, seldom), 300), (None, Some(FEW_DEFINED.into())));
        // A resample never holds more different records than there are.
        let different = |weights: &[u32]| Ok(weights.iter().filter(|&&weight| weight > 0).count() as f64);
        let many = sample(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"].map(|name| (name, name > "f")));
        assert_eq!(reason(&many, Statistic::new(12, different), 300), (None, Some(BESIDE.into())));
        // A proportion of 1 comes first, whatever the strata: 0.025^(1/3).
        let (interval, none) = reason(&thin, Statistic::new(4, all).proportion_of(3), 0);
        assert!(
            (interval.unwrap()[0] - 0.292_401_773_821_286_96).abs() < 1e-15
                && interval.unwrap()[1] == 1.0
                && none.is_none()
        );
        assert_eq!(reason(&apart, Statistic::new(5, all).proportion_of(1), 300), (None, Some(FEW_CLUSTERS.into())));
    }
}
