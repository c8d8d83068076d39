//! Two sets of predictions of the same records, side by side: before and after tuning, or any.

use super::table::{Table, cell, number, p_value};
use crate::metrics::{Evaluation, Metric, comparison::Comparison, significance::holm_defined};

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

/// What a judge says, where both were judged.
const JUDGED: [Row; 3] = [
    ("rli", "RLI", |e| Some(&e.judge.rli)),
    ("rl_kappa", "κ rationale, label", |e| Some(&e.judge.rl_kappa)),
    ("readability", "Readability", |e| Some(&e.judge.readability)),
];

/// What the two sides of a comparison are called.
pub struct Sides {
    /// The table's file.
    name: &'static str,
    title: String,
    columns: [&'static str; 2],
    note: String,
}

impl Sides {
    /// The base before tuning, and the tuned model.
    pub fn base(title: &str) -> Self {
        Self {
            name: "compare_base",
            title: format!("Before and after tuning: {title}"),
            columns: ["Base", "Tuned"],
            note: "The base is the untuned model with the same prompts and a head that was never trained.".to_owned(),
        }
    }

    /// The predictions of `other`, and those that were scored.
    pub fn against(title: &str, other: &str) -> Self {
        Self {
            name: "against",
            title: format!("Against {other}: {title}"),
            columns: ["Other", "Scored"],
            note: format!("Other: {other}. The difference is scored minus other, record by record."),
        }
    }

    /// The empty table.
    pub(super) fn table(&self) -> Table {
        let [first, second] = self.columns;
        Table::new(self.name, &self.title, &["Metric", first, second, "Difference", "p", "p, Holm"])
    }

    /// What its note says of the sides.
    pub(super) fn note(&self) -> &str {
        &self.note
    }
}

/// The first side against the second on the same records; `differences` are second minus first.
pub fn compare_table(sides: &Sides, before: &Evaluation, after: &Evaluation, differences: &[Comparison]) -> Table {
    let mut table = sides.table();
    let shown = |metric: Option<&Metric>| metric.map_or_else(|| number(None), cell);
    // The family is what the table shows.
    let difference = |key: &str| differences.iter().find(|comparison| comparison.metric == key);
    let judged = JUDGED.into_iter().filter(|(key, ..)| difference(key).is_some());
    let rows: Vec<Row> = ROWS.into_iter().chain(judged).collect();
    let compared: Vec<Option<&Comparison>> = rows.iter().map(|(key, ..)| difference(key)).collect();
    let p_values: Vec<Option<f64>> =
        compared.iter().map(|compared| compared.and_then(|comparison| comparison.p_value)).collect();
    let adjusted = holm_defined(&p_values);
    let mut reasons = Vec::new();
    for (k, (_, name, pick)) in rows.into_iter().enumerate() {
        reasons.extend(compared[k].and_then(|it| Some(format!("{name}: {}", it.difference.reason.as_ref()?))));
        table.row([
            name.to_owned(),
            shown(pick(before)),
            shown(pick(after)),
            shown(compared[k].map(|comparison| &comparison.difference)),
            p_value(p_values[k]),
            p_value(adjusted[k]),
        ]);
    }
    table.note(format!(
        "Threshold 0.5; 95 % intervals in parentheses. AUROC: DeLong's paired test; the others: paired bootstrap; \
        Holm's adjustment is over all p-values of this table. {}",
        sides.note()
    ));
    note_reasons(&mut table, &reasons);
    table
}

/// Says why differences are undefined.
pub(super) fn note_reasons(table: &mut Table, reasons: &[String]) {
    if !reasons.is_empty() {
        table.note(format!("Of the differences: {}.", reasons.join("; ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Options, Sample, evaluate};

    #[test]
    fn every_p_stands_beside_its_adjustment_over_the_table() {
        let mut sample = Sample::new();
        (0..20).for_each(|i| sample.push(f64::from(i) / 20.0, i % 3 == 0, Some(i > 9), None));
        let evaluation = evaluate(&sample, None, &Options::default());
        let comparison = |metric: &str, p_value| Comparison {
            metric: metric.into(),
            difference: Metric::new(Ok(0.1), 20).with_ci95(Some([0.0, 0.2])),
            p_value,
            test: "t".into(),
        };
        let differences = [comparison("auroc", Some(0.03)), comparison("f1", None), comparison("kappa", Some(0.01))];
        let table = compare_table(&Sides::base("t"), &evaluation, &evaluation, &differences);
        let p = |row: usize| [table.rows[row][4].as_str(), table.rows[row][5].as_str()];
        assert_eq!([p(0), p(1), p(2), p(6)], [["0.0300", "0.0300"], ["–"; 2], ["–"; 2], ["0.0100", "0.0200"]]);
    }
}
