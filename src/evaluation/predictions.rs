//! `RUN/eval/predictions.jsonl`: a line a record as it comes, continued where an earlier run of the same stopped
//! ([`log`]).

use std::path::Path;

use super::{folder::Folder, log};
use crate::{
    context::Context,
    data::{Prediction, Predictions, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    generate::{
        loading,
        predict::{Counts, PromptedRecord, score},
        scoring,
    },
    model::checkpoint::ClsgenJson,
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
    /// The checkpoint's directory.
    pub checkpoint: &'a Path,
    /// What it says of itself.
    pub info: &'a ClsgenJson,
    /// The prompt it was trained with.
    pub template: &'a PromptTemplate,
    /// Everything that decides the predictions.
    pub made: Fingerprint,
    /// The checkpoint as trained, or what its training started from.
    pub tuned: bool,
}

/// Writes predictions that exist already.
pub fn keep(out: &Path, all: Vec<Prediction>, dry_run: bool) -> Result<Predictions> {
    let mut lines = String::new();
    for prediction in &all {
        lines += &prediction.to_line()?;
        lines.push('\n');
    }
    if !dry_run {
        storage::create_dir_all(out)?;
        storage::remove_file(&out.join(META))?;
        let path = out.join(FILE);
        if foreign::read(&path, foreign::LOG).is_ok_and(|theirs| theirs != lines.as_bytes()) {
            tracing::warn!("{} was changed after it was written: made again from the checkpoint's", path.display());
        }
        storage::write_file_atomic(&path, lines.as_bytes())?;
    }
    Ok(Predictions::of(&out.join(FILE), all, storage::hash_bytes(lines.as_bytes())))
}

/// Scores `records`, or those of them that an earlier run of the same left unscored.
pub fn generate(context: &Context, folder: &Folder, source: &Source<'_>, records: &[Record]) -> Result<Predictions> {
    if context.dry_run {
        return Ok(Predictions::default());
    }
    let Source { checkpoint, info, .. } = source;
    let windows = scoring::windows(context, info);
    let settings = scoring::settings(context, true, &windows);
    let file = if source.tuned { FILE } else { BASE_FILE };
    let path = folder.out.join(file);
    let kept = |bytes: &[u8]| {
        let mut kept = Predictions::parse(&path, bytes, &info.labels, &[])?.all;
        kept.iter_mut().zip(records).for_each(|(prediction, record)| prediction.complete(record));
        Ok(kept)
    };
    let mut lines = log::open(&path, (&source.made, folder.overwrite), kept, |_| ())?;
    let done = lines.records();
    if done > 0 {
        tracing::info!("{file}: {done} of {} records are scored already", records.len());
    }
    if done < records.len() {
        let loaded = if source.tuned {
            scoring::check_memory(context, checkpoint, info, &windows).map_err(at_the_runs_window)?;
            loading::load(context, checkpoint)?
        } else {
            scoring::check_memory_of_base(context, checkpoint, info, &windows).map_err(at_the_runs_window)?;
            loading::load_untuned(context, checkpoint, info)?
        };
        let prompter = scoring::prompter(&loaded, source.template.clone(), &windows, &context.prompt_date())?;
        let bar = log::progress(context, "predictions", records.len(), done);
        let rest = records[done..].iter().map(|record| PromptedRecord::of(&prompter, record, &settings));
        let mut counts = Counts::default();
        let outcome = score(&loaded.model, &prompter, rest, &settings, &mut |prediction| {
            // It would be missed when all are scored, hours later.
            if let Some(error) = &prediction.error {
                return Err(error.fatal());
            }
            counts.add(&prediction);
            lines.append(prediction)?;
            bar.inc(1);
            Ok(())
        });
        bar.finish_and_clear();
        lines.sync()?;
        outcome.map_err(log::resumable)?;
        tracing::info!("{} records, {} truncated, {} unparsable", counts.records, counts.truncated, counts.unparsable);
    }
    Ok(lines.into_predictions())
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
