//! `clsgen predict`: a file of records in, one line per record out.
//!
//! ```text
//! checkpoint, input ─▶ checks (ids, --strict) ─▶ model
//!     ─▶ output: new, continued or refused ─▶ score ─▶ lines
//! ```

mod from_run;
mod output_file;
mod part;

use std::path::Path;

use serde_json::json;

use self::output_file::{Claim, PredictionOutput, Sidecar};
use super::{Context, args::PredictArgs, dry_run::DryRunReport, output};
use crate::{
    config,
    data::{self, Prediction, RecordError},
    error::{Error, Result, ResultExt},
    evaluation::calibration,
    generate::{
        loading,
        predict::{Counts, PredictSettings, PromptedRecord, score},
        scoring,
    },
    labels::Labels,
    metrics::{calibrators::Calibrator, multiclass::Temperature},
    model::{
        ModelSource,
        checkpoint::{self, ClsgenJson, LoadedModel},
        source,
    },
    progress,
    prompt::{PromptTemplate, Prompter},
    storage,
};

/// Bad records that are named before the rest is counted.
const LISTED: usize = 20;

/// Runs the command.
pub fn run(context: &Context, args: &PredictArgs) -> Result<()> {
    let context = &from_run::with_horizon(context, &args.model);
    from_run::warn_of_columns(context, &args.model);
    if context.dry_run {
        return dry_run(context, args);
    }
    part::check_countable(context, &args.input)?;
    let claim = Claim::stake(context, args)?;
    let job = prepare(context, args)?;
    let Job { total, before, settings, loaded, prompter, sidecar, calibrator } = &job;
    scoring::warn_of_untrained_head(&args.model, &loaded.info);
    source::protect(&loaded.source.path);
    let reading = reading(context, prompter.labels());
    let stream = |skipped| data::stream_after(&reading, &args.input, &prompter.template().fields(), skipped);
    // What a pipe holds is known once its first record is read: before anything is replaced.
    let pipe = is_pipe(&args.input).then(|| begun(stream(*before)?)).transpose()?;
    let mut output = PredictionOutput::open(claim, sidecar, args.overwrite)?;
    let done = output.lines();
    if done > 0 {
        tracing::info!("{}: continuing after {done} records", args.output.display());
    }
    let bar = progress::bar(context.quiet, *total, done, "{wide_bar} {pos}/{len} records, {per_sec}, {eta} left");
    let mut counts = output.counts();
    let records = match pipe {
        Some(records) => records,
        None => stream(before + done)?,
    };
    let records = records.take(total.map_or(usize::MAX, |total| total.saturating_sub(done)));
    let records = prompted(records, prompter, settings, args);
    let outcome = score(&loaded.model, prompter, records, settings, &mut |mut prediction| {
        // Read well, but without a prompt: found only now, since it takes the tokenizer to know.
        if let Some(error) = prediction.error.as_ref().filter(|_| args.strict) {
            return Err(error.fatal().context(args.input.display()));
        }
        if let Some((calibrator, _)) = calibrator {
            calibrate(&mut prediction, calibrator);
        }
        prediction.carry(&context.config.eval.subgroups);
        output.put(&prediction)?;
        counts.add(&prediction);
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    report(context, args, &counts);
    finish(outcome.map(drop), output, args)
}

/// Opens all but the weights, and says what would be predicted.
fn dry_run(context: &Context, args: &PredictArgs) -> Result<()> {
    let dir = scoring::checkpoint_dir(&args.model)?;
    let info = checkpoint::read_info(&dir)?;
    let template = scoring::template(&dir, &info)?;
    check_given(context, &dir, &info.labels, &template)?;
    if args.calibrated {
        calibration::saved(&args.model, &dir)?;
    }
    part::check_countable(context, &args.input)?;
    output_file::check(context, args)?;
    let total = check_input(context, args, &info.labels, &template)?;
    let windows = scoring::windows(context, &info);
    storage::verify_manifest(&dir)?;
    let source = scoring::locate(context, &dir, &info)?;
    prompter(context, &source, &info, template, &windows)?;
    let output_is = match (args.output.exists(), args.overwrite) {
        (false, _) => "new",
        (true, true) => "there: written anew",
        (true, false) => "there: gone on with if this very command made it",
    };
    let plan = DryRunReport::of("predict");
    let plan = match (context.shard, total) {
        (Some(shard), Some(total)) => plan.with("part", part::describe(shard, total)),
        _ => plan,
    };
    plan.with("checkpoint", json!(dir))
        .with("base model", json!(source.path))
        .with("input", json!(args.input))
        .with("records", total.map_or_else(|| "those of a pipe".into(), |total| json!(total)))
        .with("output", json!(args.output))
        .with("output is", output_is)
        .with("explanations", !args.no_explanation)
        .print(context)
}

/// All that is known before the first record is scored.
struct Job {
    /// Records to score; those of a pipe are not counted.
    total: Option<usize>,
    /// Records before them, which are another process's.
    before: usize,
    settings: PredictSettings,
    loaded: LoadedModel,
    prompter: Prompter,
    sidecar: Sidecar,
    calibrator: Option<(Calibrator, String)>,
}

/// Reads checkpoint and input. A run that is still training may replace the checkpoint meanwhile: then all of it is
/// read again.
fn prepare(context: &Context, args: &PredictArgs) -> Result<Job> {
    let dir = scoring::checkpoint_dir(&args.model)?;
    storage::read_unchanged(&dir, |dir| {
        storage::protect(dir);
        let info = checkpoint::read_info(dir)?;
        let template = scoring::template(dir, &info)?;
        check_given(context, dir, &info.labels, &template)?;
        let calibrator = args.calibrated.then(|| calibration::saved(&args.model, dir)).transpose()?;
        let total = check_input(context, args, &info.labels, &template)?;
        let windows = scoring::windows(context, &info);
        let settings = scoring::settings(context, !args.no_explanation, &windows);
        // The tokenizer first: what reading it takes is free again before the weights come, and counted in what is.
        let source = scoring::locate(context, dir, &info)?;
        let prompter = prompter(context, &source, &info, template, &windows)?;
        scoring::check_memory(context, dir, &info, &windows)?;
        let loaded = loading::load(context, dir)?;
        let input = if is_pipe(&args.input) { None } else { Some(storage::hash_file(&args.input)?) };
        part::check_date(context, (dir, &info), &prompter)?;
        let mut more = vec![
            ("input", json!(input)),
            ("explanation", json!(settings.explanation)),
            ("calibration", json!(calibrator.as_ref().map(|(_, hash)| hash))),
        ];
        more.extend(context.shard.map(|shard| ("shard", json!(shard.to_string()))));
        let part = part::of(context, total);
        let sidecar =
            Sidecar::new(scoring::fingerprint(context, (dir, &scoring::checkpoint_hash(dir)?), &info, &more)?);
        let before = part.as_ref().map_or(0, |part| part.start);
        let total = part.map_or(total, |part| Some(part.len()));
        Ok(Job { total, before, settings, loaded, prompter, sidecar, calibrator })
    })
}

/// The prompter of a checkpoint whose model, at `source`, is not read.
fn prompter(
    context: &Context,
    source: &ModelSource,
    info: &ClsgenJson,
    template: PromptTemplate,
    windows: &scoring::Windows,
) -> Result<Prompter> {
    scoring::prompter_of(source, info.labels.clone(), &source.config()?, template, windows, &context.prompt_date())
}

/// Refuses (exit 2) labels and a prompt that are given and not those that the checkpoint was trained with: its own are
/// used, whatever the config says.
fn check_given(context: &Context, dir: &Path, labels: &Labels, template: &PromptTemplate) -> Result<()> {
    let config = &context.config;
    let refuse = |key: &str| {
        Error::usage(format!("{key} is not what {} was trained with", dir.display()))
            .hint(format!("leave {key} out: the checkpoint holds its own; or train another with it"))
    };
    if config.given.contains("task.labels") && config.task.labels != *labels {
        return Err(refuse("task.labels"));
    }
    if config.given.contains("task.prompt") {
        let path = config.resolve(&config.task.prompt);
        // The checkpoint needs no file of the prompt: one that has gone since is not asked for, but one named by --set.
        let named_now = context.sets.iter().any(|set| set.trim_start().starts_with("task.prompt"));
        let given = if named_now || path.exists() { Some(PromptTemplate::load(&path)?) } else { None };
        let date = template.date.clone();
        if given.is_some_and(|given| PromptTemplate { date, ..given } != *template) {
            return Err(refuse("task.prompt"));
        }
    }
    Ok(())
}

/// Reads a file once before any work: ids that occur twice end the run (exit 3), and so does any bad record under
/// `--strict`. Gives the number of records; a pipe cannot be read twice and is checked as it comes.
fn check_input(
    context: &Context,
    args: &PredictArgs,
    labels: &Labels,
    template: &PromptTemplate,
) -> Result<Option<usize>> {
    if is_pipe(&args.input) {
        return Ok(None);
    }
    let mut total = 0;
    let mut bad: Vec<RecordError> = Vec::new();
    let mut bad_count = 0;
    for record in data::stream(&reading(context, labels), &args.input, &template.fields())? {
        total += 1;
        if let Err(error) = record? {
            bad_count += 1;
            bad.extend((bad.len() < LISTED).then_some(error));
        }
    }
    if args.strict && bad_count > 0 {
        return Err(strict_error(&args.input, &bad, bad_count));
    }
    Ok(Some(total))
}

/// Adds what the calibrator makes of the probability, or of each class's.
fn calibrate(prediction: &mut Prediction, calibrator: &Calibrator) {
    prediction.calibrated_probability =
        prediction.probability.map(|probability| calibrator.apply(probability, prediction.logits.as_deref()));
    if let (Some(over), Calibrator::Temperature { temperature }) = (&mut prediction.over_classes, calibrator) {
        let temperature = Temperature { temperature: *temperature };
        over.calibrated_probabilities = over.probabilities.as_ref().map(|shares| temperature.apply(shares));
    }
}

/// The records, the first of which is read.
fn begun(mut records: data::RecordStream) -> Result<data::RecordStream> {
    let first = records.next();
    if let Some(Err(error)) = first {
        return Err(error);
    }
    Ok(Box::new(first.into_iter().chain(records)))
}

/// How records are read: as the config says, their labels the checkpoint's.
fn reading(context: &Context, labels: &Labels) -> config::Data {
    config::Data { labels: labels.clone(), ..context.config.data.clone() }
}

fn strict_error(input: &Path, bad: &[RecordError], count: usize) -> Error {
    let lines: Vec<String> = bad.iter().map(|error| format!("{}, {}", input.display(), error.describe())).collect();
    let more = if count > bad.len() { format!("\n… and {} more", count - bad.len()) } else { String::new() };
    let error = Error::data(format!("{}{more}", lines.join("\n")));
    match bad.first() {
        Some(first) => error.hint(first.kind.hint()),
        None => error,
    }
}

/// Records with their prompts. Under `--strict` a bad record of a pipe ends the stream.
fn prompted<'r>(
    records: impl Iterator<Item = Result<Result<data::Record, RecordError>>> + 'r,
    prompter: &'r Prompter,
    settings: &'r PredictSettings,
    args: &'r PredictArgs,
) -> impl Iterator<Item = Result<Result<PromptedRecord, RecordError>>> + 'r {
    records.map(|record| match record? {
        Ok(record) => PromptedRecord::of(prompter, &record, settings),
        Err(bad) if args.strict => Err(strict_error(&args.input, &[bad], 1)),
        Err(bad) => Ok(Err(bad)),
    })
}

