//! Mode (a): prediction files, whoever made them.

use std::path::Path;

use super::{Scored, calibration::freeze, folder::Folder, in_sample::Dev, inputs};
use crate::{context::Context, data::Predictions, error::Result, prompt::Verdict};

/// Freezes thresholds on `dev`, then scores `test`.
pub fn score(context: &Context, folder: &Folder, test: &Path, dev: Option<&Path>) -> Result<Scored> {
    let labels = &context.config.task.labels;
    let tuned = dev.map(|dev| Predictions::read(dev, labels, &[])).transpose()?;
    let on = |(path, tuned)| freeze(context, folder, tuned, (path, path), None);
    let (frozen, calibration) = dev.zip(tuned.as_ref()).map(on).transpose()?.unzip();
    let predictions = Predictions::read(test, labels, &context.config.eval.subgroups)?;
    let sample = inputs::sample(test, &predictions, labels, None)?;
    let title = format!("{} ({})", test.display(), sample.counts());
    let in_sample = tuned.is_some_and(|dev| Dev::new(&dev, &[]).holds(&predictions, None));
    // A prediction file is taken to have the paper's verdict line.
    let verdict = Verdict::default();
    Ok(Scored {
        sample,
        title,
        frozen,
        calibration: calibration.flatten(),
        in_sample,
        predictions,
        verdict,
        records: None,
    })
}
