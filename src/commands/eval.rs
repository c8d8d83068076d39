//! `clsgen eval`: thresholds frozen on dev, then every metric on test (paper §5.3).
//!
//! 1. The dev predictions come from a file or from the best checkpoint.
//! 2. Thresholds are tuned on them and written to `RUN/eval/thresholds.json`.
//!    The calibrator is fitted on them as well and written to `calibration.json`.
//! 3. Only now test labels are read and scored, into `RUN/eval/<split>/` ([`Folder`]): `metrics.json`,
//!    `predictions.jsonl`, `tables/`, `figures/`, `report.html`.

mod calibration_table;
mod card;
mod compare;
mod curve;
mod gate;
mod journal;
mod methods;
mod over;
mod own;
mod paper;
mod report;
mod results;

use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Context, args::EvalArgs, dry_run::DryRunReport, output, run_json};
use crate::{
    error::{Error, Result},
    evaluation::{
        PredictionSource, Scored,
        against::Against,
        baselines, costs,
        folder::{EvalRequest, Folder},
        judge, language,
        log::resumable,
        positive,
        run_directory::EvalJob,
        targets,
    },
    generate::scoring,
    metrics::{AnyEvaluation, Options, Sample, decision_curves::decision_curves, perplexity::Perplexity},
    progress,
    report::{Table, decision_tables, evidence_table, figures, perplexity_table},
    signals::stoppable,
    storage::{self, AtomicDir, run_record::Used},
};
use gate::Gate;
use own::Own;
use report::ReportParts;

/// What an evaluation found.
pub struct Outcome {
    /// Every metric of the scored split.
    pub evaluation: AnyEvaluation,
    /// The same of the base model before tuning, under `--compare-base`.
    pub base: Option<AnyEvaluation>,
    /// Dev metrics over the epochs, under `--curve`.
    pub curve: Option<Table>,
    /// The tables that are printed, `curve` among them.
    pub tables: Vec<Table>,
    /// `--json`: the metrics, with what else was asked for beside them.
    document: Value,
}

/// Runs the command.
pub fn run(context: &Context, args: &EvalArgs) -> Result<()> {
    if !args.over.is_empty() {
        return over::run(context, args);
    }
    let gate = args.gate.as_deref().map(Gate::load).transpose()?;
    args.gate.iter().for_each(|file| storage::protect(file));
    let Some(outcome) = stoppable(|| execute(context, args, gate.as_ref())).map_err(resumable)? else { return Ok(()) };
    if context.json {
        output::write(&storage::json(&outcome.document)?)?
    } else {
        outcome.tables.iter().try_for_each(|table| output::line(&table.markdown()))?
    }
    gate.map_or(Ok(()), |gate| gate.check(&outcome.evaluation))
}

