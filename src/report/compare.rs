//! Before and after tuning, side by side (SPEC A19).

use super::table::{Table, cell, number, p_value};
use crate::metrics::{Evaluation, Metric, methods::Comparison};

/// The metrics compared: key of [`Comparison`], name, where it is found.
type Row = (&'static str, &'static str, fn(&Evaluation) -> Option<&Metric>);

/// Columns of the paper's Tables 2 and 3, at 0.5.
pub const ROWS: [Row; 7] = [
    ("auroc", "AUROC", |e| Some(&e.auroc)),
    ("f1", "F1", |e| Some(&e.default.f1)),
    ("precision", "Precision", |e| Some(&e.default.precision)),
    ("recall", "Recall", |e| Some(&e.default.recall)),
    ("parsable", "Parsable", |e| Some(&e.parsable)),
    ("auroc_align", "AUROC-Align", |e| Some(&e.auroc_align)),
    ("kappa", "κ (head, text)", |e| e.default.kappa.as_ref()),
];

/// Base against tuned on the same records and prompts; `differences` are tuned minus base.
pub fn compare_table(title: &str, before: &Evaluation, after: &Evaluation, differences: &[Comparison]) -> Table {
    let title = format!("Before and after tuning: {title}");
    let mut table = Table::new("compare_base", &title, &["Metric", "Base", "Tuned", "Difference", "p"]);
    let shown = |metric: Option<&Metric>| metric.map_or_else(|| number(None), cell);
    for (key, name, pick) in ROWS {
        let compared = differences.iter().find(|comparison| comparison.metric == key);
        table.row([
            name.to_owned(),
            shown(pick(before)),
            shown(pick(after)),
            shown(compared.map(|comparison| &comparison.difference)),
            p_value(compared.and_then(|comparison| comparison.p_value)),
        ]);
    }
    table.note(
        "Threshold 0.5; 95 % intervals in parentheses. AUROC: DeLong's paired test; the others: paired bootstrap. The base is the \
         untuned model with the same prompts and a head that was never trained.",
    );
    table
}
