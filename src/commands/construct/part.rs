//! `construct --shard`: one part of each split, while other processes make the others in the same run directory.
//!
//! They share the run's lock, and each part has a lock of its own. No two processes write the same file, but for
//! the date of the prompts, which the first of them settles.

use serde_json::{Value, json};

use super::{job::ConstructJob, split::Split, teacher::Purpose};
use crate::{
    commands::Context,
    error::Result,
    generate::scoring,
    shard::Shard,
    storage::{self, OutputLock, RunLock, run_record},
};

/// Constructs the part of every split named that is not finished yet: in the shape of `stats.json`, what there is of
/// each.
pub(super) fn execute(context: &Context, shard: Shard) -> Result<Value> {
    let date = context.prompt_date();
    let mut job = ConstructJob::prepare(context, Purpose::Ask)?;
    scoring::refuse_checkpoint(&context.run_dir)?;
    let lock = RunLock::share(&context.run_dir)?;
    storage::create_dir_all(&job.dir)?;
    if job.dated && run_record::settle_date(&context.run_dir, &date)? != date {
        // Another process began the run a moment before: its date is in all prompts.
        job = ConstructJob::prepare(context, Purpose::Ask)?;
    }
    job.protect_inputs()?;
    // A split that is finished whole has no use for parts.
    let whole = job.finished()?;
    let mut parts = Vec::new();
    for split in job.missing(&whole)? {
        let files = job.files(split);
        let alone = OutputLock::of_part(&files.output())?;
        parts.push((split, files.finished()?, alone));
    }
    let mut todo: Vec<&Split> = Vec::new();
    for (split, finished, _) in &parts {
        if !finished.holds(&split.name, &job.settings(split))? {
            todo.push(split);
        } else {
            finished.check_output(&split.name, &job.files(split).output()).map_err(|error| {
                error.hint("put it back as construct wrote it; or remove the part's files and make it again")
            })?;
        }
    }
    if !todo.is_empty() {
        let logs = job.explain(context, &todo, lock)?;
        for (split, log) in todo.iter().zip(&logs) {
            let part = parts.iter_mut().find(|(part, ..)| part.name == split.name);
            if let Some((_, finished, _)) = part {
                job.finish(&[split], std::slice::from_ref(log), finished)?;
            }
        }
    }
    parts.iter().try_for_each(|(split, ..)| storage::remove_file(&job.files(split).log()))?;
    let mut stats = whole.into_stats();
    stats["shard"] = json!(shard.to_string());
    for (split, finished, _) in parts {
        stats["splits"][&split.name] = finished.into_stats()["splits"][&split.name].take();
    }
    Ok(stats)
}
