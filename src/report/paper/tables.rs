//! One table of the paper at a time.

use super::{Ours, Paper, Task};
use crate::{
    error::Result,
    generate::construct::Statistics,
    metrics::Metric,
    report::{
        baselines::mean_cell,
        in_sample_note,
        table::{Table, cell, difference, number},
    },
};

/// A table that `--paper` can print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaperTable {
    /// Dataset statistics.
    Table1,
    /// Performance.
    Table2,
    /// Consistency of head and text.
    Table3,
    /// Standard deviations over runs.
    Table4,
    /// Data construction.
    Table7,
}

impl PaperTable {
    /// All of them, in the paper's order.
    pub const ALL: [Self; 5] = [Self::Table1, Self::Table2, Self::Table3, Self::Table4, Self::Table7];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table1 => "table1",
            Self::Table2 => "table2",
            Self::Table3 => "table3",
            Self::Table4 => "table4",
            Self::Table7 => "table7",
        }
    }

    /// `table1` … `table7`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// The paper's methods by key and name, in its order.
const METHODS: [(&str, &str); 6] = [
    ("verbalized", "Verbalized probability"),
    ("label", "Label prediction"),
    ("self_consistency", "Self-consistency"),
    ("cnn", "CNN"),
    ("default", "CLSGen, 0.5"),
    ("tuned", "CLSGen, tuned"),
];

const METRICS: [(&str, &str); 5] =
    [("auroc", "AUROC"), ("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"), ("parsable", "Parsable")];

/// Builds `table` for `task`: the paper's number, ours, and ours minus the paper's.
pub fn paper_table(table: PaperTable, task: Task, ours: &Ours) -> Result<Table> {
    let paper = Paper::of(task)?;
    let (key, mut built) = match table {
        PaperTable::Table1 => ("table1", table1(task, &paper, ours)),
        PaperTable::Table2 => ("table2", table2(task, &paper, ours)),
        PaperTable::Table3 => ("table3", table3(task, &paper, ours)),
        PaperTable::Table4 => ("table4", table4(task, &paper, ours)),
        PaperTable::Table7 => ("table7", table7(task, &paper, ours)),
    };
    built.notes.extend(paper.notes.get(key).cloned());
    Ok(built)
}

fn delta(ours: Option<f64>, paper: Option<f64>) -> String {
    difference(ours.zip(paper).map(|(ours, paper)| ours - paper), 4)
}

fn count(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"))
}

fn count_delta(ours: Option<f64>, paper: Option<f64>) -> String {
    difference(ours.zip(paper).map(|(ours, paper)| ours - paper), 0)
}

fn table1(task: Task, paper: &Paper, ours: &Ours) -> Table {
    let mut table = Table::new(
        "table1",
        &format!("Table 1, dataset statistics: {}", task.title()),
        &["Split", "Paper", "Ours", "Δ"],
    );
    let splits = ours.splits;
    let total = splits.train.zip(splits.dev).zip(splits.test).map(|((train, dev), test)| train + dev + test);
    for (key, name, ours) in [
        ("train", "Train", splits.train),
        ("dev", "Dev", splits.dev),
        ("test", "Test", splits.test),
        ("total", "Total", total),
    ] {
        let paper = paper.table1.get(key).copied();
        let ours = ours.map(|n| n as f64);
        table.row([name.to_owned(), count(paper), count(ours), count_delta(ours, paper)]);
    }
    table
}

/// Our number for a method and metric of Table 2, and how to print it.
fn measured(ours: &Ours, method: &str, metric: &str) -> (Option<f64>, String) {
    let own = |metric: Option<&Metric>| metric.map_or((None, "–".to_owned()), |metric| (metric.value, cell(metric)));
    let evaluation = ours.evaluation.as_ref();
    match (method, metric) {
        ("default", "auroc") => own(evaluation.map(|e| &e.auroc)),
        ("default", "parsable") => own(evaluation.map(|e| &e.parsable)),
        ("default" | "tuned", _) => {
            let calls = evaluation.and_then(|e| {
                if method == "default" { Some(&e.default) } else { e.tuned.as_ref().map(|tuned| &tuned.f1) }
            });
            own(calls.and_then(|calls| match metric {
                "f1" => Some(&calls.f1),
                "precision" => Some(&calls.precision),
                "recall" => Some(&calls.recall),
                _ => None,
            }))
        }
        _ => baseline(ours, method, metric),
    }
}

