//! `clsgen construct`: Algorithm 1 on each split named (paper §4.2).
//!
//! ```text
//! Job (prompts, teacher, records) ─▶ log of trials ─▶ <split>.jsonl, stats.json, dropped.jsonl
//! --shard I/N: the same of a part ─▶ <split>.part-I-of-N.*  ─┐
//! --merge:                              <split>.jsonl, … ◀───┘
//! --batch-out FILE, --batch-in FILE: the trials as files, for a teacher that runs offline
//! ```

mod batch;
mod finished;
mod job;
mod merge;
mod offline;
mod part;
mod split;
mod split_files;
mod teacher;
mod trials;

use std::path::Path;

use serde_json::Value;

use self::{job::ConstructJob, teacher::Purpose};
use super::{Context, args::ConstructArgs, output, run_json};
use crate::{
    error::{Error, Result},
    generate::construct::Statistics,
    storage,
};

/// Runs the command.
pub fn run(context: &Context, args: &ConstructArgs) -> Result<()> {
    if args.merge && context.shard.is_some() {
        return Err(Error::usage("--merge puts all parts together: it takes no --shard")
            .hint("make the parts with --shard, then give --merge alone"));
    }
    if args.merge {
        return merge::run(context)?.map_or(Ok(()), |stats| print(context, &stats));
    }
    let batch = args.batch_out.is_some() || args.batch_in.is_some();
    if batch {
        batch::check(context)?;
    }
    if context.dry_run {
        return ConstructJob::prepare(context, if batch { Purpose::Batch } else { Purpose::Ask })?.dry_run(context);
    }
    if batch {
        let stats = batch::execute(context, args)?;
        return if args.batch_in.is_some() { print(context, &stats) } else { Ok(()) };
    }
    let stats = match context.shard {
        Some(shard) => part::execute(context, shard)?,
        None => execute(context)?,
    };
    print(context, &stats)
}

/// Constructs every split named that is not finished yet: `stats.json`, with all that are.
pub(super) fn execute(context: &Context) -> Result<Value> {
    let job = ConstructJob::prepare(context, Purpose::Ask)?;
    let lock = run_json::lock(&context.run_dir)?;
    job.protect_inputs()?;
    storage::create_dir_all(&job.dir)?;
    let mut finished = job.finished()?;
    let todo = job.missing(&finished)?;
    if !todo.is_empty() {
        let logs = job.explain(context, &todo, lock)?;
        job.finish(&todo, &logs, &mut finished)?;
    }
    // Logs go only now that stats.json names their splits; a kill before this leaves them to the next command.
    job.splits.iter().try_for_each(|split| storage::remove_file(&job.files(split).log()))?;
    Ok(finished.into_stats())
}

/// Exit 2 where parts of `split` are there that `--merge` has not put together: training would go without them.
pub(super) fn refuse_parts(run: &Path, split: &str) -> Result<()> {
    let dir = run.join("construct");
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    if names.any(|name| split_files::part_of(&name, split).is_some()) {
        return Err(Error::usage(format!("{} holds parts of {split}, which were not put together", dir.display()))
            .hint("construct with --merge does that, under the same config; or move the parts away"));
    }
    Ok(())
}

/// Table 7 on stdout.
fn print(context: &Context, stats: &Value) -> Result<()> {
    if context.json {
        return output::line(&stats.to_string());
    }
    for name in &context.config.construct.splits {
        let statistics = statistics(stats, name)?;
        let part = stats["splits"][name]["settings"]["shard"].as_str().map(|shard| format!(", part {shard}"));
        let title = format!("{} ({name}{})", context.config.task.name, part.unwrap_or_default());
        output::line(&statistics.table(&title, &context.config.task.labels))?;
        if statistics.generated.total() == 0 && statistics.original.total() > 0 {
            tracing::warn!(
                "{name}: no explanation was kept; construct.trials, construct.min_words and their like decide"
            );
        }
        if let Some(truncation) = statistics.truncation() {
            output::line(&format!("{truncation}.\n"))?;
        }
    }
    output::line(&context.run_dir.join("construct").display().to_string())
}

/// A split's rows of Table 7, from `stats.json`.
pub(super) fn statistics(stats: &Value, split: &str) -> Result<Statistics> {
    let held = stats["splits"][split]["statistics"].clone();
    serde_json::from_value(held).map_err(|e| Error::run(format!("construct/stats.json, split {split}: {e}")))
}
