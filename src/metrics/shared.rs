//! What several measurements of a sample share: calls against gold, AUROC with its interval, what is said of a value.

use super::{Metric, Sample, classification::Confusion, delong, parsable};

/// Calls against gold.
pub(super) fn gold_table(sample: &Sample, threshold: f64, weights: &[u32]) -> Confusion {
    let rows = sample.probabilities().iter().zip(sample.labels()).zip(weights);
    Confusion::count(rows.map(|((&probability, &label), &weight)| (label, probability >= threshold, weight)))
}

/// AUROC with DeLong's interval, over all records or these.
pub(super) fn delong_auroc(sample: &Sample, labels: &[bool], rows: Option<&[u32]>) -> Metric {
    let all: Vec<u32> = (0..sample.len() as u32).collect();
    let rows = rows.unwrap_or(&all);
    let pick = |i: &u32| *i as usize;
    let scores: Vec<f64> = rows.iter().map(|i| sample.probabilities()[pick(i)]).collect();
    let labels: Vec<bool> = rows.iter().map(|i| labels[pick(i)]).collect();
    let clusters: Vec<u32> = rows.iter().map(|i| sample.clusters()[pick(i)]).collect();
    if scores.is_empty() && !sample.is_empty() {
        return Metric::undefined(nothing_parsable(sample), 0);
    }
    let area = delong::auroc(&scores, &labels, &clusters, sample.cluster_count());
    super::auroc(&scores, &labels).with_interval(area.map_or(Err(delong::undefined(&labels)), |area| area.interval()))
}

/// Why a statistic over the parsable records is undefined when there is none.
pub(super) fn nothing_parsable(sample: &Sample) -> &'static str {
    parsable::nothing_parsable(sample.is_empty(), sample.is_silent())
}

/// Why a tuned value is missing.
pub(super) fn no_threshold(reason: Option<&str>) -> String {
    let told = "no threshold could be tuned on dev";
    reason.map_or_else(|| told.to_owned(), |reason| format!("{told}: {reason}"))
}

/// Marks a value that `what` was fitted to.
pub(super) fn in_sample(mut metric: Metric, what: &str) -> Metric {
    if metric.value.is_some() {
        metric.add_reason(&format!("in-sample: {what} on these records"));
    }
    metric
}
