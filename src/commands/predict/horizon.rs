//! Which of the LCD benchmark's labels a model predicts: a checkpoint does not say it, its run does.

use std::path::{Path, PathBuf};

use crate::{commands::Context, config::Data, evaluation::run_directory, generate::scoring};

/// The context with the horizon that `model`, a run or a checkpoint of one, was trained with, where the command gives
/// none. Where the run does not say it either, records with labels of several horizons are refused.
pub(super) fn of_run(context: &Context, model: &Path) -> Context {
    let mut context = context.clone();
    if !context.config.given.contains("data.horizon") {
        match trained_horizon(model) {
            Some(days) => context.config.data.horizon = days,
            None => context.config.data.horizon_unsaid = true,
        }
    }
    context
}

/// A run's record that cannot be read says nothing, as does the default where the run may have read something else:
/// records of another format, or a label by a name of its own. Predictions need none but of files that leave a choice.
fn trained_horizon(model: &Path) -> Option<u32> {
    let trained = run_directory::trained(&run_of(model)?).ok()??;
    let days: u32 = trained.get("data.horizon").as_u64()?.try_into().ok()?;
    let given = days != Data::default().horizon || *trained.get("data.format") == "lcd";
    Some(days).filter(|_| given && trained.get("data.fields.label").is_null())
}

/// The run that `model` is or is a checkpoint of: a checkpoint is RUN/checkpoints/epoch-03.
fn run_of(model: &Path) -> Option<PathBuf> {
    let checkpoint = scoring::checkpoint_dir(model).ok()?;
    if checkpoint != model {
        return Some(model.to_owned());
    }
    let real = checkpoint.canonicalize().unwrap_or(checkpoint);
    let above = real.parent().filter(|above| above.ends_with("checkpoints"))?;
    above.parent().map(Path::to_owned)
}
