//! Mode (a): prediction files, whoever made them. Several of a split are one.

use std::path::PathBuf;

use super::{
    Scored,
    calibration::freeze,
    folder::{CALIBRATION, Folder, THRESHOLDS},
    frozen,
    in_sample::Dev,
    inputs, splits,
};
use crate::{
    context::Context,
    data::{Predictions, display_path},
    error::Result,
    prompt::{PromptTemplate, Verdict},
};

/// Freezes thresholds on `dev`, unless there is none, then scores `test`.
pub fn score(context: &Context, folder: &Folder, test: &[PathBuf], dev: &[PathBuf]) -> Result<Scored> {
    let labels = &context.config.task.labels;
    let verdict = verdict(context)?;
    let tuned = (!dev.is_empty()).then(|| Predictions::read(dev, labels, &[])).transpose()?;
    let on = |tuned| freeze(context, folder, tuned, &display_path(dev), None);
    let (frozen, calibration) = tuned.as_ref().map(on).transpose()?.unzip();
    if frozen.is_none() {
        // Those of an earlier evaluation would pass for this one's.
        for name in [THRESHOLDS, CALIBRATION] {
            frozen::write(folder, name, None, context.dry_run)?;
        }
    }
    let predictions = Predictions::read(test, labels, &context.config.eval.subgroups)?;
    let sample = inputs::sample(&predictions, labels, None)?;
    let title = format!("{} ({})", display_path(test).display(), sample.counts());
    let shared = tuned.map_or(0, |dev| Dev::new(&dev, &[]).holds(&predictions, None));
    let in_sample = shared > 0 && shared == predictions.len();
    Ok(Scored {
        sample,
        question: None,
        fields: splits::fields(&context.config),
        title,
        frozen,
        calibration: calibration.flatten(),
        in_sample,
        dev_overlap: if in_sample { 0 } else { shared },
        predictions,
        verdict,
        records: None,
    })
}

/// A prediction file is taken to have the paper's verdict line, where no prompt says another.
pub fn verdict(context: &Context) -> Result<Verdict> {
    let prompt = context.config.given.contains("task.prompt").then_some(&context.config.task.prompt);
    match prompt.map(|path| context.config.resolve(path)).filter(|path| path.exists()) {
        Some(path) => PromptTemplate::of_answers(&path)?.verdict(),
        None => Ok(Verdict::default()),
    }
}