/// Scores, measures and writes `RUN/eval/<split>`; `None` where there was nothing to score: a dry run, or a curve
/// alone. `gate` is asked whether the task has its classes; the caller checks it against the outcome.
pub(super) fn execute(context: &Context, args: &EvalArgs, gate: Option<&Gate>) -> Result<Option<Outcome>> {
    let options = options(context);
    if is_curve_alone(context, args) {
        return curve::alone(context, &options).map(|()| None);
    }
    refuse_pipes(args)?;
    if let (Some(split), false) = (&args.split, args.predictions.is_empty()) {
        tracing::warn!("--split {split} says nothing beside --predictions: what is scored is that file");
    }
    let work = match &args.predictions[..] {
        [] => PredictionSource::Run(Box::new(EvalJob::find(context, args.split())?)),
        test => PredictionSource::Files { test, dev: &args.dev_predictions },
    };
    let context = &work.context(context);
    // Before any work; without dev nothing asks again.
    positive(context)?;
    if let Some(gate) = gate {
        gate.check_classes(&context.config.task.labels)?;
        gate.check_asked(&targets(context), &context.config.eval.subgroups)?;
    }
    let folder = Folder::find(context, &work, args.overwrite)?;
    let context = &folder.context(context);
    let asked = folder.asked(context, asked(context, args));
    let (asked, parts) = results::expand(context, &work, &folder, asked, &args.baselines)?;
    let against = Against::read(context, &asked.against)?;
    let comparable = asked.compare_base.then(|| compare::job(&work)).transpose()?;
    let judge = judge::Plan::find(context, &work, &folder)?;
    let baselines = baselines::Plan::find(context, &asked, args.overwrite, &work, &folder)?;
    let language = language::Plan::find(context, &work, asked.forgetting)?;
    paper::check(context, &work, &asked)?;
    if !context.dry_run {
        begin(context, &work, &asked.against, language.as_ref(), (judge.as_ref(), baselines.as_ref()))?;
        folder.begin()?;
    }
    results::announce(&parts);
    let scored = work.score(context, &folder);
    // Whose task this is: prediction files are counted here first, and a run's labels.
    let scored = scored.and_then(|scored| paper::task_of(context, &asked, &scored).map(|_| scored));
    let scored = if context.dry_run { scored? } else { folder.settle(scored, remove_shown)? };
    if context.dry_run {
        return dry_run(context, &work, &scored, [judge.is_some(), baselines.is_some(), comparable.is_some()], &parts)
            .map(|()| None);
    }
    let include_text = args.include_text;
    let with_card = asked.card;
    let perplexity = match (&language, &work) {
        (Some(language), PredictionSource::Run(job)) => Some(language.run(context, &folder, job, &options)?),
        _ => None,
    };
    let plans = Plans { asked, include_text, comparable, against, judge, baselines, perplexity };
    let options = Options { in_sample: scored.in_sample, ..options };
    let outcome = measure(context, &folder, plans, &scored, &options)?;
    if with_card {
        card::write(context, (&folder, &work), (&scored, &outcome.evaluation), &options)?;
    }
    warn_of_perfection(&outcome.evaluation);
    Ok(Some(outcome))
}

/// Whether `--curve` is all there is to make: of a run without a test split, and nothing asked that needs one.
fn is_curve_alone(context: &Context, args: &EvalArgs) -> bool {
    let of_a_split = !args.predictions.is_empty()
        || !args.baselines.is_empty()
        || !args.paper.is_empty()
        || !args.against.is_empty()
        || args.runs.is_some()
        || args.gate.is_some()
        || args.compare_base
        || args.forgetting
        || args.include_text
        || args.card;
    args.curve && !of_a_split && args.split() == "test" && context.config.data.test.is_none()
}

/// Predictions are read more than once.
fn refuse_pipes(args: &EvalArgs) -> Result<()> {
    let is_pipe = |path: &&PathBuf| path.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    match args.predictions.iter().chain(&args.dev_predictions).find(is_pipe) {
        None => Ok(()),
        Some(pipe) => {
            Err(Error::data(format!("{}: is a named pipe, and predictions are read more than once", pipe.display()))
                .hint("write them to a file, and name that"))
        }
    }
}

/// Takes the run directory and writes into its record what is read, by which models, before any work.
fn begin(
    context: &Context,
    work: &PredictionSource<'_>,
    against: &[PathBuf],
    language: Option<&language::Plan>,
    (judge, baselines): (Option<&judge::Plan>, Option<&baselines::Plan<'_>>),
) -> Result<()> {
    let lock = run_json::lock(&context.run_dir)?;
    let against: Vec<&Path> = against.iter().map(PathBuf::as_path).collect();
    work.inputs().into_iter().chain(against.iter().copied()).for_each(storage::protect);
    let models = work.models(judge, baselines)?;
    let models: Vec<Used<'_>> =
        models.iter().map(|(role, path, hash)| (*role, path.as_path(), hash.as_str())).collect();
    let splits = work.other_splits(context);
    let splits = splits.iter().map(PathBuf::as_path);
    let inputs: Vec<&Path> =
        work.inputs().into_iter().chain(splits).chain(against).chain(language.map(language::Plan::path)).collect();
    run_json::write(context, "eval", &inputs, &models, lock)
}

/// What else was asked for, found before any work.
struct Plans<'a> {
    asked: EvalRequest,
    /// `--include-text`
    include_text: bool,
    comparable: Option<&'a EvalJob>,
    against: Option<Against>,
    judge: Option<judge::Plan>,
    baselines: Option<baselines::Plan<'a>>,
    /// What tuning forgot.
    perplexity: Option<Perplexity>,
}

