//! Tables that a journal asks for: operating points, smooth calibration, subgroups.

use super::table::{Table, cell, interval, number, telling};
use crate::metrics::{
    Calibration, Metric,
    direction::name,
    evidence::EvidenceMetrics,
    operating::{Aim, OperatingPoint},
    perplexity::Perplexity,
    subgroups::{MOST_VALUES, Subgroups},
};

/// What follows from each operating point's threshold; `in_sample` says which scored records dev holds, if any.
pub fn operating_table(title: &str, points: &[OperatingPoint], in_sample: Option<&str>) -> Table {
    let keys = ["sensitivity", "specificity", "ppv", "npv", "alerts_per_100", "number_needed_to_evaluate"];
    let heads = keys.map(|key| name(key).unwrap_or(key));
    let columns: Vec<&str> = ["Held fixed on dev", "Threshold"].into_iter().chain(heads).collect();
    let mut table = Table::new("operating_points", &format!("Operating points: {title}"), &columns);
    let all: Vec<f64> = points.iter().filter_map(|point| point.threshold).collect();
    for point in points {
        let target = match point.target.target {
            Aim::Sensitivity => "Sensitivity ≥",
            Aim::Specificity => "Specificity ≥",
            Aim::AlertRate => "Alert rate ≤",
        };
        let threshold = point.threshold.map_or_else(|| "–".to_owned(), |threshold| telling(threshold, &all));
        let cells = point.named().map(|(_, metric)| cell(metric));
        table.row([format!("{target} {}", point.target.at), threshold].into_iter().chain(cells));
    }
    let mut reasons: Vec<&str> = points
        .iter()
        .filter(|point| point.threshold.is_none())
        .filter_map(|point| point.sensitivity.reason.as_deref())
        .collect();
    reasons.dedup();
    reasons.iter().for_each(|reason| table.note(format!("Without a threshold: {reason}.")));
    table.note(
        "Thresholds were frozen on dev: the highest that reaches the sensitivity, the lowest that meets specificity \
         or alert rate. 95 % intervals in parentheses; resamples keep the classes' shares, so they hold at this \
         split's prevalence. Number needed to evaluate: records called for each positive one among them.",
    );
    if let Some(in_sample) = in_sample.filter(|_| !all.is_empty()) {
        table.note(in_sample);
    }
    table
}

/// Slope, intercept, O:E and the distances of the smooth curve.
pub fn smooth_table(title: &str, calibration: &Calibration) -> Table {
    let mut table = Table::new(
        "calibration_smooth",
        &format!("Calibration, smooth: {title}"),
        &["Metric", "Value", "95 % CI", "n", "Note"],
    );
    let named = calibration.named();
    let line = named
        .iter()
        .filter(|(name, _)| ["Calibration slope", "Calibration intercept", "Observed : expected"].contains(name));
    let smooth = calibration.smooth.iter().flat_map(|smooth| smooth.named());
    for (name, metric) in line.copied().chain(smooth) {
        let note = metric.reason.clone().unwrap_or_default();
        table.row([name.to_owned(), number(metric.value), interval(metric.ci95), metric.n.to_string(), note]);
    }
    table.note(
        "The curve is a logistic restricted cubic spline of logit p. ICI, E50, E90, Emax: mean, median, 90th \
         percentile and maximum of the distance between a record's probability and the curve there; 0 is best, and a \
         calibrated model's are above 0 in any sample. Resamples keep the classes' shares: the intervals of intercept \
         and O:E hold at this split's prevalence and leave out how uncertain that is.",
    );
    table
}

/// Every subgroup, and its difference from the rest; `in_sample` says which scored records dev holds, if any.
pub fn subgroup_table(title: &str, subgroups: &Subgroups, threshold: Option<f64>, in_sample: Option<&str>) -> Table {
    let names = ["auroc", "slope", "observed_expected", "sensitivity", "ppv"].map(|key| name(key).unwrap_or(key));
    let differences = names.map(|name| format!("{name}, difference"));
    let columns = ["Column", "Value", "n", "Events"].into_iter().chain(names).chain(differences.iter().map(|d| &**d));
    let mut table = Table::new("subgroups", &format!("Subgroups: {title}"), &columns.collect::<Vec<_>>());
    let mut reasons: Vec<String> = Vec::new();
    for (column, values) in subgroups {
        for (value, group) in values {
            let counts = [column.clone(), value.clone(), group.n.to_string(), group.events.to_string()];
            let own = group.own.named().map(|(_, metric)| metric);
            let apart = group.difference.named().map(|(_, metric)| metric);
            let cells = own.into_iter().chain(apart).map(cell);
            table.row(counts.into_iter().chain(cells));
            let undefined = |metric: &&Metric| metric.value.is_none();
            reasons.extend(own.into_iter().chain(apart).filter(undefined).filter_map(|metric| metric.reason.clone()));
        }
    }
    reasons.sort();
    reasons.dedup();
    reasons.iter().for_each(|reason| table.note(format!("–: {reason}.")));
    let in_sample = in_sample.filter(|_| threshold.is_some());
    let threshold = threshold.map_or_else(
        || "Sensitivity and PPV need dev's threshold.".to_owned(),
        |threshold| format!("Sensitivity and PPV at {}, dev's best threshold for F1.", telling(threshold, &[])),
    );
    table.note(format!(
        "{threshold} Difference: from all records of other values; 95 % intervals in parentheses, not adjusted for \
         their number. Columns of over {MOST_VALUES} values are left out."
    ));
    if let Some(in_sample) = in_sample {
        table.note(in_sample);
    }
    table
}

/// What of the explanations stands in the records.
pub fn evidence_table(title: &str, evidence: &EvidenceMetrics) -> Table {
    let columns = ["Metric", "Value", "95 % CI", "n", "Note"];
    let mut table = Table::new("evidence", &format!("Evidence: {title}"), &columns);
    for (key, metric) in evidence.named() {
        let note = metric.reason.clone().unwrap_or_default();
        let name = name(key).unwrap_or(key).to_owned();
        table.row([name, number(metric.value), interval(metric.ci95), metric.n.to_string(), note]);
    }
    table.note(
        "Evidence: a quote of three words or more in quotation marks, or six words in a row, that stands in the \
         record. The second row is over explanations that quote: words between quotation marks, and how many of them \
         stand there.",
    );
    table
}

/// The forgetting check.
pub fn perplexity_table(perplexity: &Perplexity) -> Table {
    let columns = ["Metric", "Value", "95 % CI", "Texts", "Tokens", "Note"];
    let mut table = Table::new("perplexity", "Forgetting check: perplexity on other text", &columns);
    for (key, metric) in perplexity.named() {
        let name = name(key).unwrap_or(key).to_owned();
        let counts = [perplexity.texts.to_string(), perplexity.tokens.to_string()];
        let note = metric.reason.clone().unwrap_or_default();
        table.row([name, number(metric.value), interval(metric.ci95)].into_iter().chain(counts).chain([note]));
    }
    table.note(
        "Perplexity: exp of the mean −log p of a token, given all before it; no prompt, lower is better. A ratio \
         above 1 says that tuning cost language. Intervals resample texts.",
    );
    table
}
