//! `clsgen eval`: thresholds frozen on dev, then every metric on test (SPEC §1, A31–A34).
//!
//! 1. The dev predictions come from a file or from the best checkpoint.
//! 2. Thresholds are tuned on them and written to `RUN/eval/thresholds.json`.
//!    So is the calibrator: `calibration.json`.
//! 3. Only now test labels are read and scored: `metrics.json`, `predictions.jsonl`, `tables/`, `figures/`, `report.html`.

mod baselines;
pub(super) mod calibration;
mod cnn;
mod compare;
mod curve;
mod frozen;
mod gate;
mod inputs;
mod judge;
mod log;
mod paper;
mod predictions;
mod report;
mod run_directory;

use std::path::{Path, PathBuf};

use super::{Context, args::EvalArgs, dry_run::Plan, output, run_record, scoring};
use crate::{
    data::{Prediction, Record},
    error::{Error, Result},
    metrics::{Evaluation, Options, Sample, decision_curves::decision_curves, evaluate, threshold::Costs},
    report::{Table, decision_tables, metrics_table},
    storage::{self, RunLock},
};
use calibration::Fitted;
use frozen::Frozen;
use gate::Gate;
use run_directory::Job;

/// What is scored: test with thresholds from dev.
struct Scored {
    sample: Sample,
    /// "test", or the name of the split or file.
    title: String,
    frozen: Option<Frozen>,
    calibration: Option<Fitted>,
    predictions: Vec<Prediction>,
    /// The split's records; none where only a prediction file is known.
    records: Option<Vec<Record>>,
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

/// Scores, measures and writes `RUN/eval`; `None` where there was nothing to score: a dry run, or a curve alone.
pub(super) fn execute(context: &Context, args: &EvalArgs) -> Result<Option<Outcome>> {
    let mut options = options(context);
    if args.curve && args.predictions.is_none() && args.split == "test" && context.config.data.test.is_none() {
        return curve_alone(context, &options).map(|()| None);
    }
    let work = Work::find(context, args)?;
    let comparable = args.compare_base.then(|| compare::job(&work)).transpose()?;
    let judge = judge::Plan::find(context, &work)?;
    let baselines = baselines::Plan::find(context, args, &work)?;
    let out = context.run_dir.join("eval");
    let lock = if context.dry_run { None } else { Some(RunLock::acquire(&context.run_dir)?) };
    if lock.is_some() {
        run_record::write(context, "eval", &work.inputs())?;
    }
    let epochs = if args.curve { curve::epochs(context, &options)? } else { Vec::new() };
    let scored = work.score(context, &out)?;
    if context.dry_run {
        return dry_run(context, &work, &scored, [judge.is_some(), baselines.is_some(), comparable.is_some()]).map(|()| None);
    }
    options.in_sample = scored.frozen.as_ref().is_some_and(|frozen| frozen.in_sample);
    let mut evaluation = evaluate(&scored.sample, scored.frozen.as_ref().map(|frozen| &frozen.thresholds), &options);
    warn_of_perfection(&evaluation);
    let calibrated = scored.calibration.as_ref().map(|fitted| fitted.score(&scored.sample, &options, &mut evaluation));
    // What follows changes none of the model's own numbers.
    if let Some(judge) = judge {
        evaluation.judge = judge.run(context, &out, &work.predictions(&out), &scored.sample, &options)?;
    }
    let others = match baselines {
        Some(baselines) => baselines.run(context, &out, &scored, &evaluation, &options)?,
        None => baselines::Outcome::default(),
    };
    let compared = match comparable {
        Some(job) => Some(compare::run(context, &out, job, (&scored.sample, &evaluation), &scored.title, &options)?),
        None => None,
    };
    let curve = args.curve.then(|| curve::table(&epochs));
    let mut tables = vec![metrics_table(&scored.title, &evaluation, options.in_sample)];
    tables.extend(curve.clone());
    tables.extend(compared.iter().map(|compared| compared.table.clone()));
    tables.extend(others.tables);
    tables.extend(paper::tables(context, &args.paper, &scored, &evaluation, others.methods)?);
    if !context.dry_run {
        // Wide columns are for the files and the report, not for a terminal.
        let mut all = tables.clone();
        all.splice(1..1, calibrated);
        all.extend(report::leakage(&context.config));
        write(&out, &evaluation, &all)?;
        // A row a point of a figure: for the files alone.
        let decisions = decision_curves(&scored.sample, options.bootstrap, options.seed);
        if let Some(curves) = &decisions {
            write_tables(&out, &decision_tables(&scored.title, curves, scored.sample.len()))?;
        }
        let parts = report::Parts { scored: Some((&scored, &evaluation)), tables: &all, decisions: decisions.as_ref(), epochs: &epochs };
        report::write(context, &out, &parts, &options, args.include_text)?;
        tracing::info!("wrote {} and {}", out.join("metrics.json").display(), out.join("report.html").display());
    }
    drop(lock);
    Ok(Some(Outcome { evaluation, base: compared.map(|compared| compared.base), curve, tables }))
}

/// What would be scored, and by what besides the model.
fn dry_run(context: &Context, work: &Work<'_>, scored: &Scored, [judge, baselines, base]: [bool; 3]) -> Result<()> {
    if let Work::Run(job) = work {
        let (info, template) = job.prompt()?;
        let (source, windows) = (scoring::locate(context, &job.checkpoint, &info)?, scoring::windows(context, &info));
        scoring::prompter_of(&source, info.labels, source.config()?.vocab_size, template, &windows)?;
    }
    let inputs: Vec<String> = work.inputs().iter().map(|path| path.display().to_string()).collect();
    Plan::new(context, "eval")
        .with("reads", inputs)
        .with("records", scored.records.as_ref().map_or(scored.predictions.len(), Vec::len))
        .with("thresholds from dev", scored.frozen.is_some())
        .with("judge", judge)
        .with("baselines", baselines)
        .with("base model before tuning", base)
        .print(context)
}

/// `--curve` of a run that has no test split to score: the table and the figure, from its epochs alone.
fn curve_alone(context: &Context, options: &Options) -> Result<()> {
    let epochs = curve::epochs(context, options)?;
    let tables = [curve::table(&epochs)];
    if context.dry_run {
        return Plan::new(context, "eval").with("scores", "nothing: data.test names no file, only the curve is made").print(context);
    }
    let out = context.run_dir.join("eval");
    let _lock = RunLock::acquire(&context.run_dir)?;
    run_record::write(context, "eval", &[])?;
    write_tables(&out, &tables)?;
    report::write(context, &out, &report::Parts { scored: None, tables: &tables, decisions: None, epochs: &epochs }, options, false)?;
    tracing::info!("data.test names no file: only the curve was made, {}", out.join("report.html").display());
    output::line(&if context.json { tables[0].json() } else { tables[0].markdown() })
}

/// Says that an AUROC of exactly 1 is seldom what it seems.
fn warn_of_perfection(evaluation: &Evaluation) {
    if evaluation.auroc.value == Some(1.0) {
        tracing::warn!(
            "AUROC is exactly 1 over {} records: too few of them, records of train among them, or a text that tells the label?",
            evaluation.n
        );
    }
}

/// How the metrics are measured.
fn options(context: &Context) -> Options {
    Options { bootstrap: context.config.eval.bootstrap, seed: context.seed, costs: costs(context), ..Options::default() }
}

/// Mode (a): scores prediction files, whoever made them.
fn from_files(context: &Context, out: &Path, test: &Path, dev: Option<&Path>) -> Result<Scored> {
    let (frozen, calibration) = match dev {
        None => (None, None),
        Some(dev) => {
            let sample = inputs::sample(dev, &inputs::read(dev)?, None)?;
            let frozen = Frozen::tune(&sample, costs(context), None, dev, &storage::hash_file(dev)?, is_same_file(dev, test));
            frozen.write(out, context.dry_run)?;
            let fitted = Fitted::fit(context, &sample, &frozen)?;
            Fitted::write(fitted.as_ref(), out, context.dry_run)?;
            (Some(frozen), fitted)
        }
    };
    let predictions = inputs::read(test)?;
    let sample = inputs::sample(test, &predictions, None)?;
    let title = format!("{} ({} records, {} positive)", test.display(), sample.len(), sample.positives());
    Ok(Scored { sample, title, frozen, calibration, predictions, records: None })
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn costs(context: &Context) -> Costs {
    Costs { false_positive: context.config.eval.cost_fp, false_negative: context.config.eval.cost_fn }
}

fn write(out: &Path, evaluation: &Evaluation, tables: &[Table]) -> Result<()> {
    storage::write_file_atomic(&out.join("metrics.json"), json(evaluation)?.as_bytes())?;
    write_tables(out, tables)
}

fn write_tables(out: &Path, tables: &[Table]) -> Result<()> {
    let folder = out.join("tables");
    storage::create_dir_all(&folder)?;
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