/// Measures what was scored and writes it.
fn measure(
    context: &Context,
    folder: &Folder,
    plans: Plans<'_>,
    scored: &Scored,
    options: &Options,
) -> Result<Outcome> {
    let asked = &plans.asked;
    let labels = &context.config.task.labels;
    let epochs = if asked.curve { curve::epochs(context, options)? } else { Vec::new() };
    let measuring = progress::measuring(context.quiet, scored.sample.len());
    let mut own = Own::measure(context, scored, options)?;
    own.evaluation.set_perplexity(plans.perplexity.clone());
    own.evaluation.set_evidence(journal::evidence(scored, options));
    drop(measuring);
    // What follows changes none of the model's own numbers.
    let judge = plans.judge.as_ref();
    let judged = judge::judge_or_keep(judge, context, folder, judge::Texts::of(scored), options)?;
    if let Some(judged) = &judged {
        own.evaluation.set_judge(judged.metrics.clone());
    }
    let evaluation = &own.evaluation;
    let others = match &plans.baselines {
        Some(baselines) => {
            let answered = baselines.run(context, &folder.out)?;
            methods::score(&answered, &folder.out, (scored, evaluation), labels, options)?
        }
        None => methods::Outcome::default(),
    };
    let tuned = compare::Tuned { context, folder, scored, evaluation, options };
    let compared = plans.comparable.map(|job| tuned.with_base(job, judge, judged.as_ref())).transpose()?;
    let against = plans.against.as_ref().map(|against| tuned.with_predictions(against)).transpose()?;
    let curve = asked.curve.then(|| curve::table(&epochs, labels.are_two()));
    let paper = paper::tables(context, asked, scored, evaluation, others.methods)?;
    let beside = [
        ("compare", compared.as_ref().map(|compared| json!({ "base": compared.other, "table": compared.table }))),
        ("against", against.as_ref().map(|against| json!({ "other": against.other, "table": against.table }))),
        ("baselines", others.described),
        ("curve", curve.as_ref().map(|curve| json!(curve))),
        ("paper", (!paper.is_empty()).then(|| json!(paper))),
    ];
    let document = document(evaluation, beside)?;
    let mut tables = own.tables(&scored.title, options.in_sample);
    let of_the_model = tables.len();
    tables.extend(evaluation.evidence().map(|evidence| evidence_table(&scored.title, evidence)));
    tables.extend(plans.perplexity.iter().map(perplexity_table));
    tables.extend(curve.clone());
    tables.extend(compared.iter().chain(&against).map(|compared| compared.table.clone()));
    tables.extend(others.tables);
    tables.extend(paper);
    let mut all = tables.clone();
    all.splice(of_the_model..of_the_model, own.wide.iter().cloned());
    all.extend(report::leakage(&context.config, &scored.fields));
    let classes = own.classes(&scored.sample);
    let parts =
        ReportParts { scored: Some((scored, evaluation)), tables: &all, decisions: None, epochs: &epochs, classes };
    save(context, folder, evaluation, own.positive(&scored.sample), parts, options, plans.include_text)?;
    folder.finish(context, asked)?;
    let wrote = ["metrics.json", "report.html"].map(|name| folder.out.join(name));
    tracing::info!("wrote {} and {}", wrote[0].display(), wrote[1].display());
    let base = compared.map(|compared| compared.other);
    Ok(Outcome { evaluation: own.evaluation, base, curve, tables, document })
}

/// The metrics as `--json` prints them, and beside them what else was made.
fn document(evaluation: &AnyEvaluation, beside: [(&str, Option<Value>); 5]) -> Result<Value> {
    let mut document = serde_json::to_value(evaluation).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    for (name, value) in beside {
        if let Some(value) = value {
            document[name] = value;
        }
    }
    Ok(document)
}

