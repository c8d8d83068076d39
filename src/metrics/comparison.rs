//! One comparison of two sets of calls or probabilities, as tables and JSON hold it.

use serde::{Deserialize, Serialize};

use super::Metric;

/// One metric's difference (second − first, model − method) and its test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// `auroc`, `f1`, `precision`, `recall`, `parsable` or `accuracy`.
    pub metric: String,
    /// The difference, its interval, and the records it is over.
    pub difference: Metric,
    /// Two-sided p-value of no difference.
    pub p_value: Option<f64>,
    /// The test.
    pub test: String,
}
