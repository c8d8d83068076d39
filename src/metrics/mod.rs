//! The paper's metrics as pure functions on slices. Layer 1.
//!
//! | file | what | source |
//! |---|---|---|
//! | [`ranking`] | AUROC (ties ½), average precision, ROC, PR curves | Hanley & McNeil 1982; Davis & Goadrich 2006 |
//! | [`classification`] | confusion counts, precision, recall, F1 at a threshold | van Rijsbergen 1979 |
//! | [`agreement`] | Cohen's κ, the Landis–Koch bands | Cohen 1960; Landis & Koch 1977 |
//! | [`threshold`] | thresholds chosen on dev: F1, κ, Youden's J, cost | paper A.2.2; Youden 1950 |
//! | [`operating`] | what follows from a fixed sensitivity, specificity or alert rate | Romero-Brufau 2015 |
//! | [`calibration`] | Brier, ECE, MCE, slope and intercept, O:E | Brier 1950; Cox 1958; Naeini 2015 |
//! | [`smooth`] | a smooth calibration curve, ICI, E50, E90, Emax | Harrell 2015; Austin & Steyerberg 2019 |
//! | [`subgroups`] | each value of a column by itself, and its difference from the rest | |
//! | [`calibrators`] | temperature, Platt, isotonic | Guo 2017; Platt 1999; Zadrozny & Elkan 2002 |
//! | [`decision`], [`decision_curves`] | net benefit, risk–coverage, AURC | Vickers & Elkin 2006; Geifman 2019 |
//! | [`delong`] | AUROC intervals and paired tests, clustered by group | DeLong 1988; Sun & Xu 2014; Obuchowski 1997 |
//! | [`bootstrap`] | percentile intervals, stratified, clustered | Efron & Tibshirani 1993; Clopper & Pearson 1934 |
//! | [`direction`] | which way each metric is better | |
//! | [`significance`] | McNemar, its sign-flip over groups, Holm, the normal distribution | McNemar 1947; Holm 1979 |
//! | [`methods`] | other methods over runs, and each against the model, paired | paper Tables 2 and 4 |
//! | [`runs`] | mean and SD over runs | |
//! | [`judge`] | RLI, κ of rationale and label, readability | paper §5.3.2 |
//! | [`evidence`], [`quoted`] | what of an explanation stands in the record, and how much that is | |
//! | [`perplexity`] | of base and tuned model on the same texts | Jelinek 1977 |
//! | [`quality`] | the score that picks the best epoch | paper A.2.2 |
//! | [`multiclass`] | the same over K > 2 classes: arg max, one-vs-rest, macro means | Cohen 1968; Kull 2019 |
//! | [`clusters`] | which records belong together | |
//! | [`Options`] | resamples, bins, costs | |
//! | [`evaluation`] | all of them over one set of predictions: `metrics.json` | |
//!
//! Everywhere a record is called positive when its probability is ≥ the threshold. What is undefined is `null` with a
//! reason, never 0.5, 0 or NaN.

use serde::{Deserialize, Serialize};

pub mod agreement;
mod any;
pub mod bootstrap;
pub mod calibration;
pub mod calibrators;
pub mod classification;
pub mod clusters;
pub mod comparison;
pub mod curves;
pub mod decision;
pub mod decision_curves;
pub mod delong;
pub mod direction;
mod evaluate;
pub mod evaluation;
pub mod evidence;
pub mod judge;
pub mod methods;
pub mod multiclass;
pub mod operating;
mod options;
pub mod paired;
mod parsable;
pub mod perplexity;
pub mod quality;
pub mod quoted;
pub mod ranking;
pub mod runs;
pub mod sample;
mod shared;
pub mod significance;
pub mod smooth;
mod softmax;
pub mod subgroups;
pub mod threshold;

pub use any::{AnyEvaluation, AnySample};
pub use evaluate::{evaluate, evaluate_calibration, parsable_and_kappa};
pub use evaluation::{Calibration, CalibrationAfter, Calls, Evaluation, KappaCall, TunedCalls};
pub use options::Options;
pub use sample::Sample;
pub use softmax::{log_softmax, softmax};

/// A statistic, or why it is undefined.
pub type Outcome = std::result::Result<f64, &'static str>;

/// A leaf of `metrics.json`: the number, its 95 % interval, how many records it is over, and why it is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Metric {
    /// The number; `None` where it is undefined.
    pub value: Option<f64>,
    /// Its 95 % confidence interval, where one was computed.
    pub ci95: Option<[f64; 2]>,
    /// Records it is computed over.
    pub n: usize,
    /// Why it is undefined or has no interval, or what else to know of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl Metric {
    /// A statistic over `n` records, without an interval.
    pub fn new(outcome: Outcome, n: usize) -> Self {
        match outcome {
            Ok(value) => Self { value: Some(value), n, ..Self::default() },
            Err(reason) => Self::undefined(reason, n),
        }
    }

    /// `null`, with the reason.
    pub fn undefined(reason: impl Into<String>, n: usize) -> Self {
        Self { n, reason: Some(reason.into()), ..Self::default() }
    }

    /// The same with its interval, or with the reason why there is none; an undefined statistic keeps its own reason.
    #[must_use]
    pub fn with_interval(mut self, interval: bootstrap::Interval) -> Self {
        match (self.value, interval) {
            (None, _) => {}
            (Some(_), Ok(ci95)) => self.ci95 = Some(ci95),
            (Some(_), Err(reason)) => {
                self.reason.get_or_insert_with(|| reason.to_owned());
            }
        }
        self
    }

    /// Says more of a value; what was said of its interval stays said.
    pub(crate) fn add_reason(&mut self, more: &str) {
        self.reason = Some(self.reason.take().map_or_else(|| more.to_owned(), |reason| format!("{more}; {reason}")));
    }

    /// The same with an interval; an undefined statistic has none.
    #[must_use]
    pub fn with_ci95(mut self, ci95: Option<[f64; 2]>) -> Self {
        self.ci95 = self.value.and(ci95);
        self
    }
}

/// AUROC of `scores` against `labels`; see [`ranking::auroc`].
pub fn auroc(scores: &[f64], labels: &[bool]) -> Metric {
    Metric::new(ranking::auroc(scores, labels), scores.len())
}
