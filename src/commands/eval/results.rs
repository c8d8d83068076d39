//! `--paper all`: everything of the paper's results section that this run allows, and what it would take.
//!
//! Tables 1–4 and 7, the figure of the epochs, the base before tuning, every baseline, the judge. What cannot be made
//! is named with the key that would give it; what can is listed before it begins, with the answers that are still to be
//! written and, from how long dev took when the run was trained, about how long that takes. Files are counted by their
//! lines: answers that another prompt or other sampling made, which `--overwrite` begins anew, still count here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use indicatif::HumanDuration;
use serde::Serialize;

use super::{Context, paper};
use crate::{
    baselines::Baseline,
    error::{Error, Result},
    evaluation::{
        PredictionSource, baselines, check_cnn,
        folder::{EvalRequest, Folder},
        judge, log,
        predictions::{BASE_FILE, FILE},
        run_directory::{self, EvalJob},
        splits,
    },
    fingerprint::Fingerprint,
    foreign,
    report::paper::PaperTable,
    train::history,
};

/// What stands for everything among the names of `--paper`.
pub const ALL: &str = "all";

/// A part of the results section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    part: String,
    /// What gives it, where it cannot be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// Answers that a model has to write for it, beyond those that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<usize>,
    /// About how long they take; none where nothing was measured to tell it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// A word more.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

impl Part {
    fn ready(part: impl Into<String>) -> Self {
        Self { part: part.into(), missing: None, answers: None, seconds: None, note: None }
    }

    fn missing(part: impl Into<String>, what: impl Into<String>) -> Self {
        Self { missing: Some(what.into()), ..Self::ready(part) }
    }

    /// A line for a reader.
    fn line(&self) -> String {
        let Self { part, missing, answers, seconds, note } = self;
        let mut line = match (missing, answers) {
            (Some(what), _) => format!("{part}: left out, {what}"),
            (None, Some(0)) => format!("{part}: there"),
            (None, Some(answers)) => format!("{part}: {answers} answers to write"),
            (None, None) => part.clone(),
        };
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) {
            line += &format!(", about {}", duration(seconds));
        }
        if let Some(note) = note {
            line += &format!(" ({note})");
        }
        line
    }
}

/// `all` among the asked tables becomes every part that can be made; the list of all parts, none without `all`. `flags`
/// are the baselines that `--baselines` names: one that cannot be made is an error.
pub fn expand(
    context: &Context,
    work: &PredictionSource<'_>,
    folder: &Folder,
    mut asked: EvalRequest,
    flags: &[String],
) -> Result<(EvalRequest, Vec<Part>)> {
    if !asked.paper.iter().any(|name| name == ALL) {
        return Ok((asked, Vec::new()));
    }
    if !context.config.task.labels.are_two() {
        return Err(Error::usage("--paper all: the paper's tasks have two classes").hint("leave --paper out"));
    }
    asked.paper = PaperTable::ALL.iter().map(|table| table.name().to_owned()).collect();
    let run = match work {
        PredictionSource::Run(job) => Some(Run::of(context, job, folder)?),
        PredictionSource::Files { .. } => None,
    };
    let mut parts = tables(context);
    parts.extend(run.as_ref().map(|run| run.predictions(work, folder)));
    parts.push(curve(context, run.is_some(), &mut asked)?);
    parts.extend(models(context, run.as_ref(), folder, &mut asked, flags));
    parts.push(judged(context, run.as_ref(), folder));
    Ok((asked, parts))
}

/// Says the list on stderr: before hours of work.
pub fn announce(parts: &[Part]) {
    if parts.is_empty() {
        return;
    }
    tracing::info!("--paper all:");
    parts.iter().for_each(|part| tracing::info!("  {}", part.line()));
    let seconds: f64 = parts.iter().filter_map(|part| part.seconds).sum();
    let untimed = parts.iter().filter(|part| part.answers.unwrap_or(0) > 0 && part.seconds.is_none()).count();
    let timed = parts.iter().any(|part| part.seconds.is_some());
    match (seconds > 0.0, untimed) {
        (false, 0) => {}
        (true, 0) => tracing::info!("about {} in all", duration(seconds)),
        (true, _) => tracing::info!("about {} in all, and what has no time beside it", duration(seconds)),
        (false, _) if timed => tracing::info!("how long that takes cannot be told: another model answers"),
        (false, _) => tracing::info!("how long that takes cannot be told: metrics.jsonl has no time of dev's scoring"),
    }
    tracing::info!("every answer is kept as it comes: the same command goes on where it was stopped");
}

fn duration(seconds: f64) -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs_f64(seconds.min(1e9)))
}

/// A run whose split is scored.
struct Run<'a> {
    records: usize,
    /// Of scoring a record, prompt and text, on the clock of the training job, all its ranks together; none where the
    /// log of the run does not tell.
    seconds: Option<f64>,
    /// Its `train.json` says how the checkpoint's predictions of dev were made: they are kept.
    keeps_dev: bool,
    /// Files of answers that it keeps go on.
    folder: &'a Folder,
}

impl<'a> Run<'a> {
    fn of(context: &Context, job: &EvalJob, folder: &'a Folder) -> Result<Self> {
        // Their number alone: labels are read once dev's thresholds are frozen.
        let records = splits::load(&context.config, &job.data, &job.template.fields())?.len();
        let keeps_dev = run_directory::trained(&context.run_dir)?.is_some();
        Ok(Self { records, seconds: history::seconds_a_record(&context.run_dir), keeps_dev, folder })
    }