/// A baseline's mean ± SD and its interval, with the records it is over where those are not all.
fn baseline(ours: &Ours, method: &str, metric: &str) -> (Option<f64>, String) {
    let Some(measured) = ours.baselines.get(method) else { return (None, "–".to_owned()) };
    match measured.metrics.named().into_iter().find(|(key, leaf)| *key == metric && leaf.value.is_some()) {
        Some((key, leaf)) => {
            let over = if leaf.n < measured.metrics.f1.n { format!(", n = {}", leaf.n) } else { String::new() };
            (leaf.value, mean_cell(leaf, measured.runs.get(key)) + &over)
        }
        None => (None, "–".to_owned()),
    }
}

fn table2(task: Task, paper: &Paper, ours: &Ours) -> Table {
    let mut table = Table::new(
        "table2",
        &format!("Table 2, performance: {}", task.title()),
        &["Metric", "Method", "Paper", "Ours", "Δ"],
    );
    for (metric, metric_name) in METRICS {
        for (method, method_name) in METHODS {
            let paper = paper.table2.get(metric).and_then(|row| row.get(method)).copied();
            let (value, shown) = measured(ours, method, metric);
            if paper.is_some() || value.is_some() {
                table.row([metric_name.to_owned(), method_name.to_owned(), number(paper), shown, delta(value, paper)]);
            }
        }
    }
    table.note(
        "Ours: 95 % CI in parentheses; baselines over several runs as mean ± SD. Precision, recall and F1 are \
        over all records: an answer that cannot be parsed is no positive call; AUROC is over the answered ones, n \
        where those are fewer. The paper gives AUROC and parsable rate of CLSGen once, whatever the threshold.",
    );
    note_in_sample(&mut table, ours);
    table
}

/// Says below tuned values that their thresholds saw records that are scored here.
fn note_in_sample(table: &mut Table, ours: &Ours) {
    let tuned = ours.evaluation.as_ref().filter(|evaluation| evaluation.tuned.is_some());
    if let Some(note) = tuned.and_then(|tuned| in_sample_note(ours.in_sample, tuned.dev_overlap, tuned.n)) {
        table.note(note);
    }
}

fn table3(task: Task, paper: &Paper, ours: &Ours) -> Table {
    let mut table = Table::new(
        "table3",
        &format!("Table 3, consistency of head and text: {}", task.title()),
        &["Metric", "Paper", "Ours", "Δ"],
    );
    let evaluation = ours.evaluation.as_ref();
    let rows = [
        ("auroc_align", "AUROC-Align", evaluation.map(|e| &e.auroc_align)),
        ("kappa_default", "κ, 0.5", evaluation.and_then(|e| e.default.kappa.as_ref())),
        ("kappa_tuned", "κ, tuned", evaluation.and_then(|e| e.tuned.as_ref()).map(|tuned| &tuned.kappa.kappa)),
        ("rli", "RLI", evaluation.map(|e| &e.judge.rli)),
        ("rl_kappa", "κ rationale, label", evaluation.map(|e| &e.judge.rl_kappa)),
        ("readability", "Readability", evaluation.map(|e| &e.judge.readability)),
    ];
    for (key, name, metric) in rows {
        let paper = paper.table3.get(key).copied();
        let value = metric.and_then(|metric| metric.value);
        table.row([name.to_owned(), number(paper), metric.map_or_else(|| "–".to_owned(), cell), delta(value, paper)]);
    }
    note_in_sample(&mut table, ours);
    table
}

fn table4(task: Task, paper: &Paper, ours: &Ours) -> Table {
    let mut table = Table::new(
        "table4",
        &format!("Table 4, standard deviation over runs: {}", task.title()),
        &["Metric", "Method", "Paper", "Ours", "Δ", "Runs"],
    );
    for (metric, metric_name) in METRICS {
        for (method, method_name) in METHODS.into_iter().filter(|(method, _)| !matches!(*method, "default" | "tuned")) {
            let paper = paper.table4.get(metric).and_then(|row| row.get(method)).copied();
            let summary = ours.baselines.get(method).and_then(|measured| measured.runs.get(metric));
            let sd = summary.and_then(|summary| summary.sd);
            if paper.is_some() || sd.is_some() {
                let runs = summary.map(|summary| summary.runs.to_string()).unwrap_or_default();
                table.row([
                    metric_name.to_owned(),
                    method_name.to_owned(),
                    number(paper),
                    number(sd),
                    delta(sd, paper),
                    runs,
                ]);
            }
        }
    }
    table.note("Ours: sample standard deviation (n − 1).");
    table
}