/// What would be scored, and by what besides the model.
fn dry_run(
    context: &Context,
    work: &PredictionSource<'_>,
    scored: &Scored,
    [judge, baselines, base]: [bool; 3],
    parts: &[results::Part],
) -> Result<()> {
    if let PredictionSource::Run(job) = work {
        let info = &job.info;
        let source = scoring::locate(context, &job.checkpoint, info)?;
        let windows = scoring::windows(context, info);
        let labels = info.labels.clone();
        let template = job.template.clone();
        scoring::prompter_of(&source, labels, &source.config()?, template, &windows, &context.prompt_date())?;
    }
    let inputs: Vec<String> = work.inputs().iter().map(|path| path.display().to_string()).collect();
    let plan = DryRunReport::new(context, "eval")
        .with("reads", inputs)
        .with("records", scored.records.as_ref().map_or(scored.predictions.len(), |records| records.len()))
        .with("thresholds from dev", scored.frozen.is_some())
        .with("judge", judge)
        .with("baselines", baselines)
        .with("base model before tuning", base);
    if parts.is_empty() { plan } else { plan.with("--paper all", json!(parts)) }.print(context)
}

/// Everything that is measured: metrics, tables, figures, report; with the decision curves of the positive class, where
/// there is one.
fn save(
    context: &Context,
    folder: &Folder,
    evaluation: &AnyEvaluation,
    positive: Option<&Sample>,
    parts: ReportParts<'_>,
    options: &Options,
    include_text: bool,
) -> Result<()> {
    let out = &folder.out;
    let _measuring = progress::measuring(context.quiet, evaluation.n());
    storage::write_json(&out.join("metrics.json"), evaluation)?;
    let decisions = positive.and_then(|sample| decision_curves(sample, options.bootstrap, options.seed));
    let title = parts.scored.map_or("", |(scored, _)| &scored.title);
    // A row a point of a figure: for the files alone.
    let points = decisions.as_ref().map(|curves| decision_tables(title, curves, evaluation.n()));
    write_tables(out, &parts.tables.iter().chain(points.iter().flatten()).collect::<Vec<_>>())?;
    let parts = ReportParts { decisions: decisions.as_ref(), ..parts };
    report::write(context, out, &parts, options, include_text)
}

/// Says that an AUROC of exactly 1 is seldom what it seems.
fn warn_of_perfection(evaluation: &AnyEvaluation) {
    if evaluation.auroc().value == Some(1.0) {
        tracing::warn!(
            "AUROC is exactly 1 over {} records: too few of them, records of train among them, or a text that tells \
            the label?",
            evaluation.n()
        );
    }
}

/// The parts that the flags ask for.
fn asked(context: &Context, args: &EvalArgs) -> EvalRequest {
    EvalRequest {
        baselines: args.baselines.clone(),
        runs: args.runs,
        compare_base: args.compare_base,
        against: args.against.clone(),
        curve: args.curve,
        forgetting: args.forgetting,
        paper: args.paper.clone(),
        paper_task: paper::named(context).filter(|_| !args.paper.is_empty()),
        card: args.card,
        ..EvalRequest::default()
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

/// Writes the tables; those of an earlier command that are no longer among them go, what others put there stays.
/// Removes what [`write_tables`] and [`figures::draw`] have written; what lies beside it is somebody's.
fn remove_shown(out: &Path) -> Result<()> {
    storage::remove_ours(&out.join("tables"), Table::is_ours)?;
    storage::remove_ours(&out.join("figures"), figures::is_ours)
}

fn write_tables(out: &Path, tables: &[&Table]) -> Result<()> {
    let out = out.join("tables");
    let folder = AtomicDir::create(&out)?;
    for table in tables {
        for (name, content) in table.files()? {
            folder.write_file(&name, &content)?;
        }
    }
    storage::keep_others(&out, folder.path(), Table::is_ours)?;
    folder.commit(false)
}
