//! What stands beside the model of K > 2 classes: baselines, and the base model before tuning.

use super::{
    baselines::{ScoredMethod, comparison_table, mean_cell, most_runs, note_undefined_runs},
    compare::{Sides, note_reasons},
    multiclass_tables::of_all,
    table::{Table, cell, number, p_value},
};
use crate::metrics::{
    Metric,
    comparison::Comparison,
    multiclass::{Evaluation, methods::MethodMetrics},
    significance::holm_defined,
};

/// The two tables: `baselines` and `comparisons`.
pub fn multiclass_baseline_tables(
    title: &str,
    evaluation: &Evaluation,
    methods: &[ScoredMethod<MethodMetrics>],
) -> [Table; 2] {
    let columns = ["Method", "Runs", "n", "AUROC, macro", "AUROC over"].map(str::to_owned).into_iter();
    let of_calls = evaluation.calls.named().map(|(key, _)| of_all(key));
    let columns: Vec<String> = columns.chain(of_calls).chain(["Parsable".to_owned()]).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("baselines", &format!("Baselines: {title}"), &columns);
    for method in methods {
        let metrics = &method.metrics;
        let cells = metrics.named().map(|(key, metric)| mean_cell(metric, method.runs.get(key)));
        let start = [method.title.clone(), most_runs(method).to_string(), metrics.averages.accuracy.n.to_string()];
        table.row(row(start, metrics.auroc.n, cells));
    }
    let calls = evaluation.calls.named().map(|(_, metric)| metric);
    let own = std::iter::once(&evaluation.auroc).chain(calls).chain([&evaluation.parsable]).map(cell);
    let start = ["Model, arg max".to_owned(), "1".to_owned(), evaluation.n.to_string()];
    table.row(row(start, evaluation.n, own));
    table.note(
        "Means over runs ± SD over runs (n − 1), in parentheses the 95 % CI over records, clustered by group, with \
        the runs held fixed. All but AUROC are over all n records: an answer that cannot be parsed is no class, wrong \
        for accuracy and a miss for its own class. A run's AUROC is over the records that it answers; the number \
        beside is of those that any run does.",
    );
    note_undefined_runs(&mut table, methods, of_all);
    let note = "The model's calls are its arg max; a method enters by its first run: with AUROC on the records it \
        answers, with the others on all (an answer that cannot be parsed is no class, and not accurate). Holm's \
        adjustment is over all p-values of this table.";
    [table, comparison_table(title, methods, of_all, note)]
}

/// A method's cells: what it is, its AUROC, the records that this is over, the rest.
fn row(start: [String; 3], scored: usize, cells: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    let mut cells = cells.into_iter();
    let auroc = cells.next();
    start.into_iter().chain(auroc).chain([scored.to_string()]).chain(cells)
}

/// The first side against the second on the same records; `differences` are second minus first.
pub fn multiclass_compare_table(
    sides: &Sides,
    before: &Evaluation,
    after: &Evaluation,
    differences: &[Comparison],
) -> Table {
    let mut table = sides.table();
    let p_values: Vec<Option<f64>> = differences.iter().map(|comparison| comparison.p_value).collect();
    let shown = |metric: Option<&Metric>| metric.map_or_else(|| number(None), cell);
    let mut reasons = Vec::new();
    for (comparison, adjusted) in differences.iter().zip(holm_defined(&p_values)) {
        let key = comparison.metric.as_str();
        reasons.extend(comparison.difference.reason.as_ref().map(|reason| format!("{}: {reason}", of_all(key))));
        table.row([
            of_all(key),
            shown(metric(before, key)),
            shown(metric(after, key)),
            cell(&comparison.difference),
            p_value(comparison.p_value),
            p_value(adjusted),
        ]);
    }
    table.note(format!(
        "95 % intervals in parentheses. Accuracy: McNemar's exact test or, where records come in groups, its sign-flip \
        over them; the others: paired bootstrap; Holm's adjustment is over all p-values of this table. Macro recall is \
        the balanced accuracy. {}",
        sides.note()
    ));
    note_reasons(&mut table, &reasons);
    table
}

