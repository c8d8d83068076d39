//! Operating points: what follows from the threshold that reaches a sensitivity, a specificity or an alert
//! rate on dev.
//!
//! Candidates are the distinct dev probabilities. A sensitivity is reached by the highest of them whose sensitivity is
//! at least the target; a specificity is met by the lowest whose specificity is at least it, an alert rate by the
//! lowest that calls at most that share of the records. The number needed to evaluate is alerts per true positive,
//! 1 / PPV (Romero-Brufau et al., *Crit. Care* 19, 2015), and its interval that of the PPV, inverted.

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    classification::Confusion,
    ranking::Ranking,
    shared::{gold_table, in_sample, no_threshold},
    threshold::Tuned,
};

/// What an operating point holds fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Share of the positives that are called.
    Sensitivity,
    /// Share of the negatives that are not.
    Specificity,
    /// Share of all records that are called.
    AlertRate,
}

/// An aim and its value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What is held fixed.
    pub target: Aim,
    /// At this value.
    pub at: f64,
}

impl Target {
    /// Its name in `metrics.json` and in a gate.
    ///
    /// ```
    /// use clsgen::metrics::operating::{Aim, Target};
    /// assert_eq!(Target { target: Aim::AlertRate, at: 0.05 }.name(), "alert_rate_0.05");
    /// ```
    pub fn name(&self) -> String {
        let aim = match self.target {
            Aim::Sensitivity => "sensitivity",
            Aim::Specificity => "specificity",
            Aim::AlertRate => "alert_rate",
        };
        format!("{aim}_{}", self.at)
    }

    /// Its threshold on dev, or why there is none.
    ///
    /// ```
    /// use clsgen::metrics::{Sample, operating::{Aim, Target}};
    /// let mut dev = Sample::new();
    /// for (probability, label) in [(0.9, true), (0.7, false), (0.6, true), (0.2, false)] {
    ///     dev.push(probability, label, None, None);
    /// }
    /// let at = |target, at| Target { target, at }.tune(&dev).unwrap().threshold;
    /// assert_eq!([at(Aim::Sensitivity, 0.5), at(Aim::Sensitivity, 0.8)], [0.9, 0.6]);
    /// assert_eq!([at(Aim::Specificity, 0.5), at(Aim::AlertRate, 0.5)], [0.6, 0.7]);
    /// ```
    pub fn tune(&self, dev: &Sample) -> Result<Tuned, &'static str> {
        if dev.is_empty() {
            return Err("it has no record");
        }
        let ones = vec![1; dev.len()];
        let ranking = Ranking::new(dev.probabilities());
        let positives = dev.positives() as u64;
        let negatives = dev.len() as u64 - positives;
        let thresholds = ranking.blocks().map(|block| dev.probabilities()[block[0] as usize]);
        let reached = ranking.cumulative(dev.labels(), &ones).map(|(found, alarms)| match self.target {
            Aim::Sensitivity => share(found, positives, "it has no positive record"),
            Aim::Specificity => share(negatives - alarms, negatives, "it has no negative record"),
            Aim::AlertRate => share(found + alarms, dev.len() as u64, "it has no record"),
        });
        let mut met = Err("no dev probability meets the target");
        for (threshold, reached) in thresholds.zip(reached) {
            let value = reached?;
            let tuned = Tuned { threshold, value };
            match self.target {
                Aim::Sensitivity if value >= self.at => return Ok(tuned),
                Aim::Specificity if value >= self.at => met = Ok(tuned),
                Aim::AlertRate if value <= self.at => met = Ok(tuned),
                _ => {}
            }
        }
        met
    }

    /// The same as `thresholds.json` keeps it.
    pub fn freeze(self, dev: &Sample) -> Frozen {
        match self.tune(dev) {
            Ok(Tuned { threshold, value }) => {
                Frozen { target: self, threshold: Some(threshold), value: Some(value), reason: None }
            }
            Err(reason) => self.untuned(&no_threshold(Some(reason))),
        }
    }

    /// Without a threshold, and why.
    pub fn untuned(self, reason: &str) -> Frozen {
        Frozen { target: self, threshold: None, value: None, reason: Some(reason.to_owned()) }
    }
}

fn share(part: u64, whole: u64, reason: &'static str) -> Outcome {
    if whole == 0 { Err(reason) } else { Ok(part as f64 / whole as f64) }
}

