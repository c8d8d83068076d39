//! `--paper`: what this run has to put beside the paper's tables.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::Context;
use crate::{
    error::{Error, Result},
    evaluation::{Scored, splits},
    foreign,
    generate::construct::Statistics,
    metrics::{AnySample, Evaluation},
    report::{
        Table,
        paper::{Measured, Ours, PaperTable, SplitCounts, Task, paper_table},
    },
};

/// The paper's task, which the tables named need; refused (exit 2) where neither name nor records tell it.
pub fn task(context: &Context, scored: &Scored) -> Result<Task> {
    let AnySample::Two(sample) = &scored.sample else {
        return Err(Error::usage("--paper: the paper's tasks have two classes").hint("leave --paper out"));
    };
    Task::guess(&context.config.task.name, sample.len(), sample.positives()).ok_or_else(|| {
        Error::usage(format!(
            "--paper: task `{}` is none of the paper's, nor are the records",
            context.config.task.name
        ))
        .hint(format!(
            "say which one with --set task.name=lcd30, lcd90 or clinifact, and the run with --run {}",
            context.run_dir.display()
        ))
    })
}

/// The tables named, in their order.
pub fn tables(
    context: &Context,
    names: &[String],
    scored: &Scored,
    evaluation: &Evaluation,
    baselines: BTreeMap<String, Measured>,
) -> Result<Vec<Table>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let task = task(context, scored)?;
    let ours = Ours {
        evaluation: Some(evaluation.clone()),
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
fn construct(run: &Path) -> Option<Statistics> {
    let stats: Value =
        serde_json::from_slice(&foreign::read(&run.join("construct/stats.json"), foreign::LARGE).ok()?).ok()?;
    serde_json::from_value(stats["splits"]["dev"]["statistics"].clone()).ok()
}
