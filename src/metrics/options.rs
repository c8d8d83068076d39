//! How metrics are computed: resamples, bins, costs.

use super::threshold::Costs;

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Bootstrap resamples; 0 leaves out all intervals but those of a formula: DeLong's, and Clopper and Pearson's of a
    /// share of 0 or 1.
    pub bootstrap: usize,
    /// Seed of the resamples.
    pub seed: u64,
    /// Bins of the calibration errors.
    pub bins: usize,
    /// What errors cost.
    pub costs: Costs,
    /// The thresholds were tuned on these very records.
    pub in_sample: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { bootstrap: 0, seed: 42, bins: 10, costs: Costs::default(), in_sample: false }
    }
}
