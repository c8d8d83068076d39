//! `clsgen eval`: thresholds frozen on dev, then every metric on test (SPEC §1, A31–A34).
//!
//! 1. The dev predictions come from a file or from the best checkpoint.
//! 2. Thresholds are tuned on them and written to `RUN/eval/thresholds.json`.
//! 3. Only now test labels are read and scored: `metrics.json`, `predictions.jsonl`, `tables/`.

mod compare;
mod frozen;
mod gate;
mod inputs;
mod log;
mod paper;
mod predictions;
mod run_directory;

use std::path::Path;

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

    fn score(&self, context: &Context, out: &Path) -> Result<Scored> {
        match self {
            Self::Files { test, dev } => from_files(context, out, test, *dev),
            Self::Run(job) => job.score(context, out),
        }
    }
}

/// What an evaluation found.
pub struct Outcome {
    /// Every metric of the scored split.
    pub evaluation: Evaluation,
    /// The same of the base model before tuning, under `--compare-base`.
    pub base: Option<Evaluation>,
    /// Dev metrics over the epochs, under `--curve`.
    pub curve: Option<Table>,
    /// The tables that are printed, `curve` among them.
    pub tables: Vec<Table>,
}

/// Runs the command.
pub fn run(context: &Context, args: &EvalArgs) -> Result<()> {
    let gate = args.gate.as_deref().map(Gate::load).transpose()?;
    let Some(outcome) = execute(context, args)? else { return Ok(()) };
    print(context, &outcome.evaluation, &outcome.tables)?;
    gate.map_or(Ok(()), |gate| gate.check(&outcome.evaluation))
}

/// Scores, measures and writes `RUN/eval`; `None` where a dry run stops before the model.
pub(super) fn execute(context: &Context, args: &EvalArgs) -> Result<Option<Outcome>> {
    refuse_unbuilt(args)?;
    let work = Work::find(context, args)?;
    let comparable = args.compare_base.then(|| compare::job(&work)).transpose()?;
    let out = context.run_dir.join("eval");
    let lock = if context.dry_run { None } else { Some(RunLock::acquire(&context.run_dir)?) };
    if lock.is_some() {
        run_record::write(context, "eval", &work.inputs())?;
    }
    let scored = work.score(context, &out)?;
    if context.dry_run && matches!(work, Work::Run(_)) {
        tracing::info!("everything needed is there; a dry run scores nothing");
        return Ok(None);
    }
    let options = Options {
        bootstrap: context.config.eval.bootstrap,
        seed: context.seed,
        costs: costs(context),
        in_sample: scored.frozen.as_ref().is_some_and(|frozen| frozen.in_sample),
        ..Options::default()
    };
    let evaluation = evaluate(&scored.sample, scored.frozen.as_ref().map(|frozen| &frozen.thresholds), &options);
    let mut tables = vec![metrics_table(&scored.title, &evaluation, options.in_sample)];
    let compared = match comparable {
        Some(job) => Some(compare::run(context, &out, job, (&scored.sample, &evaluation), &scored.title, &options)?),
        None => None,
    };
    tables.extend(compared.iter().map(|compared| compared.table.clone()));
    tables.extend(paper::tables(context, &args.paper, &scored, &evaluation)?);
    if !context.dry_run {
        write(&out, &evaluation, &tables)?;
    }
    if !context.dry_run {
        tracing::info!("wrote {}", out.join("metrics.json").display());
    }
    drop(lock);
    Ok(Some(Outcome { evaluation, base: compared.map(|compared| compared.base), curve: None, tables }))
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
    let unbuilt = [
        ("--curve", args.curve),
        ("--baselines", !args.baselines.is_empty()),
        ("--runs", args.runs.is_some()),
        ("--include-text", args.include_text),
    ];
    match unbuilt.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::usage(format!("`clsgen eval {flag}` is not built yet")).hint("leave it out")),
        None => Ok(()),
    }
}
