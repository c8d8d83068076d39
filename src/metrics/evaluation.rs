//! The shape of `metrics.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Metric, evidence::EvidenceMetrics, operating::OperatingPoint, perplexity::Perplexity, smooth::Smooth,
    subgroups::Subgroups,
};

/// `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of this shape.
    pub schema: u32,
    /// Records.
    pub n: usize,
    /// How many of them are dev's too, where some are: tuned and calibrated values are in-sample for these.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub dev_overlap: usize,
    /// AUROC of the probability against the gold label.
    pub auroc: Metric,
    /// Average precision.
    pub auprc: Metric,
    /// Area under the risk–coverage curve: lower is better. Absent from files of earlier versions.
    #[serde(default)]
    pub aurc: Metric,
    /// At 0.5.
    pub default: Calls,
    /// At the thresholds tuned on dev; `None` without dev.
    pub tuned: Option<TunedCalls>,
    /// AUROC of the probability against the verbalized label, over the parsable records.
    pub auroc_align: Metric,
    /// Share of records whose text could be parsed.
    pub parsable: Metric,
    /// What the judge found.
    pub judge: Judge,
    /// Whether the probabilities mean what they say.
    pub calibration: Calibration,
    /// At the thresholds that reached a sensitivity, a specificity or an alert rate on dev; the caller's to fill in.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub operating_points: Vec<OperatingPoint>,
    /// Each value of the columns of `eval.subgroups`, by column and value; the caller's to fill in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub subgroups: Subgroups,
    /// What tuning forgot of other text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub perplexity: Option<Box<Perplexity>>,
    /// What of the explanations stands in the records, where the predictions say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<Box<EvidenceMetrics>>,
}

/// Whether there is none.
pub(super) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What follows from calling positive at a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// Positive from here on; `None` where dev allowed none.
    pub threshold: Option<f64>,
    /// F1 against gold.
    pub f1: Metric,
    /// Precision against gold.
    pub precision: Metric,
    /// Recall against gold.
    pub recall: Metric,
    /// Specificity against gold.
    pub specificity: Metric,
    /// κ between the calls and the verbalized labels, over the parsable records.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kappa: Option<Metric>,
    /// Mean cost of a record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<Metric>,
}

/// What follows from the dev thresholds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunedCalls {
    /// At the threshold of the highest dev F1.
    pub f1: Calls,
    /// At the threshold of the highest dev κ.
    pub kappa: KappaCall,
    /// At the threshold of the highest dev Youden's J.
    pub youden: Calls,
    /// At the threshold of the lowest dev cost.
    pub cost: Calls,
}

/// κ at its own threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KappaCall {
    /// Positive from here on; `None` where dev allowed none.
    pub threshold: Option<f64>,
    /// κ between the calls and the verbalized labels.
    pub kappa: Metric,
}

/// LLM-as-a-judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// Share of parsed outputs whose explanation implies the other label.
    pub rli: Metric,
    /// κ between implied and verbalized label.
    pub rl_kappa: Metric,
    /// Share of readable texts.
    pub readability: Metric,
    /// Share of the judge's answers that could not be parsed: two a record, one where the text is not parsable.
    #[serde(default)]
    pub unparsable: Metric,
}

impl Judge {
    /// Every metric with its name in the tables, in their order.
    pub fn named(&self) -> [(&'static str, &Metric); 4] {
        [
            ("RLI", &self.rli),
            ("κ rationale, label", &self.rl_kappa),
            ("Readability", &self.readability),
            ("Judge's answers unparsable", &self.unparsable),
        ]
    }
}

impl Default for Judge {
    fn default() -> Self {
        let none = Metric::undefined("no judge was run", 0);
        Self { rli: none.clone(), rl_kappa: none.clone(), readability: none.clone(), unparsable: none }
    }
}

/// Calibration of the probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Brier score.
    pub brier: Metric,
    /// Skill over always saying the prevalence.
    pub brier_skill: Metric,
    /// Expected calibration error, equal-width bins.
    pub ece: Metric,
    /// Maximum calibration error, equal-width bins.
    pub mce: Metric,
    /// Expected calibration error, equal-mass bins.
    pub ece_equal_mass: Metric,
    /// Slope of logistic recalibration.
    pub slope: Metric,
    /// Calibration-in-the-large.
    pub intercept: Metric,
    /// Positives observed over expected.
    pub observed_expected: Metric,
    /// How far the smooth curve lies from the probabilities; the caller's to fill in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smooth: Option<Box<Smooth>>,
    /// The same of the calibrated probabilities, where a calibrator was fitted on dev.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Box<CalibrationAfter>>,
}

impl Calibration {
    /// Nothing of `n` records, and why.
    pub fn undefined(reason: &str, n: usize) -> Self {
        let none = || Metric::undefined(reason, n);
        Self {
            brier: none(),
            brier_skill: none(),
            ece: none(),
            mce: none(),
            ece_equal_mass: none(),
            slope: none(),
            intercept: none(),
            observed_expected: none(),
            smooth: None,
            after: None,
        }
    }

    /// Every metric with its name in the tables, in their order.
    pub fn named(&self) -> [(&'static str, &Metric); 8] {
        [
            ("Brier", &self.brier),
            ("Brier skill", &self.brier_skill),
            ("ECE", &self.ece),
            ("ECE, equal-mass", &self.ece_equal_mass),
            ("MCE", &self.mce),
            ("Calibration slope", &self.slope),
            ("Calibration intercept", &self.intercept),
            ("Observed : expected", &self.observed_expected),
        ]
    }
}

/// [`Calibration`] of the calibrated probabilities, as `metrics.json` names it beside that of the model's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationAfter {
    /// Brier score.
    pub brier_after: Metric,
    /// Skill over always saying the prevalence.
    pub brier_skill_after: Metric,
    /// Expected calibration error, equal-width bins.
    pub ece_after: Metric,
    /// Maximum calibration error, equal-width bins.
    pub mce_after: Metric,
    /// Expected calibration error, equal-mass bins.
    pub ece_equal_mass_after: Metric,
    /// Slope of logistic recalibration.
    pub slope_after: Metric,
    /// Calibration-in-the-large.
    pub intercept_after: Metric,
    /// Positives observed over expected.
    pub observed_expected_after: Metric,
}

impl From<Calibration> for CalibrationAfter {
    fn from(of: Calibration) -> Self {
        Self {
            brier_after: of.brier,
            brier_skill_after: of.brier_skill,
            ece_after: of.ece,
            mce_after: of.mce,
            ece_equal_mass_after: of.ece_equal_mass,
            slope_after: of.slope,
            intercept_after: of.intercept,
            observed_expected_after: of.observed_expected,
        }
    }
}