fn table7(task: Task, paper: &Paper, ours: &Ours) -> Table {
    let columns = [
        "Status (dev)",
        "False, paper",
        "False, ours",
        "False, Δ",
        "True, paper",
        "True, ours",
        "True, Δ",
        "True / total, paper",
        "True / total, ours",
        "True / total, Δ",
    ];
    let mut table = Table::new("table7", &format!("Table 7, data construction: {}", task.title()), &columns);
    let own =
        ours.construct.as_ref().map(|statistics| [&statistics.original, &statistics.generated, &statistics.failed]);
    for (k, (key, name)) in
        [("original", "Original dataset"), ("generated", "Successfully generated"), ("failed", "Failed to generate")]
            .into_iter()
            .enumerate()
    {
        let theirs = |class: &str| paper.table7.get(key).and_then(|row| row.get(class)).copied();
        let paper = [theirs("false"), theirs("true")];
        let own =
            own.map_or([None; 2], |rows| [0, 1].map(|class| rows[k].counts().get(class).map(|&count| count as f64)));
        table.row([
            name.to_owned(),
            count(paper[0]),
            count(own[0]),
            count_delta(own[0], paper[0]),
            count(paper[1]),
            count(own[1]),
            count_delta(own[1], paper[1]),
            share(paper),
            share(own),
            share_delta(own, paper),
        ]);
    }
    table.note("Δ is ours minus the paper's; of the shares in percentage points.");
    if let Some(truncation) = ours.construct.as_ref().and_then(Statistics::truncation) {
        table.note(format!("Ours: {truncation}."));
    }
    table
}

/// `True / Total` in per cent, halves rounded up as the paper does (56.25 → 56.3).
fn per_cent([no, yes]: [Option<f64>; 2]) -> Option<f64> {
    let pair = no.zip(yes).filter(|(no, yes)| no + yes > 0.0);
    pair.map(|(no, yes)| (1000.0 * yes / (no + yes)).round() / 10.0)
}

fn share(counts: [Option<f64>; 2]) -> String {
    per_cent(counts).map_or_else(|| "–".to_owned(), |share| format!("{share:.1} %"))
}

fn share_delta(ours: [Option<f64>; 2], paper: [Option<f64>; 2]) -> String {
    difference(per_cent(ours).zip(per_cent(paper)).map(|(ours, paper)| ours - paper), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_own_shares_follow_from_its_counts() {
        let shares = |task| {
            let table = paper_table(PaperTable::Table7, task, &Ours::default()).unwrap();
            table.rows.iter().map(|row| row[7].clone()).collect::<Vec<_>>()
        };
        assert_eq!(shares(Task::Lcd30), ["4.0 %", "2.3 %", "57.7 %"]);
        assert_eq!(shares(Task::Lcd90), ["4.0 %", "2.8 %", "29.1 %"]);
        assert_eq!(shares(Task::Clinifact), ["26.3 %", "22.9 %", "56.3 %"]);
    }

    #[test]
    fn table_1_adds_up_and_every_table_builds_for_every_task() {
        for task in [Task::Lcd30, Task::Lcd90, Task::Clinifact] {
            for table in
                [PaperTable::Table1, PaperTable::Table2, PaperTable::Table3, PaperTable::Table4, PaperTable::Table7]
            {
                let built = paper_table(table, task, &Ours::default()).unwrap();
                assert!(
                    built.rows.len() >= 3 && built.rows.iter().all(|row| row.len() == built.columns.len()),
                    "{}",
                    built.name
                );
            }
            let paper = Paper::of(task).unwrap();
            assert_eq!(paper.table1["train"] + paper.table1["dev"] + paper.table1["test"], paper.table1["total"]);
        }
    }

    #[test]
    fn delta_is_ours_minus_the_papers() {
        assert_eq!((delta(Some(0.9), Some(0.95)), delta(Some(0.9), None)), ("−0.0500".into(), "–".into()));
    }
}
