//! `clsgen eval`: thresholds frozen on dev, then every metric on test (SPEC §1, A31–A34).
//!
//! 1. The dev predictions come from a file or from the best checkpoint.
//! 2. Thresholds are tuned on them and written to `RUN/eval/thresholds.json`.
//!    So is the calibrator: `calibration.json`.
//! 3. Only now test labels are read and scored, into `RUN/eval/<split>/` ([`folder`]): `metrics.json`,
//!    `predictions.jsonl`, `tables/`, `figures/`, `report.html`.

mod baselines;
pub(super) mod calibration;
mod cnn;
mod compare;
mod curve;
mod folder;
mod frozen;
mod gate;
mod in_sample;
mod inputs;
mod judge;
mod log;
mod paper;
mod predictions;
mod report;
mod run_directory;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Context, args::EvalArgs, dry_run::Plan, output, run_record, scoring};
use crate::{
    config::Stage,
    data::{Prediction, Record, read_predictions, read_predictions_carrying},
    error::{Error, Result},
    fingerprint::Fingerprint,
    metrics::{Evaluation, Options, Sample, decision_curves::decision_curves, evaluate, threshold::Costs},
    report::{Table, decision_tables, figures::EpochMetrics, metrics_table},
    storage::{self, AtomicDir, RunLock},
};
use calibration::Fitted;
use folder::{Folder, Made};
use frozen::Frozen;
use gate::Gate;
use in_sample::Dev;
use run_directory::Job;

/// What is scored: test with thresholds from dev.
struct Scored {
    sample: Sample,
    /// "test", or the name of the split or file.
    title: String,
    frozen: Option<Frozen>,
    calibration: Option<Fitted>,
    /// The records are those that thresholds and calibrator were tuned on.
    in_sample: bool,
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
            None => {
                let job = Job::find(context, args)?;
                job.check_settings(context)?;
                Ok(Self::Run(job))
            }
        }
    }

    /// Files whose hashes go into `run.json`.
    fn inputs(&self) -> Vec<&Path> {
        match self {
            Self::Files { test, dev } => std::iter::once(*test).chain(*dev).collect(),
            Self::Run(job) => vec![&job.data],
        }
    }

    /// The splits that the leakage report reads beside the scored one.
    fn other_splits(&self, context: &Context) -> Vec<PathBuf> {
        let Self::Run(job) = self else { return Vec::new() };
        let data = &context.config.data;
        let named = [&data.train, &data.dev, &data.test].into_iter().flatten().map(|path| context.config.resolve(path));
        named.filter(|path| *path != job.data && path.is_file()).collect()
    }

    /// The checkpoint that is scored, the base that it and the baselines stand on, and the judge, for `run.json`.
    fn models(&self, judge: Option<&judge::Plan>) -> Result<Vec<(&'static str, PathBuf, String)>> {
        let mut used = Vec::new();
        if let Self::Run(job) = self {
            used.push(("checkpoint", job.checkpoint.clone(), job.hash.clone()));
            let (info, _) = job.prompt()?;
            used.extend(info.base_hash.map(|hash| ("model.base", PathBuf::from(info.base_model), hash)));
        }
        if let Some(judge) = judge {
            used.push(("eval.judge", judge.source.path.clone(), judge.hash()?.to_owned()));
        }
        Ok(used)
    }

    /// The file of the predictions that are scored.
    fn predictions(&self, out: &Path) -> PathBuf {
        match self {
            Self::Files { test, .. } => test.to_path_buf(),
            Self::Run(_) => out.join(predictions::FILE),
        }
    }

    fn score(&self, context: &Context, folder: &Folder) -> Result<Scored> {
        match self {
            Self::Files { test, dev } => from_files(context, folder, test, *dev),
            Self::Run(job) => job.score(context, folder),
        }
    }

    /// Everything that decides the numbers of a split's folder.
    fn made(&self, context: &Context) -> Result<Made> {
        let (scoring, dev) = match self {
            Self::Files { test, dev } => {
                // A file that cannot be read is the reader's to name.
                let hash = |path: &Path| storage::hash_file(path).or_else(|error| inputs::read(path).and(Err(error)));
                let dev = dev.map(hash).transpose()?;
                (Fingerprint::of_contents(&[("predictions", json!(hash(test)?))]), dev)
            }
            Self::Run(job) => job.made(context)?,
        };
        let contents = [("train.seed", json!(context.seed)), ("dev predictions", json!(dev))];
        Ok(Made { scoring, measuring: Fingerprint::new(Stage::Measure, &context.config, &contents)? })
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
    /// `--json`: the metrics, with what else was asked for beside them.
    document: Value,
}

