//! `construct --batch-out FILE` and `--batch-in FILE`: the trials as batch files, for a teacher that runs offline under
//! `vllm run-batch`.
//!
//! Out go all K trials of every record that is open. In come answers, in any order: a record's are taken trial by
//! trial, as if they came now; one whose next answer is missing stays open, for another file.

use serde_json::Value;

use super::{job::ConstructJob, offline::Batch, teacher::Purpose};
use crate::{
    commands::{Context, args::ConstructArgs, run_json},
    error::{Error, Result},
    storage,
};

/// Refuses (exit 2) what batch files cannot hold.
pub(super) fn check(context: &Context) -> Result<()> {
    match context.shard {
        Some(_) => Err(Error::usage("batch files hold whole splits: they take no --shard")),
        None => Ok(()),
    }
}

/// Runs `construct` with either flag; `stats.json` as it is then.
pub(super) fn execute(context: &Context, args: &ConstructArgs) -> Result<Value> {
    let mut job = ConstructJob::prepare(context, Purpose::Batch)?;
    let lock = run_json::lock(&context.run_dir)?;
    job.protect_inputs()?;
    storage::create_dir_all(&job.dir)?;
    let mut finished = job.finished()?;
    if job.missing(&finished)?.is_empty() {
        tracing::info!("every split named is finished: there is nothing to ask");
        return Ok(finished.into_stats());
    }
    job.teacher.use_batch(|model| match (&args.batch_out, &args.batch_in) {
        (Some(path), _) => Batch::to(model, path),
        (None, Some(path)) => Batch::from(model, path),
        (None, None) => Err(Error::run("no batch file is named")),
    })?;
    let todo = job.missing(&finished)?;
    let logs = job.explain(context, &todo, lock)?;
    if let Some(path) = &args.batch_out {
        let written = job.teacher.close_batch()?;
        tracing::info!(
            "wrote {written} requests to {}: run them by vllm run-batch -i {} -o ANSWERS --model {} \
            --trust-request-chat-template, then give --batch-in ANSWERS",
            path.display(),
            path.display(),
            context.config.construct.teacher_name.as_deref().unwrap_or_default()
        );
        return Ok(finished.into_stats());
    }
    let mut open = Vec::new();
    for (split, log) in todo.iter().zip(&logs) {
        match job.open_records(split, log) {
            0 => {
                job.finish(&[split], std::slice::from_ref(log), &mut finished)?;
                storage::remove_file(&job.files(split).log())?;
            }
            count => open.push(format!("{count} of {} records of {}", split.records.len(), split.name)),
        }
    }
    if open.is_empty() {
        return Ok(finished.into_stats());
    }
    Err(Error::run(format!("{} are open: their answers are missing or failed", open.join(", "))).hint(
        "what is answered is kept; --batch-out writes the requests that are left, --batch-in reads further answers",
    ))
}
