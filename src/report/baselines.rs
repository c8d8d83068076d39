//! Baselines beside the model: their metrics, and each against the model with its test.

use super::{
    paper::{Runs, Summary},
    table::{Table, cell, interval, number, p_value},
};
use crate::metrics::{
    Evaluation, Metric, comparison::Comparison, direction, methods::MethodMetrics, significance::holm_defined,
};

/// A baseline that was scored; `M` is what two classes have, or more.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ScoredMethod<M = MethodMetrics> {
    /// Its name in files.
    pub name: String,
    /// Its name for a reader.
    pub title: String,
    /// Means over its runs, with intervals over records.
    pub metrics: M,
    /// Mean and SD over its runs, by metric.
    pub runs: Runs,
    /// The model against its first run.
    pub comparisons: Vec<Comparison>,
    /// Holm-adjusted p-values of `comparisons`, over the whole table.
    pub holm: Vec<Option<f64>>,
}

/// Adjusts every p-value of the methods together.
pub fn adjust<M>(methods: &mut [ScoredMethod<M>]) {
    let all: Vec<Option<f64>> =
        methods.iter().flat_map(|method| &method.comparisons).map(|comparison| comparison.p_value).collect();
    let mut adjusted = holm_defined(&all).into_iter();
    for method in methods {
        method.holm = adjusted.by_ref().take(method.comparisons.len()).collect();
    }
}

/// The two tables: `baselines` and `comparisons`.
pub fn baseline_tables(title: &str, evaluation: &Evaluation, methods: &[ScoredMethod]) -> [Table; 2] {
    let columns = ["Method", "Runs", "n", "AUROC", "AUROC over", "F1", "Precision", "Recall", "Parsable"];
    let mut table = Table::new("baselines", &format!("Baselines: {title}"), &columns);
    for method in methods {
        let runs = most_runs(method);
        let metrics = &method.metrics;
        let [auroc, f1, precision, recall, parsable] =
            metrics.named().map(|(key, metric)| mean_cell(metric, method.runs.get(key)));
        let n = metrics.f1.n.to_string();
        let scored = metrics.auroc.n.to_string();
        table.row([method.title.clone(), runs.to_string(), n, auroc, scored, f1, precision, recall, parsable]);
    }
    let default = &evaluation.default;
    let own = [&evaluation.auroc, &default.f1, &default.precision, &default.recall, &evaluation.parsable].map(cell);
    let [auroc, f1, precision, recall, parsable] = own;
    let n = || evaluation.n.to_string();
    table.row(["Model, threshold 0.5".to_owned(), "1".to_owned(), n(), auroc, n(), f1, precision, recall, parsable]);
    table.note(
        "Means over runs ± SD over runs (n − 1), in parentheses the 95 % CI over records, clustered by group, with \
        the runs held fixed. F1, precision and recall are over all n records: an answer that cannot be parsed is no \
        positive call. A run's AUROC is over the records that it answers; the number beside is of those that any run \
        does.",
    );
    note_undefined_runs(&mut table, methods, plain);
    let note = "The model's calls are those at 0.5; a method enters by its first run: with AUROC on the records it \
        answers, with the others on all \
        (an answer that cannot be parsed is no positive call, and not accurate). Holm's adjustment is over all \
        p-values of this table.";
    [table, comparison_table(title, methods, plain, note)]
}

/// The name of the metric of this key.
fn plain(key: &str) -> String {
    direction::name(key).unwrap_or(key).to_owned()
}

/// Says which means leave out some of the runs.
pub(super) fn note_undefined_runs<M>(table: &mut Table, methods: &[ScoredMethod<M>], name: fn(&str) -> String) {
    for method in methods {
        let runs = most_runs(method);
        for (key, summary) in method.runs.iter().filter(|(_, summary)| summary.runs < runs) {
            table.note(format!(
                "{}, {}: over {} of {runs} runs; it is undefined in the others.",
                method.title,
                name(key),
                summary.runs
            ));
        }
    }
}

/// How often a method was run, as far as its metrics tell.
pub(super) fn most_runs<M>(method: &ScoredMethod<M>) -> usize {
    method.runs.values().map(|summary| summary.runs).max().unwrap_or(1)
}

pub(super) fn mean_cell(metric: &Metric, summary: Option<&Summary>) -> String {
    let sd = summary.and_then(|summary| summary.sd).map(|sd| format!(" ± {sd:.4}")).unwrap_or_default();
    match metric.ci95 {
        Some(ci95) => format!("{}{sd} ({})", number(metric.value), interval(Some(ci95))),
        None => format!("{}{sd}", number(metric.value)),
    }
}

/// The model against each method; `name` gives a metric's by its key.
pub(super) fn comparison_table<M>(
    title: &str,
    methods: &[ScoredMethod<M>],
    name: fn(&str) -> String,
    note: &str,
) -> Table {
    let columns = ["Method", "Metric", "Model − method", "95 % CI", "p", "p, Holm", "n", "Test"];
    let mut table = Table::new("comparisons", &format!("Model against baselines: {title}"), &columns);
    for method in methods {
        for (comparison, adjusted) in method.comparisons.iter().zip(&method.holm) {
            table.row([
                method.title.clone(),
                name(&comparison.metric),
                number(comparison.difference.value),
                interval(comparison.difference.ci95),
                p_value(comparison.p_value),
                p_value(*adjusted),
                comparison.difference.n.to_string(),
                comparison.test.clone(),
            ]);
        }
    }
    table.note(note);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(p_values: [Option<f64>; 2]) -> ScoredMethod {
        let none = || Metric::undefined("none", 0);
        let metrics = MethodMetrics { auroc: none(), f1: none(), precision: none(), recall: none(), parsable: none() };
        let comparisons = p_values
            .map(|p_value| Comparison { metric: "f1".into(), difference: none(), p_value, test: "t".into() })
            .to_vec();
        ScoredMethod {
            name: "label".into(),
            title: "Label".into(),
            metrics,
            runs: Runs::new(),
            comparisons,
            holm: Vec::new(),
        }
    }

    #[test]
    fn holm_runs_over_the_whole_table_and_skips_what_has_no_p() {
        let mut methods = [method([Some(0.01), None]), method([Some(0.04), Some(0.03)])];
        adjust(&mut methods);
        assert_eq!(methods[0].holm, [Some(0.03), None]);
        assert_eq!(methods[1].holm, [Some(0.06), Some(0.06)]);
        let table = comparison_table("t", &methods, plain, "");
        assert_eq!((table.rows.len(), table.rows[1][4].as_str(), table.rows[0][5].as_str()), (4, "–", "0.0300"));
        assert_eq!(p_value(Some(1e-9)), "<0.0001");
    }
}
