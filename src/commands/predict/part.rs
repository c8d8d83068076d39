//! `predict --shard`: the records of one process, where several share out an input.

use std::{ops::Range, path::Path};

use super::is_pipe;
use crate::{
    commands::Context,
    error::{Error, Result},
    generate::scoring,
    model::checkpoint::ClsgenJson,
    prompt::Prompter,
    shard::Shard,
    storage::run_record,
};

/// The records of this process, of `total` in all; `None` without `--shard`.
pub(super) fn of(context: &Context, total: Option<usize>) -> Option<Range<usize>> {
    let shard = context.shard?;
    let total = total?;
    tracing::info!("part {}", describe(shard, total));
    Some(shard.range(total))
}

/// `2/8: records 11 to 20 of 80`
pub(super) fn describe(shard: Shard, total: usize) -> String {
    let range = shard.range(total);
    if range.is_empty() {
        return format!("{shard}: none of the {total} records");
    }
    format!("{shard}: records {} to {} of {total}", range.start + 1, range.end)
}

/// Refuses (exit 2) a part of what cannot be read twice, once to count it.
pub(super) fn check_countable(context: &Context, input: &Path) -> Result<()> {
    match context.shard {
        Some(shard) if is_pipe(input) => Err(Error::usage(format!(
            "--shard {shard}: which records are part {} of a pipe is known only at its end",
            shard.part()
        ))
        .hint("write them to a file, and give that to --input")),
        _ => Ok(()),
    }
}

/// Refuses (exit 2) prompts that hold the day on which they are made: the processes of a job may begin on two.
pub(super) fn check_date(context: &Context, (dir, info): (&Path, &ClsgenJson), prompter: &Prompter) -> Result<()> {
    let own = scoring::template(dir, info)?.date;
    let now = own.is_none() && run_record::date(&context.run_dir).is_none();
    match &prompter.template().date {
        Some(date) if now && context.shard.is_some() => {
            let day = date.split('T').next().unwrap_or_default();
            Err(Error::usage(format!(
                "{}: its chat template reads the clock and it names no date: each process would take its own",
                dir.display()
            ))
            .hint(format!("write one into its clsgen.json: \"prompt\": {{…, \"date\": \"{day}\"}}")))
        }
        _ => Ok(()),
    }
}