/// An operating point whose threshold dev gave, frozen before the labels of what is scored are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// What is aimed at.
    #[serde(flatten)]
    pub target: Target,
    /// Positive from here on; `None` where dev allows none.
    pub threshold: Option<f64>,
    /// What it reached on dev.
    pub value: Option<f64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// An entry of `operating_points` in `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Name of the target.
    pub name: String,
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// Positive from here on; `None` where dev allowed none.
    pub threshold: Option<f64>,
    /// Share of the positives that are called.
    pub sensitivity: Metric,
    /// Share of the negatives that are not.
    pub specificity: Metric,
    /// Share of those called that are positive.
    pub ppv: Metric,
    /// Share of those not called that are negative.
    pub npv: Metric,
    /// Records called, of a hundred.
    pub alerts_per_100: Metric,
    /// Records called for each positive one among them.
    pub number_needed_to_evaluate: Metric,
}

impl OperatingPoint {
    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 6] {
        [
            ("sensitivity", &self.sensitivity),
            ("specificity", &self.specificity),
            ("ppv", &self.ppv),
            ("npv", &self.npv),
            ("alerts_per_100", &self.alerts_per_100),
            ("number_needed_to_evaluate", &self.number_needed_to_evaluate),
        ]
    }

    /// From the proportions in the order of [`proportions`].
    fn of(frozen: &Frozen, [sensitivity, specificity, ppv, npv, alerts]: [Metric; 5]) -> Self {
        Self {
            name: frozen.target.name(),
            target: frozen.target,
            threshold: frozen.threshold,
            number_needed_to_evaluate: needed_to_evaluate(&ppv),
            sensitivity,
            specificity,
            ppv,
            npv,
            alerts_per_100: of_100(alerts),
        }
    }
}

/// Sensitivity, specificity, PPV, NPV, share called.
fn proportions(table: &Confusion) -> [Outcome; 5] {
    let called = table.true_positives + table.false_positives;
    let alerts = share(called, table.total(), "no record");
    [table.recall(), table.specificity(), table.precision(), table.negative_predictive_value(), alerts]
}

/// What follows on `sample` from each of the frozen thresholds, all on the same resamples.
pub fn operating_points(sample: &Sample, frozen: &[Frozen], options: &Options) -> Vec<OperatingPoint> {
    let tuned: Vec<f64> = frozen.iter().filter_map(|frozen| frozen.threshold).collect();
    let clusters = tuned.iter().flat_map(|&threshold| denominators(sample, threshold).map(Some)).collect();
    let thresholds = tuned.clone();
    let compute = move |weights: &[u32]| {
        thresholds.iter().flat_map(|&threshold| proportions(&gold_table(sample, threshold, weights))).collect()
    };
    let statistic = Statistic::many(sample.len(), compute).proportions_of(clusters);
    let measured = Resampler::new(sample, options.seed).measure(&[statistic], options.bootstrap);
    let mut measured = measured
        .into_iter()
        .map(|metric| if options.in_sample { in_sample(metric, "the threshold was tuned") } else { metric });
    let point = |frozen: &Frozen| {
        let reason = frozen.reason.as_deref().unwrap_or("no threshold could be tuned on dev");
        let none = || Metric::undefined(reason, sample.len());
        OperatingPoint::of(
            frozen,
            std::array::from_fn(
                |_| if frozen.threshold.is_some() { measured.next().unwrap_or_default() } else { none() },
            ),
        )
    };
    frozen.iter().map(point).collect()
}

/// Clusters in the denominators of [`proportions`].
fn denominators(sample: &Sample, threshold: f64) -> [usize; 5] {
    let label = |i: usize| sample.labels()[i];
    let called = |i: usize| sample.probabilities()[i] >= threshold;
    [
        sample.clusters_among(label),
        sample.clusters_among(|i| !label(i)),
        sample.clusters_among(called),
        sample.clusters_among(|i| !called(i)),
        sample.cluster_count(),
    ]
}

fn of_100(share: Metric) -> Metric {
    let times = |share: f64| share * 100.0;
    Metric { value: share.value.map(times), ci95: share.ci95.map(|ends| ends.map(times)), ..share }
}

/// 1 / PPV: its interval is the PPV's, inverted, and has no upper end where that one reaches 0.
fn needed_to_evaluate(ppv: &Metric) -> Metric {
    match (ppv.value, ppv.ci95) {
        (Some(0.0), _) => Metric::undefined("nothing that is called is positive", ppv.n),
        (Some(value), Some([0.0, _])) => {
            let none = "no interval: the PPV's reaches 0";
            let reason = ppv.reason.as_ref().map_or_else(|| none.to_owned(), |told| format!("{told}; {none}"));
            Metric { value: Some(1.0 / value), ci95: None, n: ppv.n, reason: Some(reason) }
        }
        (value, ci95) => Metric {
            value: value.map(f64::recip),
            ci95: ci95.map(|[low, high]| [high.recip(), low.recip()]),
            ..ppv.clone()
        },
    }
}