/// Whether a path cannot be read twice: stdin, a FIFO, a device.
fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-" || path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// The counts on stderr; as JSON on stdout under `--json` when stdout is not the output.
fn report(context: &Context, args: &PredictArgs, counts: &Counts) {
    let Counts { records, errors, truncated, unparsable } = counts;
    tracing::info!("{records} records, {errors} errors, {truncated} truncated, {unparsable} unparsable");
    if context.json && !output_file::is_stdout(&args.output) {
        let line = json!({"records": records, "errors": errors, "truncated": truncated, "unparsable": unparsable,
            "output": args.output.to_string_lossy()});
        let _ = output::line(&line.to_string());
    }
}

/// Syncs the output whatever happened, and says how to go on after a signal.
fn finish(outcome: Result<()>, output: PredictionOutput, args: &PredictArgs) -> Result<()> {
    let continues = output.continues();
    let synced = output.finish();
    match outcome {
        Err(error) if output::is_stop(&error) && !is_pipe(&args.input) && continues => {
            let message = format!("{error}; {} holds what is done", args.output.display());
            Err(Error::new(error.kind(), message)
                .hint("the same command (without --overwrite) goes on where this one stopped"))
        }
        Err(error) => Err(error),
        Ok(()) => synced.context("predictions"),
    }
}
