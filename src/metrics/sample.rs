//! What the metrics are computed from: one row a record, in columns.

use super::{calibration::logit, clusters::Clusters};

/// Predictions with their gold labels, in columns of equal length.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    probabilities: Vec<f64>,
    labels: Vec<bool>,
    verbalized: Vec<Option<bool>>,
    clusters: Clusters,
    silent: bool,
    log_odds: Option<Vec<f64>>,
}

impl Sample {
    /// Rows in columns of equal length.
    pub(super) fn from_columns(
        probabilities: Vec<f64>,
        labels: Vec<bool>,
        verbalized: Vec<Option<bool>>,
        clusters: Clusters,
        silent: bool,
    ) -> Self {
        Self { probabilities, labels, verbalized, clusters, silent, log_odds: None }
    }

    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record: its probability of class 1, gold label, verbalized label (`None`: unparsable) and group.
    ///
    /// Records of one group are resampled together; a record without a group is a group of its own.
    pub fn push(&mut self, probability: f64, label: bool, verbalized: Option<bool>, group: Option<&str>) {
        self.probabilities.push(probability);
        self.labels.push(label);
        self.verbalized.push(verbalized);
        self.clusters.push(group);
    }

    /// Says that no text was generated at all, so that there is no parsable rate to speak of.
    pub fn set_silent(&mut self) {
        self.silent = true;
    }

    /// Whether no text was generated at all.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Probabilities of class 1.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The same records with other probabilities.
    pub fn with_probabilities(&self, probabilities: Vec<f64>) -> Self {
        Self { probabilities, log_odds: None, ..self.clone() }
    }

    /// Says what the model's own log-odds were, record for record: a probability near 0 or 1 no longer tells them.
    pub fn set_log_odds(&mut self, log_odds: Vec<f64>) {
        self.log_odds = Some(log_odds);
    }

    /// Log-odds of class 1; where the model's own are not known, the probabilities' ([`logit`]).
    pub fn log_odds(&self) -> Vec<f64> {
        self.log_odds.clone().unwrap_or_else(|| self.probabilities.iter().map(|&p| logit(p)).collect())
    }

    /// Gold labels.
    pub fn labels(&self) -> &[bool] {
        &self.labels
    }

    /// Verbalized labels; `None` is unparsable.
    pub fn verbalized(&self) -> &[Option<bool>] {
        &self.verbalized
    }

    /// The cluster of each record, numbered from 0.
    pub fn clusters(&self) -> &[u32] {
        self.clusters.of()
    }

    /// Number of clusters: groups, and records without one.
    pub fn cluster_count(&self) -> usize {
        self.clusters.count()
    }

    /// Number of clusters among the records that `keep` picks.
    pub fn clusters_among(&self, keep: impl Fn(usize) -> bool) -> usize {
        self.clusters.among(keep)
    }

    /// Which records belong together.
    pub fn grouping(&self) -> &Clusters {
        &self.clusters
    }

    /// Positive records.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|&&label| label).count()
    }

    /// Indices of the parsable records.
    pub fn parsable(&self) -> Vec<u32> {
        (0..self.len() as u32).filter(|&i| self.verbalized[i as usize].is_some()).collect()
    }
}
