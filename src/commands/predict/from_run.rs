//! How a record is read for a model: a checkpoint does not say it, its run does. Which of the LCD benchmark's labels
//! the model predicts is taken from there; columns of other names are only told, since an input often has the usual
//! ones.

use std::path::{Path, PathBuf};

use crate::{
    commands::Context,
    config::{Data, HORIZONS},
    evaluation::run_directory,
    fingerprint::Fingerprint,
    foreign,
    generate::scoring,
};

/// Says which columns `model`'s run read by another name than this command does.
pub(super) fn warn_of_columns(context: &Context, model: &Path) {
    let Some(run) = run_of(model).and_then(|run| run_directory::trained(&run).ok()?) else { return };
    let ours = &context.config.data.fields;
    let others = run.under("data.fields").filter(|(field, _)| *field != "explanation" && !ours.contains_key(*field));
    let others: Vec<_> = others.filter_map(|(field, column)| Some((field, column.as_str()?))).collect();
    if others.is_empty() {
        return;
    }
    let shown = others.iter().map(|(field, column)| format!("{}={}", foreign::name(field), foreign::name(column)));
    tracing::warn!(
        "{}: its run read other columns ({}) than this command does; where the input has them too, name each by \
         --set data.fields.FIELD=COLUMN, or give the run's --config",
        model.display(),
        shown.collect::<Vec<_>>().join(", ")
    );
}

/// The context with the horizon that `model`, a run or a checkpoint of one, was trained with, where the command gives
/// none. Where the run does not say it either, records with labels of horizons that it may be are refused: of all of
/// them without its run, of others than the default else.
pub(super) fn with_horizon(context: &Context, model: &Path) -> Context {
    let mut context = context.clone();
    if !context.config.given.contains("data.horizon") {
        let run = run_of(model).and_then(|run| run_directory::trained(&run).ok()?);
        let data = &mut context.config.data;
        match run.as_ref().map(horizon) {
            Some(Some(days)) => data.horizon = days,
            Some(None) => data.horizons_in_doubt = HORIZONS.into_iter().filter(|days| *days != data.horizon).collect(),
            None => data.horizons_in_doubt = HORIZONS.into(),
        }
    }
    context
}

/// The default says nothing where the run may have read something else: records of another format, or a label by a name
/// of its own.
fn horizon(run: &Fingerprint) -> Option<u32> {
    let days: u32 = run.get("data.horizon").as_u64()?.try_into().ok()?;
    let given = days != Data::default().horizon || *run.get("data.format") == "lcd";
    Some(days).filter(|_| given && run.get("data.fields.label").is_null())
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
