//! `RUN/eval/predictions.jsonl`: a line a record as it comes, continued where an earlier run of the same stopped
//! ([`log`]).

use std::path::Path;

use serde_json::json;

use super::{folder::Folder, log};
use crate::{
    context::Context,
    data::{Prediction, Record, read_predictions_carrying, source_hash},
    error::{Error, Result},
    generate::{
        predict::{Counts, PromptedRecord, score},
        scoring,
    },
    model::checkpoint::read_info,
    prompt::PromptTemplate,
    storage,
};

/// The predictions' file.
pub const FILE: &str = "predictions.jsonl";
/// The same of the base model before tuning, under a head that was never trained.
pub const BASE_FILE: &str = "base.predictions.jsonl";
const META: &str = "predictions.meta.json";

/// What the predictions are made from.
pub struct Source<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Path,
    /// BLAKE3 of its files.
    pub hash: &'a str,
    /// The records' file.
    pub data: &'a Path,
    /// The checkpoint as trained, or what its training started from.
    pub tuned: bool,
}

impl Source<'_> {
    fn file(&self) -> &'static str {
        if self.tuned { FILE } else { BASE_FILE }
    }
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
        let path = out.join(FILE);
        if std::fs::read(&path).is_ok_and(|theirs| theirs != lines.as_bytes()) {
            tracing::warn!("{} was changed after it was written: made again from the checkpoint's", path.display());
        }
        storage::write_file_atomic(&path, lines.as_bytes())?;
    }
    Ok(predictions)
}

/// Scores `records`, or those of them that an earlier run of the same left unscored.
pub fn generate(
    context: &Context,
    folder: &Folder,
    source: &Source<'_>,
    template: PromptTemplate,
    records: &[Record],
) -> Result<Vec<Prediction>> {
    let info = read_info(source.checkpoint)?;
    let windows = scoring::windows(context, &info);
    let settings = scoring::settings(context, true, &windows);
    let made = [("records", json!(source_hash(source.data)?)), ("tuned", json!(source.tuned))];
    let made = scoring::fingerprint(context, (source.checkpoint, source.hash), &info, &made)?;
    if context.dry_run {
        return Ok(Vec::new());
    }
    let file = source.file();
    let path = folder.out.join(file);
    let mut lines = log::open(&path, &made, folder.overwrite)?;
    let done = lines.records();
    if done > 0 {
        tracing::info!("{file}: {done} of {} records are scored already", records.len());
    }
    if done < records.len() {
        let loaded = if source.tuned {
            scoring::check_memory(context, source.checkpoint, &info, &windows).map_err(at_the_runs_window)?;
            scoring::load(context, source.checkpoint)?
        } else {
            scoring::check_memory_of_base(context, source.checkpoint, &info, &windows).map_err(at_the_runs_window)?;
            scoring::load_untuned(context, source.checkpoint)?
        };
        let prompter = scoring::prompter(&loaded, template, &windows, &context.prompt_date())?;
        let bar = log::progress(context, "predictions", records.len(), done);
        let rest = records[done..].iter().map(|record| PromptedRecord::of(&prompter, record));
        let mut counts = Counts::default();
        let outcome = score(&loaded.model, &prompter, rest, &settings, &mut |prediction| {
            lines.append(&prediction)?;
            counts.add(&prediction);
            bar.inc(1);
            Ok(())
        });
        bar.finish_and_clear();
        lines.sync()?;
        outcome.map_err(log::resumable)?;
        tracing::info!("{} records, {} truncated, {} unparsable", counts.records, counts.truncated, counts.unparsable);
    }
    read_predictions_carrying(&path, &info.labels, &context.config.eval.subgroups)
}

/// A window that would fit is no help by itself where it is not the run's own: how to use it all the same.
fn at_the_runs_window(error: Error) -> Error {
    match error.hint_text().filter(|_| error.exit_code() == 5).map(str::to_owned) {
        Some(hint) => error.hint(format!(
            "{hint}; a run is evaluated at its own window alone: `clsgen predict` its splits at another, then `clsgen \
            eval --predictions …`"
        )),
        None => error,
    }
}
