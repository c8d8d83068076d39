//! `--compare-base` (SPEC A19): the base model before tuning, with the same prompts, records and metrics.

use super::Context;
use crate::{
    error::{Error, Result},
    evaluation::{Work, folder::Folder, run_directory::Job},
    metrics::{AnySample, Evaluation, Options, Sample, evaluate, multiclass, paired},
    report::{Table, compare::compare_table, multiclass_compare_table},
    storage,
};

/// The base's own numbers, and the two side by side.
pub struct Compared {
    /// Every metric of the base.
    pub base: Evaluation,
    /// Base, tuned, difference, p.
    pub table: Table,
}

/// The job whose base can be scored; prediction files have none.
pub fn job<'a>(work: &'a Work<'_>) -> Result<&'a Job> {
    match work {
        Work::Run(job) => Ok(job),
        Work::Files { .. } => {
            Err(Error::usage("--compare-base needs a run directory: a prediction file names no base model")
                .hint("leave --predictions out, or score the base's predictions by themselves"))
        }
    }
}

/// Scores the base on the split and compares. `base.metrics.json` holds its numbers.
pub fn run(
    context: &Context,
    folder: &Folder,
    job: &Job,
    tuned: (&Sample, &Evaluation),
    title: &str,
    options: &Options,
) -> Result<Compared> {
    let AnySample::Two(sample) = job.score_base(context, folder)? else {
        return Err(Error::run("the base model's predictions are of other classes"));
    };
    // No thresholds: those of dev belong to the tuned model.
    let base = evaluate(&sample, None, options);
    storage::write_json(&folder.out.join("base.metrics.json"), &base)?;
    let table = compare_table(title, &base, tuned.1, &paired::differences(&sample, tuned.0, options));
    Ok(Compared { base, table })
}

/// The same of more than two classes.
pub fn classes(
    context: &Context,
    folder: &Folder,
    job: &Job,
    tuned: (&multiclass::Sample, &multiclass::Evaluation),
    title: &str,
    options: &Options,
) -> Result<(multiclass::Evaluation, Table)> {
    let AnySample::More(sample) = job.score_base(context, folder)? else {
        return Err(Error::run("the base model's predictions are of other classes"));
    };
    let task = &context.config.task;
    let base = multiclass::evaluate(&sample, &task.labels, task.ordinal, options);
    storage::write_json(&folder.out.join("base.metrics.json"), &base)?;
    let differences = multiclass::paired::differences(&sample, tuned.0, &task.labels, options);
    let table = multiclass_compare_table(title, &base, tuned.1, &differences);
    Ok((base, table))
}