/// Runs the command.
pub fn run(context: &Context, args: &EvalArgs) -> Result<()> {
    let gate = args.gate.as_deref().map(Gate::load).transpose()?;
    let Some(outcome) = execute(context, args)? else { return Ok(()) };
    if context.json {
        output::write(&storage::json(&outcome.document)?)?
    } else {
        outcome.tables.iter().try_for_each(|table| output::line(&table.markdown()))?
    }
    gate.map_or(Ok(()), |gate| gate.check(&outcome.evaluation))
}

/// Scores, measures and writes `RUN/eval/<split>`; `None` where there was nothing to score: a dry run, or a curve
/// alone.
pub(super) fn execute(context: &Context, args: &EvalArgs) -> Result<Option<Outcome>> {
    let options = options(context);
    if args.curve && args.predictions.is_none() && args.split == "test" && context.config.data.test.is_none() {
        return curve::alone(context, &options).map(|()| None);
    }
    let work = Work::find(context, args)?;
    let folder = Folder::find(context, args, work.made(context)?)?;
    let (context, args) = (&folder.context(context), &folder.asked(context, args));
    let comparable = args.compare_base.then(|| compare::job(&work)).transpose()?;
    let judge = judge::Plan::find(context, &work)?;
    let baselines = baselines::Plan::find(context, args, &work)?;
    let lock = if context.dry_run { None } else { Some(RunLock::acquire(&context.run_dir)?) };
    if lock.is_some() {
        work.inputs().into_iter().for_each(storage::protect);
        let models = work.models(judge.as_ref())?;
        let models: Vec<run_record::Used<'_>> =
            models.iter().map(|(role, path, hash)| (*role, path.as_path(), hash.as_str())).collect();
        let splits = work.other_splits(context);
        let inputs: Vec<&Path> = work.inputs().into_iter().chain(splits.iter().map(PathBuf::as_path)).collect();
        run_record::write(context, "eval", &inputs, &models)?;
        folder.begin()?;
    }
    let scored = work.score(context, &folder);
    // Before hours of baselines, not after them.
    let scored =
        scored.and_then(
            |scored| if args.paper.is_empty() { Ok(scored) } else { paper::task(context, &scored).map(|_| scored) },
        );
    let scored = if context.dry_run { scored? } else { folder.settle(scored)? };
    if context.dry_run {
        return dry_run(context, &work, &scored, [judge.is_some(), baselines.is_some(), comparable.is_some()])
            .map(|()| None);
    }
    let plans = Plans { comparable, judge, baselines, predictions: work.predictions(&folder.out) };
    let outcome = measure(context, args, &folder, plans, &scored, options)?;
    drop(lock);
    Ok(Some(outcome))
}

/// What else was asked for, found before any work.
struct Plans<'a> {
    comparable: Option<&'a Job>,
    judge: Option<judge::Plan>,
    baselines: Option<baselines::Plan<'a>>,
    /// The file of the scored predictions.
    predictions: PathBuf,
}

/// Measures what was scored and writes it.
fn measure(
    context: &Context,
    args: &EvalArgs,
    folder: &Folder,
    plans: Plans<'_>,
    scored: &Scored,
    mut options: Options,
) -> Result<Outcome> {
    options.in_sample = scored.in_sample;
    let epochs = if args.curve { curve::epochs(context, &options)? } else { Vec::new() };
    let mut evaluation = evaluate(&scored.sample, scored.frozen.as_ref().map(|frozen| &frozen.thresholds), &options);
    warn_of_perfection(&evaluation);
    let calibrated = scored.calibration.as_ref().map(|fitted| fitted.score(&scored.sample, &options, &mut evaluation));
    // What follows changes none of the model's own numbers.
    match plans.judge {
        Some(judge) => evaluation.judge = judge.run(context, folder, &plans.predictions, &scored.sample, &options)?,
        None => {
            if let Some(kept) = judge::kept(folder, &plans.predictions, &scored.sample, &options)? {
                evaluation.judge = kept;
            }
        }
    }
    let others = match plans.baselines {
        Some(baselines) => baselines.run(context, &folder.out, scored, &evaluation, &options)?,
        None => baselines::Outcome::default(),
    };
    let compared = match plans.comparable {
        Some(job) => Some(compare::run(context, folder, job, (&scored.sample, &evaluation), &scored.title, &options)?),
        None => None,
    };
    let curve = args.curve.then(|| curve::table(&epochs));
    let paper = paper::tables(context, &args.paper, scored, &evaluation, others.methods)?;
    let mut document = serde_json::to_value(&evaluation).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    if let Some(compared) = &compared {
        document["compare"] = json!({ "base": compared.base, "table": compared.table });
    }
    if let Some(described) = others.described {
        document["baselines"] = described;
    }
    if let Some(curve) = &curve {
        document["curve"] = json!(curve);
    }
    if !paper.is_empty() {
        document["paper"] = json!(paper);
    }
    let mut tables = vec![metrics_table(&scored.title, &evaluation, options.in_sample)];
    tables.extend(curve.clone());
    tables.extend(compared.iter().map(|compared| compared.table.clone()));
    tables.extend(others.tables);
    tables.extend(paper);
    // Wide columns are for the files and the report, not for a terminal.
    let mut all = tables.clone();
    all.splice(1..1, calibrated);
    all.extend(report::leakage(&context.config));
    save(context, args, folder, (scored, &evaluation), &all, &epochs, &options)?;
    Ok(Outcome { evaluation, base: compared.map(|compared| compared.base), curve, tables, document })
}

