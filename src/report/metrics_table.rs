//! The table of every metric, as `clsgen eval` prints it.

use super::table::{Table, interval, number, telling};
use crate::metrics::{Evaluation, Metric, agreement::landis_koch, direction};

/// Every metric of `evaluation` with its interval, and what is missing and why.
pub fn metrics_table(title: &str, evaluation: &Evaluation, in_sample: bool) -> Table {
    let mut table = Table::new("metrics", title, &["Metric", "Threshold", "Value", "95 % CI", "n", "Note"]);
    add(&mut table, "AUROC", None, &evaluation.auroc);
    add(&mut table, "AUPRC", None, &evaluation.auprc);
    add(&mut table, "AURC", None, &evaluation.aurc);
    let default = &evaluation.default;
    for (name, metric) in [
        ("F1", &default.f1),
        ("Precision", &default.precision),
        ("Recall", &default.recall),
        ("Specificity", &default.specificity),
    ] {
        add(&mut table, name, default.threshold, metric);
    }
    if let Some(tuned) = &evaluation.tuned {
        let at_f1 = [
            ("F1", &tuned.f1.f1),
            ("Precision", &tuned.f1.precision),
            ("Recall", &tuned.f1.recall),
            ("Specificity", &tuned.f1.specificity),
        ];
        for (name, metric) in at_f1 {
            add(&mut table, &format!("{name}, F1-tuned"), tuned.f1.threshold, metric);
        }
        for (name, calls) in [("Youden-tuned", &tuned.youden), ("cost-tuned", &tuned.cost)] {
            add(&mut table, &format!("Recall, {name}"), calls.threshold, &calls.recall);
            add(&mut table, &format!("Specificity, {name}"), calls.threshold, &calls.specificity);
        }
    }
    add(&mut table, "AUROC-Align", None, &evaluation.auroc_align);
    if let Some(kappa) = &default.kappa {
        add_kappa(&mut table, "κ (head, text)", default.threshold, kappa);
    }
    if let Some(tuned) = &evaluation.tuned {
        add_kappa(&mut table, "κ (head, text), κ-tuned", tuned.kappa.threshold, &tuned.kappa.kappa);
    }
    add(&mut table, "Parsable", None, &evaluation.parsable);
    for (name, metric) in evaluation.judge.named().into_iter().filter(|(_, metric)| metric.n > 0) {
        add(&mut table, name, None, metric);
    }
    add_calibration(&mut table, evaluation);
    show_thresholds(&mut table);
    if let Some(note) = direction::note(table.rows.clone().iter().map(|row| row[0].as_str())) {
        table.note(note);
    }
    let in_sample = in_sample_note(in_sample, evaluation.dev_overlap, evaluation.n);
    table.note(match (&evaluation.tuned, in_sample) {
        (None, _) => "No dev predictions: no tuned thresholds.".to_owned(),
        (Some(_), Some(in_sample)) => in_sample,
        (Some(_), None) => "Tuned thresholds were chosen on dev and frozen before test labels were read.".to_owned(),
    });
    table
}

/// What is said below a table of tuned values where dev, which gave their thresholds, holds all of the `n` scored
/// records or `dev_overlap` of them; `None` where it holds none.
pub fn in_sample_note(in_sample: bool, dev_overlap: usize, n: usize) -> Option<String> {
    if in_sample {
        return Some("Tuned values are in-sample: their thresholds were chosen on these very records.".to_owned());
    }
    let told = || {
        format!(
            "{dev_overlap} of the {n} scored records are dev's too: tuned and calibrated values are in-sample for \
             these."
        )
    };
    (dev_overlap > 0).then(told)
}

fn add_calibration(table: &mut Table, evaluation: &Evaluation) {
    for (name, metric) in evaluation.calibration.named() {
        add(table, name, None, metric);
    }
}

/// Thresholds with as many digits as tell them apart.
fn show_thresholds(table: &mut Table) {
    let all: Vec<f64> = table.rows.iter().filter_map(|row| row[1].parse().ok()).collect();
    for row in &mut table.rows {
        if let Ok(threshold) = row[1].parse() {
            row[1] = telling(threshold, &all);
        }
    }
}

fn add_kappa(table: &mut Table, name: &str, threshold: Option<f64>, metric: &Metric) {
    add(table, name, threshold, metric);
    note_band(table, metric);
}

/// Notes Landis and Koch's word for κ in the row just added.
pub(super) fn note_band(table: &mut Table, metric: &Metric) {
    if let (Some(value), Some(row)) = (metric.value, table.rows.last_mut()) {
        let band = landis_koch(value);
        row[5] = if row[5].is_empty() { band.to_owned() } else { format!("{band}; {}", row[5]) };
    }
}

fn add(table: &mut Table, name: &str, threshold: Option<f64>, metric: &Metric) {
    // To the last bit: how many digits are shown is decided once all are known.
    add_row(table, name, threshold.map(|threshold| threshold.to_string()).unwrap_or_default(), metric);
}

/// Adds a metric: its name, what the second column says of it, value, interval, records, note.
pub(super) fn add_row(table: &mut Table, name: &str, second: String, metric: &Metric) {
    // The in-sample remark stands once, below the table.
    let reason = metric.reason.as_deref().unwrap_or_default();
    let note = if metric.ci95.is_some() { "" } else { reason.rsplit("; ").next().unwrap_or_default() };
    let note = if note.starts_with("in-sample") { "" } else { note }.to_owned();
    table.row([name.to_owned(), second, number(metric.value), interval(metric.ci95), metric.n.to_string(), note]);
}
