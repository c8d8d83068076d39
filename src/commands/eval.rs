//! `clsgen eval`: thresholds frozen on dev, then every metric on test (SPEC §1, A31–A34).
//!
//! 1. The dev predictions come from a file or from the best checkpoint.
//! 2. Thresholds are tuned on them and written to `RUN/eval/thresholds.json`.
//! 3. Only now test labels are read and scored: `metrics.json`, `predictions.jsonl`, `tables/`.

mod baselines;
mod cnn;
mod frozen;
mod gate;
mod inputs;
mod judge;
mod log;
mod paper;
mod predictions;
mod run_directory;

use std::path::{Path, PathBuf};

use super::{Context, args::EvalArgs, output, run_record};
use crate::{
    error::{Error, Result},
    metrics::{Evaluation, Options, Sample, evaluate, threshold::Costs},
    report::{Table, metrics_table},
    storage::{self, RunLock},
};
use frozen::Frozen;
use gate::Gate;
use run_directory::Job;

/// What is scored: test with thresholds from dev.
struct Scored {
    sample: Sample,
    /// "test", or the name of the split or file.
    title: String,
    frozen: Option<Frozen>,
}

/// Where the predictions come from.
enum Work<'a> {
    /// Prediction files of any tool.
    Files { test: &'a Path, dev: Option<&'a Path> },
    /// The best checkpoint of the run directory.
    Run(Job),
}

impl<'a> Work<'a> {
    fn find(context: &Context, args: &'a EvalArgs) -> Result<Self> {
        match &args.predictions {
            Some(test) => Ok(Self::Files { test, dev: args.dev_predictions.as_deref() }),
            None => Ok(Self::Run(Job::find(context, args)?)),
        }
    }

    /// Files whose hashes go into `run.json`.
    fn inputs(&self) -> Vec<&Path> {
        match self {
            Self::Files { test, dev } => std::iter::once(*test).chain(*dev).collect(),
            Self::Run(job) => vec![&job.data],
        }
    }

    /// The file of the predictions that are scored.
    fn predictions(&self, out: &Path) -> PathBuf {
        match self {
            Self::Files { test, .. } => test.to_path_buf(),
            Self::Run(_) => out.join(predictions::FILE),
        }
    }

    fn score(&self, context: &Context, out: &Path) -> Result<Scored> {
        match self {
            Self::Files { test, dev } => from_files(context, out, test, *dev),
            Self::Run(job) => job.score(context, out),
        }
    }
}

/// Runs the command.
pub fn run(context: &Context, args: &EvalArgs) -> Result<()> {
    refuse_unbuilt(args)?;
    let gate = args.gate.as_deref().map(Gate::load).transpose()?;
    let work = Work::find(context, args)?;
    let judge = judge::Plan::find(context, &work)?;
    let baselines = baselines::Plan::find(context, args, &work)?;
    let out = context.run_dir.join("eval");
    let lock = if context.dry_run { None } else { Some(RunLock::acquire(&context.run_dir)?) };
    if lock.is_some() {
        run_record::write(context, "eval", &work.inputs())?;
    }
    let scored = work.score(context, &out)?;
    if context.dry_run && matches!(work, Work::Run(_)) {
        tracing::info!("everything needed is there; a dry run scores nothing");
        return Ok(());
    }
    let options = Options {
        bootstrap: context.config.eval.bootstrap,
        seed: context.seed,
        costs: costs(context),
        in_sample: scored.frozen.as_ref().is_some_and(|frozen| frozen.in_sample),
        ..Options::default()
    };
    let mut evaluation = evaluate(&scored.sample, scored.frozen.as_ref().map(|frozen| &frozen.thresholds), &options);
    // Neither changes the model's own numbers; a dry run asks no model.
    let (judge, baselines) = (judge.filter(|_| !context.dry_run), baselines.filter(|_| !context.dry_run));
    if let Some(judge) = judge {
        evaluation.judge = judge.run(context, &out, &work.predictions(&out), &scored.sample, &options)?;
    }
    let others = match baselines {
        Some(baselines) => baselines.run(context, &out, &scored, &evaluation, &options)?,
        None => baselines::Outcome::default(),
    };
    let mut tables = vec![metrics_table(&scored.title, &evaluation, options.in_sample)];
    tables.extend(others.tables);
    tables.extend(paper::tables(context, &args.paper, &scored, &evaluation, others.runs)?);
    if !context.dry_run {
        write(&out, &evaluation, &tables)?;
    }
    print(context, &evaluation, &tables)?;
    if !context.dry_run {
        tracing::info!("wrote {}", out.join("metrics.json").display());
    }
    drop(lock);
    gate.map_or(Ok(()), |gate| gate.check(&evaluation))
}

/// Mode (a): scores prediction files, whoever made them.
fn from_files(context: &Context, out: &Path, test: &Path, dev: Option<&Path>) -> Result<Scored> {
    let frozen = match dev {
        None => None,
        Some(dev) => {
            let sample = inputs::sample(dev, &inputs::read(dev)?, None)?;
            let frozen = Frozen::tune(&sample, costs(context), None, dev, &storage::hash_file(dev)?, is_same_file(dev, test));
            frozen.write(out, context.dry_run)?;
            Some(frozen)
        }
    };
    let sample = inputs::sample(test, &inputs::read(test)?, None)?;
    let title = format!("{} ({} records, {} positive)", test.display(), sample.len(), sample.positives());
    Ok(Scored { sample, title, frozen })
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn costs(context: &Context) -> Costs {
    Costs { false_positive: context.config.eval.cost_fp, false_negative: context.config.eval.cost_fn }
}

fn write(out: &Path, evaluation: &Evaluation, tables: &[Table]) -> Result<()> {
    let folder = out.join("tables");
    storage::create_dir_all(&folder)?;
    storage::write_file_atomic(&out.join("metrics.json"), json(evaluation)?.as_bytes())?;
    for (name, content) in tables.iter().flat_map(Table::files) {
        storage::write_file_atomic(&folder.join(name), content.as_bytes())?;
    }
    Ok(())
}

fn print(context: &Context, evaluation: &Evaluation, tables: &[Table]) -> Result<()> {
    if context.json {
        return output::write(json(evaluation)?.as_bytes());
    }
    tables.iter().try_for_each(|table| output::line(&table.markdown()))
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    Ok(text + "\n")
}

/// Flags of later features say so instead of doing nothing.
fn refuse_unbuilt(args: &EvalArgs) -> Result<()> {
    let unbuilt = [("--curve", args.curve), ("--compare-base", args.compare_base), ("--include-text", args.include_text)];
    match unbuilt.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::usage(format!("`clsgen eval {flag}` is not built yet")).hint("leave it out")),
        None => Ok(()),
    }
}
