//! Numbers of `eval --baselines`, beside the model's own (SPEC A25–A29): `baselines.json`, two tables, and the
//! baselines' columns of Tables 2 and 4.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use crate::{
    baselines::Baseline,
    error::Result,
    evaluation::{Scored, baselines},
    metrics::{
        Evaluation, Options, Sample,
        methods::{Answers, compare, measure},
    },
    report::{
        Table,
        baselines::{ScoredMethod, adjust, baseline_tables},
        paper::{Measured, Summary},
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
    answered: &[(Baseline, baselines::Answers)],
    out: &Path,
    (scored, sample): (&Scored, &Sample),
    evaluation: &Evaluation,
    options: &Options,
) -> Result<Outcome> {
    let each = answered.iter().filter_map(|(baseline, answers)| match answers {
        baselines::Answers::Two(runs) => Some(method(*baseline, runs, sample, options)),
        baselines::Answers::More(_) => None,
    });
    let mut methods: Vec<ScoredMethod> = each.collect();
    adjust(&mut methods);
    let described = json!({ "schema": 1, "title": scored.title, "n": sample.len(), "methods": methods });
    storage::write_json(&out.join("baselines.json"), &described)?;
    Ok(Outcome {
        tables: baseline_tables(&scored.title, evaluation, &methods).into(),
        described: Some(described),
        methods: methods
            .into_iter()
            .map(|method| (method.name, Measured { runs: method.runs, metrics: method.metrics }))
            .collect(),
    })
}

/// A baseline's numbers from its answers.
fn method(baseline: Baseline, runs: &[Answers], sample: &Sample, options: &Options) -> ScoredMethod {
    let written = baseline.is_written();
    let each: Vec<_> = runs
        .iter()
        .map(|run| measure(sample, std::slice::from_ref(run), written, &Options { bootstrap: 0, ..*options }))
        .collect();
    let mut metrics = measure(sample, runs, written, options);
    metrics.note_undefined(&each);
    let summary = |key: &str| {
        let values: Vec<Option<f64>> = each
            .iter()
            .flat_map(|run| run.named())
            .filter(|(name, _)| *name == key)
            .map(|(_, metric)| metric.value)
            .collect();
        Summary::of(&values)
    };
    ScoredMethod {
        name: baseline.name().to_owned(),
        title: baseline.title().to_owned(),
        runs: metrics.named().iter().filter_map(|(key, _)| Some(((*key).to_owned(), summary(key)?))).collect(),
        comparisons: runs.first().map(|run| compare(sample, run, written, options)).unwrap_or_default(),
        metrics,
        holm: Vec::new(),
    }
}
