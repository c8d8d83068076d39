//! `--card`: `model-card.md` and `tripod-llm.md`, from what the files of the run state.
//!
//! ```text
//! run.json, best.json, metrics.jsonl, construct/stats.json, the checkpoint ─┐
//! the splits' files (counts), the predictions, metrics.json, thresholds     ┴▶ Facts ─▶ two pages
//! ```
//!
//! Prediction files may be of any model: then the run directory's own training says nothing of them.

mod data;
mod model;
mod results;

use std::path::PathBuf;

use serde_json::Value;

use super::Context;
use crate::{
    error::Result,
    evaluation::{
        PredictionSource, Scored,
        folder::{CALIBRATION, Folder, THRESHOLDS},
        run_directory::EvalJob,
    },
    foreign,
    metrics::{AnyEvaluation, Options},
    report::card::{Card, Facts, Score, tripod},
    storage::{self, run_record},
};

/// Names of the two pages.
pub const FILES: [&str; 2] = ["model-card.md", "tripod-llm.md"];

/// What the pages are made from.
struct Sources<'a> {
    context: &'a Context,
    work: &'a PredictionSource<'a>,
    folder: &'a Folder,
    scored: &'a Scored,
    evaluation: &'a AnyEvaluation,
    options: &'a Options,
    /// `run.json`, of this very command.
    run: Value,
    thresholds: Value,
    calibration: Value,
}

impl Sources<'_> {
    /// The run directory's checkpoint; none of prediction files.
    fn job(&self) -> Option<&EvalJob> {
        match self.work {
            PredictionSource::Run(job) => Some(job),
            PredictionSource::Files { .. } => None,
        }
    }

    /// The record of the run's newest earlier command of this name, of those that `run.json` keeps; none of prediction
    /// files.
    fn command(&self, name: &str) -> Option<&Value> {
        self.job()?;
        self.run["earlier"].as_array()?.iter().find(|record| record["command"] == name)
    }

    /// A JSON file of the run directory; none of prediction files.
    fn of_run(&self, name: &str) -> Option<Value> {
        self.job()?;
        read(&self.context.run_dir.join(name))
    }

    /// The names of the classes.
    fn labels(&self) -> &[String] {
        &self.context.config.task.labels
    }
}

/// Writes both pages beside the split's `metrics.json`.
pub fn write(
    context: &Context,
    (folder, work): (&Folder, &PredictionSource<'_>),
    (scored, evaluation): (&Scored, &AnyEvaluation),
    options: &Options,
) -> Result<()> {
    // Those of this evaluation: a file of an earlier one may lie there.
    let beside = |name: &str, ours: bool| ours.then(|| read(&folder.frozen.join(name))).flatten().unwrap_or_default();
    let sources = Sources {
        run: run_record::read(&context.run_dir).unwrap_or_default(),
        thresholds: beside(THRESHOLDS, scored.frozen.is_some()),
        calibration: beside(CALIBRATION, scored.calibration.is_some()),
        context,
        work,
        folder,
        scored,
        evaluation,
        options,
    };
    let mut facts = Facts::default();
    data::state(&sources, &mut facts);
    model::state(&sources, &mut facts);
    results::state(&sources, &mut facts);
    let task = &context.config.task.name;
    let pages = [card(&sources).page(&facts), tripod(task, &scored.title, &facts)?];
    for (name, page) in FILES.into_iter().zip(pages) {
        storage::write_file_atomic(&folder.out.join(name), page.as_bytes())?;
    }
    tracing::info!("wrote {} and {}", folder.out.join(FILES[0]).display(), folder.out.join(FILES[1]).display());
    Ok(())
}

/// What the front matter says.
fn card<'a>(sources: &'a Sources<'_>) -> Card<'a> {
    let job = sources.job();
    // A hub id is `owner/name`; anything else is a place on this machine.
    let hub_id = |base: &String| {
        let parts: Vec<&str> = base.split('/').collect();
        let named = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".gguf");
        let beside = job.map(|job| job.checkpoint.join(base));
        let places = [Some(base.into()), beside, Some(sources.context.config.resolve(base.as_ref()))];
        parts.len() == 2 && parts.iter().all(named) && !places.into_iter().flatten().any(|path: PathBuf| path.exists())
    };
    let file = match sources.work {
        PredictionSource::Run(job) => Some(job.data.as_path()),
        PredictionSource::Files { test, .. } => test.first().map(PathBuf::as_path),
    };
    let file = file.and_then(|path| path.file_name()).unwrap_or_default();
    Card {
        task: &sources.context.config.task.name,
        title: &sources.scored.title,
        split: sources.work.split().unwrap_or("predictions"),
        data: file.to_string_lossy().into_owned(),
        base: job.map(|job| job.info.base_model.clone()).filter(hub_id),
        adapter: job.is_some_and(|job| job.checkpoint.join("adapter_config.json").is_file()),
        trained: job.is_some(),
        scores: scores(sources.evaluation),
    }
}

/// Metrics for the hub, under its names, as `metrics.json` has them.
fn scores(evaluation: &AnyEvaluation) -> Vec<Score> {
    let named = match evaluation {
        AnyEvaluation::Two(two) => vec![
            ("roc_auc", "AUROC", &two.auroc),
            ("average_precision", "AUPRC", &two.auprc),
            ("f1", "F1 at 0.5", &two.default.f1),
            ("precision", "Precision at 0.5", &two.default.precision),
            ("recall", "Recall at 0.5", &two.default.recall),
            ("brier_score", "Brier", &two.calibration.brier),
        ],
        AnyEvaluation::More(more) => vec![
            ("roc_auc", "AUROC, macro", &more.auroc),
            ("accuracy", "Accuracy", &more.calls.accuracy),
            ("f1", "F1, macro", &more.calls.macro_mean.f1),
            ("brier_score", "Brier", &more.calibration.brier),
        ],
    };
    let score = |(r#type, name, metric): (&'static str, &str, &crate::metrics::Metric)| {
        Some(Score { r#type, name: name.to_owned(), value: metric.value? })
    };
    named.into_iter().filter_map(score).collect()
}

/// A JSON file; one that is broken counts as none.
fn read(path: &std::path::Path) -> Option<Value> {
    serde_json::from_slice(&foreign::read(path, foreign::LARGE).ok()?).ok()
}

/// A value of a JSON document as a person reads it; none where it is null.
fn display_value(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(display_value).collect();
            (!items.is_empty()).then(|| items.join(", "))
        }
        other => Some(other.to_string()),
    }
}

/// `50 (12.5 %)`
fn share(part: usize, whole: usize) -> String {
    match whole {
        0 => part.to_string(),
        _ => format!("{part} ({:.1} %)", 100.0 * part as f64 / whole as f64),
    }
}
