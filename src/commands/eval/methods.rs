//! Numbers of `eval --baselines`, beside the model's own (paper §5.2): `baselines.json`, two tables, and, of two
//! classes, the baselines' columns of Tables 2 and 4.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    baselines::Baseline,
    error::Result,
    evaluation::{Scored, baselines},
    metrics::{
        Evaluation, Metric, Options, Sample,
        methods::{BinaryAnswers, MethodMetrics, compare, measure},
        multiclass,
    },
    report::{
        Table,
        baselines::{ScoredMethod, adjust, baseline_tables},
        multiclass_baseline_tables,
        paper::{Measured, Runs, Summary},
    },
    storage,
};

/// What the baselines came to.
#[derive(Default)]
pub struct Outcome {
    /// Each baseline's numbers, for the paper's tables.
    pub methods: BTreeMap<String, Measured>,
    /// Tables of their own.
    pub tables: Vec<Table>,
    /// The content of `baselines.json`.
    pub described: Option<Value>,
}

/// Scores the answers of each baseline against the model's own sample; `out` is the split's folder.
pub fn score(
    answered: &[(Baseline, baselines::BaselineRuns)],
    out: &Path,
    (scored, sample): (&Scored, &Sample),
    evaluation: &Evaluation,
    options: &Options,
) -> Result<Outcome> {
    let each = answered.iter().filter_map(|(baseline, answers)| match answers {
        baselines::BaselineRuns::Two(runs) => Some(method(*baseline, runs, sample, options)),
        baselines::BaselineRuns::More(_) => None,
    });
    let mut methods: Vec<ScoredMethod> = each.collect();
    adjust(&mut methods);
    Ok(Outcome {
        tables: baseline_tables(&scored.title, evaluation, &methods).into(),
        described: Some(describe(&methods, out, &scored.title, sample.len())?),
        methods: methods
            .into_iter()
            .map(|method| (method.name, Measured { runs: method.runs, metrics: method.metrics }))
            .collect(),
    })
}

/// The same of more than two classes, which have these `names` and no table in the paper.
pub fn score_classes(
    answered: &[(Baseline, baselines::BaselineRuns)],
    out: &Path,
    (scored, sample): (&Scored, &multiclass::Sample),
    (names, evaluation): (&[String], &multiclass::Evaluation),
    options: &Options,
) -> Result<Outcome> {
    let each = answered.iter().filter_map(|(baseline, answers)| match answers {
        baselines::BaselineRuns::More(runs) => Some(class_method(*baseline, runs, (sample, names), options)),
        baselines::BaselineRuns::Two(_) => None,
    });
    let mut methods: Vec<_> = each.collect();
    adjust(&mut methods);
    Ok(Outcome {
        tables: multiclass_baseline_tables(&scored.title, evaluation, &methods).into(),
        described: Some(describe(&methods, out, &scored.title, sample.len())?),
        methods: BTreeMap::new(),
    })
}

/// Writes `baselines.json` and gives its content.
fn describe<M: Serialize>(methods: &[ScoredMethod<M>], out: &Path, title: &str, n: usize) -> Result<Value> {
    let described = json!({ "schema": 1, "title": title, "n": n, "methods": methods });
    storage::write_json(&out.join("baselines.json"), &described)?;
    Ok(described)
}

/// A baseline's numbers from its answers.
fn method(baseline: Baseline, runs: &[BinaryAnswers], sample: &Sample, options: &Options) -> ScoredMethod {
    let written = baseline.is_written();
    let each: Vec<_> = runs
        .iter()
        .map(|run| measure(sample, std::slice::from_ref(run), written, &Options { bootstrap: 0, ..*options }))
        .collect();
    let mut metrics = measure(sample, runs, written, options);
    metrics.note_undefined(&each);
    ScoredMethod {
        name: baseline.name().to_owned(),
        title: baseline.title().to_owned(),
        runs: over_runs(each.iter().map(MethodMetrics::named)),
        comparisons: runs.first().map(|run| compare(sample, run, written, options)).unwrap_or_default(),
        metrics,
        holm: Vec::new(),
    }
}

/// The same of more than two classes.
fn class_method(
    baseline: Baseline,
    runs: &[multiclass::methods::MethodRun],
    (sample, names): (&multiclass::Sample, &[String]),
    options: &Options,
) -> ScoredMethod<multiclass::methods::MethodMetrics> {
    use multiclass::methods::{compare, measure};
    let written = baseline.is_written();
    let alone = Options { bootstrap: 0, ..*options };
    let each: Vec<_> =
        runs.iter().map(|run| measure(sample, names, std::slice::from_ref(run), written, &alone)).collect();
    ScoredMethod {
        name: baseline.name().to_owned(),
        title: baseline.title().to_owned(),
        runs: over_runs(each.iter().map(multiclass::methods::MethodMetrics::named)),
        comparisons: runs.first().map(|run| compare(sample, names, run, written, options)).unwrap_or_default(),
        metrics: measure(sample, names, runs, written, options),
        holm: Vec::new(),
    }
}

/// Mean and SD of each metric over runs that were measured alone.
fn over_runs<'m, const N: usize>(each: impl Iterator<Item = [(&'static str, &'m Metric); N]>) -> Runs {
    let mut values: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    for (key, metric) in each.flatten() {
        values.entry(key.to_owned()).or_default().push(metric.value);
    }
    values.into_iter().filter_map(|(key, values)| Some((key, Summary::of(&values)?))).collect()
}
