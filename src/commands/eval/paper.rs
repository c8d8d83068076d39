//! `--paper`: what this run has to put beside the paper's tables.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::Context;
use crate::{
    error::{Error, Result},
    evaluation::{PredictionSource, Scored, folder::EvalRequest, splits},
    foreign,
    generate::construct::Statistics,
    labels::Class,
    metrics::{AnyEvaluation, AnySample},
    report::{
        Table,
        paper::{Measured, Ours, PaperTable, SplitCounts, Task, paper_table},
    },
};

/// Whether there is a task of the paper's for the tables that are asked for: before hours of work, as far as it can be
/// told without predictions.
pub fn check(context: &Context, work: &PredictionSource<'_>, asked: &EvalRequest) -> Result<()> {
    if asked.paper.is_empty() {
        return Ok(());
    }
    if !context.config.task.labels.are_two() {
        return Err(Error::usage("--paper: the paper's tasks have two classes").hint("leave --paper out"));
    }
    let PredictionSource::Run(job) = work else { return Ok(()) };
    if Task::guess(name(context, asked), 0, 0).is_some() {
        return Ok(());
    }
    // Their number alone: labels are read once dev's thresholds are frozen.
    let records = splits::load(&context.config, &job.data, &job.template.fields())?.len();
    if Task::has_split_of(records) { Ok(()) } else { Err(unknown(context, asked)) }
}

fn name<'a>(context: &'a Context, asked: &'a EvalRequest) -> &'a str {
    asked.paper_task.as_deref().unwrap_or(&context.config.task.name)
}

/// The paper's task, which the tables named need; refused (exit 2) where neither name nor records tell it.
fn task(context: &Context, asked: &EvalRequest, records: usize, positives: usize) -> Result<Task> {
    Task::guess(name(context, asked), records, positives).ok_or_else(|| unknown(context, asked))
}

fn unknown(context: &Context, asked: &EvalRequest) -> Error {
    let name = name(context, asked);
    Error::usage(format!("--paper: task `{name}` is none of the paper's, nor are the records")).hint(format!(
        "say which one with --set task.name=lcd30, lcd90 or clinifact, and the run with --run {}",
        context.run_dir.display()
    ))
}

/// The config's name of the task, where it is one of the paper's: what a later command without it goes by.
pub fn named(context: &Context) -> Option<String> {
    let name = &context.config.task.name;
    Task::guess(name, 0, 0).map(|_| name.clone())
}

/// The task of what was scored; `None` where no table is asked for.
pub fn task_of(context: &Context, asked: &EvalRequest, scored: &Scored) -> Result<Option<Task>> {
    let AnySample::Two(sample) = &scored.sample else { return Ok(None) };
    if asked.paper.is_empty() {
        return Ok(None);
    }
    // By the records where they are known: a dry run predicts none of them.
    let (records, positives) = match &scored.records {
        Some(records) => (records.len(), records.iter().filter(|record| record.label == Some(Class::ONE)).count()),
        None => (sample.len(), sample.positives()),
    };
    task(context, asked, records, positives).map(Some)
}

/// The tables named, in their order.
pub fn tables(
    context: &Context,
    asked: &EvalRequest,
    scored: &Scored,
    evaluation: &AnyEvaluation,
    baselines: BTreeMap<String, Measured>,
) -> Result<Vec<Table>> {
    let names = &asked.paper;
    let Some((task, evaluation)) = task_of(context, asked, scored)?.zip(evaluation.two()) else {
        return Ok(Vec::new());
    };
    let ours = Ours {
        evaluation: Some(evaluation.clone()),
        in_sample: scored.in_sample,
        splits: if names.iter().any(|name| name == "table1") {
            split_counts(context, &scored.fields)?
        } else {
            SplitCounts::default()
        },
        construct: construct(&context.run_dir),
        baselines,
    };
    let tables = names.iter().filter_map(|name| PaperTable::parse(name));
    let built = tables.map(|table| {
        let mut table = paper_table(table, task, &ours)?;
        table.note(format!("Ours: {}.", scored.title));
        Ok(table)
    });
    built.collect()
}

/// Records of each split that the config names and that is there.
fn split_counts(context: &Context, fields: &[String]) -> Result<SplitCounts> {
    let data = &context.config.data;
    let count = |path: &Option<std::path::PathBuf>| -> Result<Option<usize>> {
        let Some(path) = path.as_ref().map(|path| context.config.resolve(path)).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        Ok(Some(splits::load(&context.config, &path, fields)?.len()))
    };
    Ok(SplitCounts { train: count(&data.train)?, dev: count(&data.dev)?, test: count(&data.test)? })
}

/// Statistics of the dev split from `RUN/construct/stats.json`, where construct has run.
pub(super) fn construct(run: &Path) -> Option<Statistics> {
    let stats: Value =
        serde_json::from_slice(&foreign::read(&run.join("construct/stats.json"), foreign::LARGE).ok()?).ok()?;
    serde_json::from_value(stats["splits"]["dev"]["statistics"].clone()).ok()
}
