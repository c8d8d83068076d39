//! Mode (a): prediction files, whoever made them.

use std::path::Path;

use super::{
    Scored,
    calibration::Fitted,
    costs,
    folder::{self, Folder},
    frozen::{self, Frozen},
    in_sample::Dev,
    inputs, positive,
};
use crate::{
    context::Context,
    data::{read_predictions, read_predictions_carrying},
    error::Result,
    storage,
};

/// Freezes thresholds on `dev`, then scores `test`.
pub fn score(context: &Context, folder: &Folder, test: &Path, dev: Option<&Path>) -> Result<Scored> {
    let labels = &context.config.task.labels;
    let mut tuned = None;
    let (frozen, calibration) = match dev {
        None => (None, None),
        Some(dev) => {
            let predictions = read_predictions(dev, labels)?;
            let sample = inputs::sample(dev, &predictions, labels, None)?;
            let frozen =
                Frozen::tune((&sample, positive(context)?), costs(context), None, dev, &storage::hash_file(dev)?);
            frozen::write(folder, folder::THRESHOLDS, Some(&frozen.bytes()?), context.dry_run)?;
            let fitted = Fitted::fit(context, &sample, &frozen)?;
            Fitted::write(fitted.as_ref(), folder, context.dry_run)?;
            tuned = Some(Dev::new(&predictions, &[]));
            (Some(frozen), fitted)
        }
    };
    let predictions = read_predictions_carrying(test, labels, &context.config.eval.subgroups)?;
    let sample = inputs::sample(test, &predictions, labels, None)?;
    let title = format!("{} ({})", test.display(), sample.counts());
    let in_sample = tuned.is_some_and(|dev| dev.holds(&predictions, None));
    Ok(Scored { sample, title, frozen, calibration, in_sample, predictions, records: None })
}
