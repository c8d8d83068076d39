//! The trials of some records, under a progress bar and stopped by signals.

use crate::{
    commands::{Context, output},
    data::Record,
    error::{Error, Result},
    generate::construct::{Explained, Method, Teacher, explain},
    progress,
    prompt::Tokens,
    signals,
};

/// Runs the trials of `records` under a progress bar; `file` gets each record's number and outcome as it is done.
pub(super) fn trials(
    context: &Context,
    title: &str,
    teacher: &dyn Teacher,
    records: &[&Record],
    prompt: &dyn Fn(&Record) -> Result<Tokens>,
    method: Method<'_>,
    mut file: impl FnMut(usize, Explained) -> Result<()>,
) -> Result<()> {
    let bar = progress::bar(
        context.quiet,
        Some(records.len()),
        0,
        "{prefix} {wide_bar} {pos}/{len} records, {msg}, {eta} left",
    );
    bar.set_prefix(title.to_owned());
    let mut kept = 0usize;
    let mut dropped = 0usize;
    explain(teacher, records, prompt, method, &mut |index, explained| {
        if explained.kept.is_some() {
            kept += 1
        } else {
            dropped += 1
        }
        file(records[index].number, explained)?;
        bar.inc(1);
        bar.set_message(format!("kept {kept} dropped {dropped}"));
        signals::check_interrupted()
    })
    .map_err(|error| saved(error, kept + dropped, records.len()))?;
    bar.finish_and_clear();
    Ok(())
}

/// Says what a signal leaves behind and how to go on.
fn saved(error: Error, done: usize, of: usize) -> Error {
    if output::is_stop(&error) {
        Error::new(error.kind(), format!("{error} after {done} of {of} records to do, what is done is saved"))
            .hint("the same command goes on where this one stopped")
    } else {
        error
    }
}
