//! Numbers of `eval --baselines`, beside the model's own (paper §5.2): `baselines.json`, two tables, and, of two
//! classes, the baselines' columns of Tables 2 and 4.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    baselines::Baseline,
    error::{Error, Result},
    evaluation::{Scored, baselines::BaselineRuns},
    metrics::{
        AnyEvaluation, AnySample, Metric, Options, Sample,
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

/// Scores the answers of each baseline against the model's own; `out` is the split's folder, `names` those of the
/// classes.
pub fn score(
    answered: &[(Baseline, BaselineRuns)],
    out: &Path,
    (scored, evaluation): (&Scored, &AnyEvaluation),
    names: &[String],
    options: &Options,
) -> Result<Outcome> {
    let title = &scored.title;
    match (&scored.sample, evaluation) {
        (AnySample::Two(sample), AnyEvaluation::Two(evaluation)) => {
            let mut methods: Vec<ScoredMethod> = answered
                .iter()
                .filter_map(|(baseline, runs)| Some(method(*baseline, runs.two()?, sample, options)))
                .collect();
            adjust(&mut methods);
            let tables = baseline_tables(title, evaluation, &methods).into();
            let described = Some(describe(&methods, out, title, sample.len())?);
            let measured =
                |method: ScoredMethod| (method.name, Measured { runs: method.runs, metrics: method.metrics });
            Ok(Outcome { tables, described, methods: methods.into_iter().map(measured).collect() })
        }
        (AnySample::More(sample), AnyEvaluation::More(evaluation)) => {
            let mut methods: Vec<_> = answered
                .iter()
                .filter_map(|(baseline, runs)| Some(class_method(*baseline, runs.more()?, (sample, names), options)))
                .collect();
            adjust(&mut methods);
            let tables = multiclass_baseline_tables(title, evaluation, &methods).into();
            let described = Some(describe(&methods, out, title, sample.len())?);
            // The paper has no table of them.
            Ok(Outcome { tables, described, methods: BTreeMap::new() })
        }
        _ => Err(Error::run("the scored records are of another number of classes than what was measured")),
    }
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
