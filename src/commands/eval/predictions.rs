//! `RUN/eval/predictions.jsonl`: a line a record as it comes, continued where an earlier run of the same stopped.
//!
//! `predictions.meta.json` beside it says what made it: when the same would be made again, its lines are kept and only the
//! missing records are scored; anything else begins the file anew, for all of `RUN/eval` belongs to the latest evaluation.

use std::{io::IsTerminal, path::Path};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{super::scoring, Context, json};
use crate::{
    data::{Prediction, Record, read_predictions, source_hash},
    error::Result,
    generate::predict::{Counts, Settings, score},
    model::checkpoint::read_info,
    prompt::PromptTemplate,
    storage::{self, RecordLog},
};

/// The predictions' file.
pub const FILE: &str = "predictions.jsonl";
const META: &str = "predictions.meta.json";

/// What the predictions are made from.
pub struct Source<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Path,
    /// BLAKE3 of its files.
    pub checkpoint_hash: &'a str,
    /// The records' file.
    pub data: &'a Path,
}

/// Writes predictions that exist already.
pub fn keep(out: &Path, predictions: Vec<Prediction>, dry_run: bool) -> Result<Vec<Prediction>> {
    if !dry_run {
        let mut lines = String::new();
        for prediction in &predictions {
            lines += &prediction.to_line()?;
            lines.push('\n');
        }
        storage::create_dir_all(out)?;
        storage::remove_file(&out.join(META))?;
        storage::write_file_atomic(&out.join(FILE), lines.as_bytes())?;
    }
    Ok(predictions)
}

/// Scores `records`, or those of them that an earlier run of the same left unscored.
pub fn generate(
    context: &Context,
    out: &Path,
    source: &Source<'_>,
    template: PromptTemplate,
    records: &[Record],
) -> Result<Vec<Prediction>> {
    let info = read_info(source.checkpoint)?;
    let windows = scoring::windows(context, &info);
    let settings = scoring::settings(context, true, &windows);
    let meta = json!({
        "schema": 1,
        "clsgen_version": env!("CARGO_PKG_VERSION"),
        "checkpoint": source.checkpoint_hash,
        "base": if context.config.model.base.is_empty() { json!(info.base_hash) } else { json!(context.config.model.base) },
        "data": source_hash(source.data)?,
        "records": records.len(),
        "settings": described(context, &settings, &windows),
    });
    if context.dry_run {
        return Ok(Vec::new());
    }
    let mut log = open(out, &meta)?;
    let done = log.records();
    if done > 0 {
        tracing::info!("{FILE}: {done} of {} records are scored already", records.len());
    }
    if done < records.len() {
        let loaded = scoring::load(context, source.checkpoint)?;
        scoring::check_memory(&loaded.model.llama, &windows)?;
        let prompter = scoring::prompter(&loaded, template, &windows)?;
        let bar = progress(context, records.len(), done);
        let rest = records[done..].iter().map(|record| Ok(Ok(record.clone())));
        let mut counts = Counts::default();
        let outcome = score(&loaded.model, &prompter, rest, &settings, &mut |prediction| {
            log.append(&prediction)?;
            counts.add(&prediction);
            bar.inc(1);
            Ok(())
        });
        bar.finish_and_clear();
        log.sync()?;
        outcome.map_err(
            |error| if error.exit_code() >= 128 { error.hint("the same command goes on where this one stopped") } else { error },
        )?;
        tracing::info!("{} records, {} truncated, {} unparsable", counts.records, counts.truncated, counts.unparsable);
    }
    read_predictions(&out.join(FILE))
}

/// Everything about decoding that decides the bytes.
fn described(context: &Context, settings: &Settings, windows: &scoring::Windows) -> Value {
    let sampled = settings.sampling.temperature > 0.0;
    json!({
        "temperature": settings.sampling.temperature,
        "top_p": sampled.then_some(settings.sampling.top_p),
        "seed": sampled.then_some(settings.sampling.seed),
        "max_input_tokens": windows.input,
        "max_output_tokens": windows.output,
        "truncate": windows.truncate,
        "constrain": settings.constrain,
        "dtype": context.config.model.dtype,
        "fields": context.config.data.fields,
        "horizon": context.config.data.horizon,
    })
}

/// The log to go on with: an earlier one of the same, or a new one.
fn open(out: &Path, meta: &Value) -> Result<RecordLog> {
    storage::create_dir_all(out)?;
    let (file, beside) = (out.join(FILE), out.join(META));
    let same = std::fs::read(&beside).is_ok_and(|bytes| serde_json::from_slice::<Value>(&bytes).is_ok_and(|theirs| theirs == *meta));
    if !same {
        storage::remove_file(&file)?;
        storage::write_file_atomic(&beside, json(meta)?.as_bytes())?;
    }
    RecordLog::open(&file)
}

/// A bar on a terminal; nothing anywhere else.
fn progress(context: &Context, total: usize, done: usize) -> ProgressBar {
    if context.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64).with_position(done as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} records, {per_sec}, {eta} left");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
