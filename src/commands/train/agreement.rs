//! What the ranks of a run settle before it begins: that they are alike, and what rank 0 alone finds out.

use std::path::Path;

use crate::{
    commands::Context,
    config::{self, Init},
    error::{Error, Result, ResultExt},
    model::{ModelSource, source},
    train::{
        checkpoint::{self, CHECKPOINTS, Resumable, TrainerState},
        plan::BatchPlan,
    },
};

/// The base model's files. Of several ranks the first downloads them, where they may be downloaded.
pub(super) fn base(context: &Context) -> Result<ModelSource> {
    let config = &context.config;
    let find = || match config.train.init {
        Init::Pretrained => source::resolve(&config.model.base, &[&config.dir], context.allow_network),
        Init::Random => source::shape(&config.model.base, &[&config.dir]),
    };
    if context.allow_network && context.ranks.size() > 1 {
        context.ranks.on_rank_0(find)?;
    }
    find()
}

/// The date that prompts hold: rank 0's, everywhere.
pub(super) fn prompt_date(context: &Context) -> Result<String> {
    let date = context.ranks.broadcast(context.prompt_date().as_bytes())?;
    String::from_utf8(date).map_err(|_| Error::run("the prompts' date is not UTF-8"))
}

/// The checkpoint to go on from. Rank 0 looks for it, since that may put a directory in order which a kill left half
/// replaced, and names it to the others.
pub(super) fn resume_point(context: &Context, resume: bool) -> Result<Option<Resumable>> {
    let ranks = &context.ranks;
    let found = ranks.on_rank_0(|| newest(&context.run_dir, resume))?.flatten();
    let name = found.as_ref().and_then(|found| found.path.file_name()).unwrap_or_default();
    let name = String::from_utf8_lossy(&ranks.broadcast(name.as_encoded_bytes())?).into_owned();
    if ranks.is_root() || name.is_empty() {
        return Ok(found);
    }
    let path = context.run_dir.join(CHECKPOINTS).join(name);
    let state = checkpoint::read_state(&path).map_err(|e| e.hint("every rank reads the run directory: share it"))?;
    Ok(Some(Resumable { path, state }))
}

/// The newest valid checkpoint under `--resume`; without it a run directory with checkpoints is refused.
fn newest(run: &Path, resume: bool) -> Result<Option<Resumable>> {
    if !resume {
        return match checkpoint::any(run) {
            None => Ok(None),
            Some(path) => {
                Err(Error::usage(format!("{} holds a training run already ({})", run.display(), path.display()))
                    .hint("--resume goes on with it; --run DIR starts another"))
            }
        };
    }
    let found = checkpoint::newest_valid(run)?;
    match &found {
        Some(Resumable { path, state }) => {
            tracing::info!("resuming from {} (step {} of {})", path.display(), state.step, state.total_steps)
        }
        None => tracing::info!("nothing to resume in {}: starting", run.display()),
    }
    Ok(found)
}

/// Refuses to go on with a run on another number of ranks, unless a step's records stay the same, and from a state that
/// this run cannot have come to.
pub(super) fn check_steps(resume: Option<&Resumable>, plan: &BatchPlan, settings: &config::Train) -> Result<()> {
    let Some(Resumable { path, state }) = resume else { return Ok(()) };
    let before = state.ranks;
    if before == plan.ranks || settings.effective_batch.is_some() {
        return state.check(plan).context(path.display()).or_hint(
            "the checkpoint is damaged or was edited: put an undamaged copy back, or start over in another directory \
            with --run",
        );
    }
    Err(Error::usage(format!(
        "this run's steps are of {} records, on {before} ranks; on {} they would be of {}",
        plan.group_size() / plan.ranks * before,
        plan.ranks,
        plan.group_size()
    ))
    .hint(format!("resume it on {before} ranks; a run with train.effective_batch goes on with another number")))
}

/// Where the run is, on the ranks of now.
pub(super) fn state(resume: Option<Resumable>, plan: &BatchPlan) -> TrainerState {
    match resume {
        Some(Resumable { state, .. }) => TrainerState { ranks: plan.ranks, ..state },
        None => TrainerState::start(plan),
    }
}