    /// Records that have no line in `file` yet.
    fn left(&self, file: &Path) -> usize {
        self.records.saturating_sub(self.folder.held(file).map_or(0, |held| log::lines(&held)))
    }

    /// The model's own; those of dev were made when it was trained, where that is known.
    fn predictions(&self, work: &PredictionSource<'_>, folder: &Folder) -> Part {
        if self.keeps_dev && work.split() == Some("dev") {
            return Part { note: Some("dev's were made when the model was trained"), ..Part::ready("predictions") };
        }
        self.answers("predictions", &folder.out.join(FILE), 1)
    }

    /// `each` answers a record by a model of the run's size, into `file`, which may hold some.
    fn answers(&self, part: &str, file: &Path, each: usize) -> Part {
        let answers = self.left(file) * each;
        Part {
            answers: Some(answers),
            seconds: self.seconds.map(|seconds| seconds * answers as f64),
            ..Part::ready(part)
        }
    }
}

fn tables(context: &Context) -> Vec<Part> {
    let config = &context.config;
    let splits = [&config.data.train, &config.data.dev, &config.data.test];
    let there = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| config.resolve(path).is_file());
    let counted = if splits.into_iter().all(there) { None } else { Some("of the splits that data.* names, if there") };
    let counted = Part { note: counted, ..Part::ready("table1") };
    let constructed = match paper::construct(&context.run_dir) {
        Some(_) => Part::ready("table7"),
        None => Part::missing(
            "table7",
            "it counts dev's explanations: `clsgen construct` into this --run, dev among construct.splits",
        ),
    };
    vec![counted, Part::ready("table2, table3, table4"), constructed]
}

fn curve(context: &Context, run: bool, asked: &mut EvalRequest) -> Result<Part> {
    let part = "figure 1";
    let history = if run { history::dev_history(&context.run_dir)? } else { BTreeMap::new() };
    if history.is_empty() {
        return Ok(Part::missing(part, "it needs a run that was trained with data.dev"));
    }
    asked.curve = true;
    let trained: Option<Fingerprint> = foreign::read(&context.run_dir.join("train.json"), foreign::LARGE)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let alone = trained.is_some_and(|trained| trained.get("train.objective") == "cls");
    let note = "the paper's is of a run with train.objective = \"cls\": eval --curve --run THAT";
    Ok(Part { note: (!alone).then_some(note), ..Part::ready(part) })
}

/// The base before tuning and the baselines.
fn models(
    context: &Context,
    run: Option<&Run<'_>>,
    folder: &Folder,
    asked: &mut EvalRequest,
    flags: &[String],
) -> Vec<Part> {
    let named = |baseline: &Baseline| format!("baseline {}", baseline.name());
    let Some(run) = run else {
        let what = "--predictions hold no records: give --run and --config";
        let parts = std::iter::once("base model before tuning".to_owned()).chain(Baseline::ALL.iter().map(named));
        return parts.map(|part| Part::missing(part, what)).collect();
    };
    asked.compare_base = true;
    let runs = asked.runs.map_or(context.config.eval.runs, |runs| runs as usize);
    let kept = baselines::kept(context, asked, folder);
    let mut parts = vec![run.answers("base model before tuning", &folder.out.join(BASE_FILE), 1)];
    for baseline in Baseline::ALL {
        let part = named(&baseline);
        let file = baselines::file(&folder.out, baseline);
        let other = context.config.eval.baseline_model.is_some().then_some("by eval.baseline_model");
        let part = match baseline {
            Baseline::Verbalized | Baseline::Label => run.answers(&part, &file, runs),
            Baseline::TokenProbability => run.answers(&part, &file, 1),
            Baseline::SelfConsistency => Part { note: Some("votes of baseline label"), ..Part::ready(part) },
            Baseline::Cnn if kept.contains(&baseline) => Part { answers: Some(0), ..Part::ready(part) },
            Baseline::Cnn => match check_cnn(context) {
                Ok(()) => Part { note: Some("trains a grid and its seeds"), ..Part::ready(part) },
                Err(error) => {
                    let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
                    parts.push(Part::missing(part, format!("{error}{hint}")));
                    asked.baselines.retain(|name| name != baseline.name() || flags.contains(name));
                    continue;
                }
            },
        };
        if !asked.baselines.iter().any(|name| name == baseline.name()) {
            asked.baselines.push(baseline.name().to_owned());
        }
        // Another model has another speed.
        let answers = part.answers.is_some() && other.is_some();
        parts.push(if answers { Part { seconds: None, note: other, ..part } } else { part });
    }
    parts
}

fn judged(context: &Context, run: Option<&Run<'_>>, folder: &Folder) -> Part {
    let part = "judge: RLI, κ_RL and readability of table3";
    if context.config.eval.judge.is_none() {
        return Part::missing(part, "eval.judge names no model: --set eval.judge=DIR");
    }
    let Some(run) = run else { return Part::ready(part) };
    // Two questions a text, of the tuned model's and of the base's. A record without a text is asked nothing and has no
    // line, so that this never comes to 0 where there is one.
    let answers =
        2 * [judge::FILE, judge::BASE_FILE].iter().map(|file| run.left(&folder.out.join(file))).sum::<usize>();
    let note = (answers > 0).then_some("at most, by eval.judge");
    Part { answers: Some(answers), note, ..Part::ready(part) }
}