/// What would be scored, and by what besides the model.
fn dry_run(context: &Context, work: &Work<'_>, scored: &Scored, [judge, baselines, base]: [bool; 3]) -> Result<()> {
    if let Work::Run(job) = work {
        let (info, template) = job.prompt()?;
        let (source, windows) = (scoring::locate(context, &job.checkpoint, &info)?, scoring::windows(context, &info));
        scoring::prompter_of(&source, info.labels, &source.config()?, template, &windows, &context.prompt_date())?;
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

/// Everything that is measured: metrics, tables, figures, report.
fn save(
    context: &Context,
    args: &EvalArgs,
    folder: &Folder,
    (scored, evaluation): (&Scored, &Evaluation),
    all: &[Table],
    epochs: &[EpochMetrics],
    options: &Options,
) -> Result<()> {
    let out = &folder.out;
    // A row a point of a figure: for the files alone.
    let decisions = decision_curves(&scored.sample, options.bootstrap, options.seed);
    let points = decisions.as_ref().map(|curves| decision_tables(&scored.title, curves, scored.sample.len()));
    let files: Vec<&Table> = all.iter().chain(points.iter().flatten()).collect();
    storage::write_json(&out.join("metrics.json"), evaluation)?;
    write_tables(out, &files)?;
    let parts =
        report::Parts { scored: Some((scored, evaluation)), tables: all, decisions: decisions.as_ref(), epochs };
    report::write(context, out, &parts, options, args.include_text)?;
    folder.finish(context, args)?;
    tracing::info!("wrote {} and {}", out.join("metrics.json").display(), out.join("report.html").display());
    Ok(())
}

/// Says that an AUROC of exactly 1 is seldom what it seems.
fn warn_of_perfection(evaluation: &Evaluation) {
    if evaluation.auroc.value == Some(1.0) {
        tracing::warn!(
            "AUROC is exactly 1 over {} records: too few of them, records of train among them, or a text that tells \
            the label?",
            evaluation.n
        );
    }
}

/// How the metrics are measured.
fn options(context: &Context) -> Options {
    Options {
        bootstrap: context.config.eval.bootstrap,
        seed: context.seed,
        costs: costs(context),
        ..Options::default()
    }
}

/// Mode (a): scores prediction files, whoever made them.
fn from_files(context: &Context, folder: &Folder, test: &Path, dev: Option<&Path>) -> Result<Scored> {
    let mut tuned = None;
    let (frozen, calibration) = match dev {
        None => (None, None),
        Some(dev) => {
            let predictions = read_predictions(dev)?;
            let sample = inputs::sample(dev, &predictions, None)?;
            let frozen = Frozen::tune(&sample, costs(context), None, dev, &storage::hash_file(dev)?);
            frozen::write(folder, folder::THRESHOLDS, Some(&frozen.bytes()?), context.dry_run)?;
            let fitted = Fitted::fit(context, &sample, &frozen)?;
            Fitted::write(fitted.as_ref(), folder, context.dry_run)?;
            tuned = Some(Dev::new(&predictions, &[]));
            (Some(frozen), fitted)
        }
    };
    let predictions = read_predictions_carrying(test, &context.config.eval.subgroups)?;
    let sample = inputs::sample(test, &predictions, None)?;
    let title = format!("{} ({} records, {} positive)", test.display(), sample.len(), sample.positives());
    let in_sample = tuned.is_some_and(|dev| dev.holds(&predictions, None));
    Ok(Scored { sample, title, frozen, calibration, in_sample, predictions, records: None })
}

fn costs(context: &Context) -> Costs {
    Costs { false_positive: context.config.eval.cost_fp, false_negative: context.config.eval.cost_fn }
}

/// Writes the tables; those of an earlier command that are no longer among them go.
fn write_tables(out: &Path, tables: &[&Table]) -> Result<()> {
    let folder = AtomicDir::create(&out.join("tables"))?;
    for (name, content) in tables.iter().flat_map(|table| table.files()) {
        folder.write_file(&name, content.as_bytes())?;
    }
    folder.commit(false)
}