/// A metric of all classes by its key.
fn metric<'a>(evaluation: &'a Evaluation, key: &str) -> Option<&'a Metric> {
    let own = [
        ("auroc", &evaluation.auroc),
        ("auroc_align", &evaluation.auroc_align),
        ("kappa", &evaluation.kappa),
        ("parsable", &evaluation.parsable),
        ("rli", &evaluation.judge.rli),
        ("rl_kappa", &evaluation.judge.rl_kappa),
        ("readability", &evaluation.judge.readability),
    ];
    let all = own.into_iter().chain(evaluation.calls.named()).chain(evaluation.calibration.named());
    all.into_iter().find(|(name, _)| *name == key).map(|(_, metric)| metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{
        Options,
        multiclass::{Row, Sample, evaluate, methods, paired},
    };

    fn names() -> [String; 3] {
        ["lower", "same", "higher"].map(String::from)
    }

    fn sample(wrong: usize) -> Sample {
        let row = |i: usize| {
            let label = (i % 3) as u8;
            let probabilities: &[f64] =
                [&[0.5, 0.3, 0.2], &[0.1, 0.6, 0.3], &[0.3, 0.2, 0.5]][(i + usize::from(i % 10 < wrong)) % 3];
            Row { probabilities, label, verbalized: (!i.is_multiple_of(4)).then_some(label), group: None }
        };
        Sample::new(3, (0..60).map(row)).unwrap()
    }

    #[test]
    fn every_difference_stands_between_its_metrics_with_its_adjusted_p() {
        let options = Options { bootstrap: 200, ..Options::default() };
        let before = sample(7);
        let after = sample(2);
        let [base, tuned] = [&before, &after].map(|of| evaluate(of, &names(), false, &options));
        let differences = paired::differences(&before, &after, &names(), &options);
        let table = multiclass_compare_table(&Sides::base("t"), &base, &tuned, &differences);
        let metrics: Vec<&str> = table.rows.iter().map(|row| row[0].as_str()).collect();
        let want = "AUROC, macro|Accuracy|Balanced accuracy|Precision, macro|F1, macro|AUROC-Align, macro|\
            κ (head, text)|Parsable|Brier|ECE|Log loss";
        assert_eq!(metrics.join("|"), want);
        for row in &table.rows {
            assert!(row[1..].iter().all(|cell| cell != "–"), "{row:?}");
        }
        assert_eq!(table.rows[7][3..], ["0.0000", "1.0000", "1.0000"]);
    }

    #[test]
    fn a_difference_that_is_undefined_has_its_reason() {
        let row =
            |i: usize| Row { probabilities: &[0.5, 0.3, 0.2], label: (i % 2) as u8, verbalized: None, group: None };
        let without_one = Sample::new(3, (0..20).map(row)).unwrap();
        let options = Options { bootstrap: 200, ..Options::default() };
        let evaluation = evaluate(&without_one, &names(), false, &options);
        let differences = paired::differences(&without_one, &without_one, &names(), &options);
        let table = multiclass_compare_table(&Sides::base("t"), &evaluation, &evaluation, &differences);
        let reasons = table.notes.iter().find(|note| note.starts_with("Of the differences: AUROC, macro: "));
        assert!(reasons.is_some(), "{:?}", table.notes);
    }

    #[test]
    fn methods_stand_above_the_model_and_are_compared_with_it() {
        let sample = sample(2);
        let names = names();
        let options = Options::default();
        let run = methods::MethodRun { calls: sample.verbalized().to_vec(), probabilities: vec![None; 60] };
        let runs = std::slice::from_ref(&run);
        let mut method = ScoredMethod {
            name: "label".into(),
            title: "Label".into(),
            metrics: methods::measure(&sample, &names, runs, true, &options),
            runs: Default::default(),
            comparisons: methods::compare(&sample, &names, &run, true, &options),
            holm: Vec::new(),
        };
        super::super::baselines::adjust(std::slice::from_mut(&mut method));
        let own = evaluate(&sample, &names, false, &options);
        let [table, compared] = multiclass_baseline_tables("t", &own, &[method]);
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{table:?}");
        assert_eq!(table.rows[0][..6], ["Label", "1", "60", "–", "0", "0.7500"]);
        assert_eq!((table.rows[1][0].as_str(), table.rows[1][2].as_str()), ("Model, arg max", "60"));
        let tested: Vec<&str> = compared.rows.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(tested, ["Accuracy", "Balanced accuracy", "F1, macro", "Parsable"]);
    }
}
