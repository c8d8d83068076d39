//! The shape of `metrics.json` for K > 2 classes.

use serde::{Deserialize, Serialize};

use crate::metrics::{self, Metric, evaluation::Judge, evidence::EvidenceMetrics, perplexity::Perplexity};

/// `metrics.json` for K > 2 classes. A class is called where its probability is the highest, of equals the lowest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of this shape.
    pub schema: u32,
    /// Records.
    pub n: usize,
    /// How many of them are dev's too, where some are: tuned and calibrated values are in-sample for these.
    #[serde(skip_serializing_if = "metrics::evaluation::is_zero", default)]
    pub dev_overlap: usize,
    /// Names of the classes, in their order.
    pub classes: Vec<String>,
    /// Macro AUROC of the probabilities against the gold class, one against the rest.
    pub auroc: Metric,
    /// The calls that two classes make at 0.5.
    pub default: DefaultCalls,
    /// Accuracy, precision, recall and F1 of the calls.
    #[serde(flatten)]
    pub calls: Averages,
    /// Macro AUROC of the probabilities against the verbalized class, over the parsable records.
    pub auroc_align: Metric,
    /// κ between called and verbalized class, over the parsable records.
    pub kappa: Metric,
    /// The same weighted by the squared distance of the classes, where `task.ordinal` says that they have an order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kappa_quadratic: Option<Metric>,
    /// Share of records whose text could be parsed.
    pub parsable: Metric,
    /// What the judge found.
    pub judge: Judge,
    /// Whether the probabilities mean what they say.
    pub calibration: Calibration,
    /// Each class against the rest.
    pub per_class: Vec<ClassMetrics>,
    /// Records by gold class (rows) and called class (columns), (K, K).
    pub confusion: Vec<Vec<u64>>,
    /// The class that `eval.positive` names, against the rest: all that two classes have; `None` without it.
    #[serde(default)]
    pub positive: Option<Box<Positive>>,
    /// Why there are none, where `eval.positive` names no class; those of a class are in `positive`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operating_points: Option<Metric>,
    /// The same of the subgroups that are asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subgroups: Option<Metric>,
    /// What tuning forgot of other text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub perplexity: Option<Box<Perplexity>>,
    /// What of the explanations stands in the records, where the predictions say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<Box<EvidenceMetrics>>,
}

/// How the calls are made without a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefaultCalls {
    /// `argmax`.
    pub rule: String,
    /// None: K > 2 classes have none.
    pub threshold: Option<f64>,
}

impl Default for DefaultCalls {
    fn default() -> Self {
        Self { rule: "argmax".to_owned(), threshold: None }
    }
}

/// Accuracy and macro means of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// Share of records called as they are.
    pub accuracy: Metric,
    /// Mean over the classes of the share of its records called as they are: the macro recall.
    pub balanced_accuracy: Metric,
    /// Means over all classes; null where a class has none.
    #[serde(rename = "macro")]
    pub macro_mean: MacroMeans,
}

impl Averages {
    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 5] {
        let MacroMeans { precision, recall, f1 } = &self.macro_mean;
        [
            ("accuracy", &self.accuracy),
            ("balanced_accuracy", &self.balanced_accuracy),
            ("macro.precision", precision),
            ("macro.recall", recall),
            ("macro.f1", f1),
        ]
    }
}

/// Means over all classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MacroMeans {
    /// Of precision.
    pub precision: Metric,
    /// Of recall.
    pub recall: Metric,
    /// Of F1.
    pub f1: Metric,
}

/// Calls of one class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassCalls {
    /// Its name.
    pub label: String,
    /// Records of this gold class.
    pub n: usize,
    /// Share of those called so that are.
    pub precision: Metric,
    /// Share of its records that are called so.
    pub recall: Metric,
    /// Harmonic mean of the two.
    pub f1: Metric,
}

/// One class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Its calls.
    #[serde(flatten)]
    pub calls: ClassCalls,
    /// AUROC of its probability against gold.
    pub auroc: Metric,
    /// AUROC of its probability against the verbalized class, over the parsable records.
    pub auroc_align: Metric,
}

/// Calibration of the probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Brier score over all classes, 0 to 2.
    pub brier: Metric,
    /// Expected calibration error, mean over the classes, equal-width bins.
    pub ece: Metric,
    /// Mean −ln p of the gold class.
    pub log_loss: Metric,
    /// Why there is no smooth curve, where `eval.positive` names no class.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smooth: Option<Metric>,
    /// The same of the calibrated probabilities, where a temperature was fitted on dev.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Box<CalibrationAfter>>,
}

impl Calibration {
    /// Nothing of `n` records, and why.
    pub fn undefined(reason: &str, n: usize) -> Self {
        let none = || Metric::undefined(reason, n);
        Self { brier: none(), ece: none(), log_loss: none(), smooth: None, after: None }
    }

    /// From Brier score, ECE and log loss in this order.
    pub(super) fn take(metrics: &mut impl Iterator<Item = Metric>) -> Self {
        let mut next = || metrics.next().unwrap_or_default();
        Self { brier: next(), ece: next(), log_loss: next(), smooth: None, after: None }
    }

    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 3] {
        [("brier", &self.brier), ("ece", &self.ece), ("log_loss", &self.log_loss)]
    }
}

/// [`Calibration`] of the calibrated probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationAfter {
    /// Brier score over all classes.
    pub brier_after: Metric,
    /// Class-wise expected calibration error.
    pub ece_after: Metric,
    /// Mean −ln p of the gold class.
    pub log_loss_after: Metric,
}

impl From<Calibration> for CalibrationAfter {
    fn from(of: Calibration) -> Self {
        Self { brier_after: of.brier, ece_after: of.ece, log_loss_after: of.log_loss }
    }
}

/// The class of `eval.positive` against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Positive {
    /// Its name.
    pub label: String,
    /// Its metrics at 0.5 and at the thresholds tuned on dev.
    #[serde(flatten)]
    pub evaluation: metrics::Evaluation,
}
