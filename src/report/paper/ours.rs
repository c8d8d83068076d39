//! What a run brings to the paper's tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    generate::construct::Statistics,
    metrics::{Evaluation, methods::MethodMetrics},
};

/// Records of each split, where known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SplitCounts {
    /// Train.
    pub train: Option<usize>,
    /// Dev.
    pub dev: Option<usize>,
    /// Test.
    pub test: Option<usize>,
}

/// Mean and standard deviation over independent runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Runs in which the metric is defined.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation (n − 1); `None` for one run.
    pub sd: Option<f64>,
}

impl Summary {
    /// Summarises the runs in which the metric is defined; `None` if there is none.
    ///
    /// ```
    /// use clsgen::report::paper::Summary;
    /// let summary = Summary::of(&[Some(1.0), None, Some(3.0)]).unwrap();
    /// assert_eq!((summary.runs, summary.mean, summary.sd), (2, 2.0, Some(2f64.sqrt())));
    /// ```
    pub fn of(values: &[Option<f64>]) -> Option<Self> {
        let defined: Vec<f64> = values.iter().flatten().copied().collect();
        let runs = defined.len();
        let mean = defined.iter().sum::<f64>() / runs as f64;
        let squares: f64 = defined.iter().map(|value| (value - mean).powi(2)).sum();
        (runs > 0).then(|| Self { runs, mean, sd: (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt()) })
    }
}

/// Metric → summary, of one method.
pub type Runs = BTreeMap<String, Summary>;

/// A baseline's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Mean and SD over its runs, by metric.
    pub runs: Runs,
    /// The means with their intervals over records.
    pub metrics: MethodMetrics,
}

/// Everything of ours that a table of the paper has a place for.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// The evaluated model.
    pub evaluation: Option<Evaluation>,
    /// The scored records are those that its thresholds were tuned on.
    pub in_sample: bool,
    /// Records of each split.
    pub splits: SplitCounts,
    /// Baselines by the paper's column: `verbalized`, `label`, `self_consistency`, `cnn`.
    pub baselines: BTreeMap<String, Measured>,
    /// Construction of the dev split.
    pub construct: Option<Statistics>,
}
