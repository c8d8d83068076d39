//! A scored split: predictions by fingerprint, thresholds, calibrators, judge, baselines, and the directory that keeps
//! them. Layer 5.
//!
//! ```text
//! prediction files, run directory ─▶ PredictionSource
//!     first  dev ─▶ frozen (thresholds.json), calibration (calibration.json)
//!     then   split ─▶ predictions ─▶ inputs (AnySample) ─▶ Scored
//!
//! Folder  RUN/eval/<split>: whose settings made it, what is kept, replaced, continued (log)
//! beside  judge, baselines, cnn, against: what other models say of the same records; language: what tuning forgot
//! ```
//!
//! Labels of the split are read after dev's thresholds are on disk. What is measured on a [`Scored`], and
//! the tables and figures of it, are the command's.

pub mod against;
mod asked_model;
pub mod baselines;
pub mod calibration;
mod cnn;
pub mod folder;
pub mod frozen;
mod in_sample;
pub mod inputs;
pub mod judge;
pub mod language;
pub mod log;
mod prediction_files;
pub mod predictions;
pub mod run_directory;
pub mod splits;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use crate::{
    config::Stage,
    context::Context,
    data::{self, Predictions, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    generate::scoring,
    labels::Class,
    metrics::{
        AnySample,
        operating::{Aim, Target},
        threshold::Costs,
    },
    model::tokenizer,
    prompt::Verdict,
};
pub use cnn::check_cnn;

use calibration::Fitted;
use folder::{Fingerprints, Folder};
use frozen::Frozen;
use run_directory::EvalJob;

/// A scored split: test, with thresholds from dev.
pub struct Scored {
    /// Its rows as the metrics want them.
    pub sample: AnySample,
    /// What the model was asked of a record; prediction files do not tell.
    pub question: Option<String>,
    /// Text fields that its prompt names.
    pub fields: Vec<String>,
    /// "test", or the name of the split or file.
    pub title: String,
    /// Thresholds from dev; none without dev.
    pub frozen: Option<Frozen>,
    /// Calibrators from dev, likewise.
    pub calibration: Option<Fitted>,
    /// The records are those that thresholds and calibrator were tuned on.
    pub in_sample: bool,
    /// How many of the records those are, where it is some of them.
    pub dev_overlap: usize,
    /// What the model said.
    pub predictions: Predictions,
    /// The line that ends its texts.
    pub verdict: Verdict,
    /// The split's records; none where only a prediction file is known.
    pub records: Option<Arc<Vec<Record>>>,
}

/// Where the predictions come from.
pub enum PredictionSource<'a> {
    /// Prediction files of any tool.
    Files {
        /// Those that are scored.
        test: &'a [PathBuf],
        /// Those that thresholds are tuned on; there may be none.
        dev: &'a [PathBuf],
    },
    /// The best checkpoint of the run directory.
    Run(Box<EvalJob>),
}

impl PredictionSource<'_> {
    /// The split that is scored; prediction files have none.
    pub fn split(&self) -> Option<&str> {
        match self {
            Self::Files { .. } => None,
            Self::Run(job) => Some(&job.split),
        }
    }

    /// Files whose hashes go into `run.json`.
    pub fn inputs(&self) -> Vec<&Path> {
        match self {
            Self::Files { test, dev } => test.iter().chain(*dev).map(PathBuf::as_path).collect(),
            Self::Run(job) => vec![&job.data],
        }
    }

    /// The splits that the leakage report reads beside the scored one.
    pub fn other_splits(&self, context: &Context) -> Vec<PathBuf> {
        let Self::Run(job) = self else { return Vec::new() };
        let data = &context.config.data;
        let named = [&data.train, &data.dev, &data.test].into_iter().flatten().map(|path| context.config.resolve(path));
        named.filter(|path| *path != job.data && path.is_file()).collect()
    }

    /// The checkpoint that is scored, the base that it and the baselines stand on, and the judge, for `run.json`.
    pub fn models(
        &self,
        judge: Option<&judge::Plan>,
        baselines: Option<&baselines::Plan<'_>>,
    ) -> Result<Vec<(&'static str, PathBuf, String)>> {
        let mut used = Vec::new();
        if let Self::Run(job) = self {
            used.push(("checkpoint", job.checkpoint.clone(), job.hash.clone()));
            let base = PathBuf::from(&job.info.base_model);
            used.extend(job.info.base_hash.clone().map(|hash| ("model.base", base, hash)));
        }
        if let Some(judge) = judge {
            let (path, hash) = judge.asked.used()?;
            used.push(("eval.judge", path, hash));
        }
        if let Some(asked) = baselines.and_then(|plan| plan.asked.as_ref()) {
            let (path, hash) = asked.used()?;
            used.push(("eval.baseline_model", path, hash));
        }
        Ok(used)
    }

    /// Where the tokenizer of the task's own model lies, if it is here.
    fn tokenizer_path(&self, context: &Context) -> Option<PathBuf> {
        match self {
            Self::Run(job) => {
                let source = scoring::locate(context, &job.checkpoint, &job.info).ok()?;
                Some(source.tokenizer_path().to_owned())
            }
            Self::Files { .. } => {
                let base = &context.config.model.base;
                (!base.is_empty()).then(|| tokenizer::find(base, &[&context.config.dir])).flatten()
            }
        }
    }

    /// The context with the checkpoint's labels: the config need not repeat them.
    pub fn context(&self, context: &Context) -> Context {
        let mut context = context.clone();
        if let Self::Run(job) = self {
            context.config.task.labels.clone_from(&job.info.labels);
            context.config.data.labels.clone_from(&job.info.labels);
        }
        context
    }

    /// Freezes thresholds and calibrator on dev, then reads and scores the split.
    pub fn score(&self, context: &Context, folder: &Folder) -> Result<Scored> {
        match self {
            Self::Files { test, dev } => prediction_files::score(context, folder, test, dev),
            Self::Run(job) => job.score(context, folder),
        }
    }

    /// Everything that decides the numbers of a split's folder.
    fn made(&self, context: &Context) -> Result<Fingerprints> {
        let (scoring, dev) = match self {
            Self::Files { test, dev } => {
                let hash = |paths: &[PathBuf]| data::source_hash_of(paths.iter().map(PathBuf::as_path));
                let dev = (!dev.is_empty()).then(|| hash(dev)).transpose()?;
                let mut scoring = Fingerprint::of_contents(&[("predictions", json!(hash(test)?))]);
                let verdict = prediction_files::verdict(context)?;
                if verdict != Verdict::default() {
                    scoring.set("verdict", json!(verdict.template()));
                }
                (scoring, dev)
            }
            Self::Run(job) => job.made(context)?,
        };
        let mut contents = vec![("train.seed", json!(context.seed)), ("dev predictions", json!(dev))];
        if let Self::Files { .. } = self {
            contents.push((folder::LABELS, json!(context.config.task.labels)));
        }
        Ok(Fingerprints { scoring, measuring: Fingerprint::new(Stage::Measure, &context.config, &contents)? })
    }
}

/// The class that `eval.positive` names, if it names one. Of two classes it can only be class 1: another is refused, as
/// is a name that is none of the labels (exit 2).
pub fn positive(context: &Context) -> Result<Option<Class>> {
    let (Some(name), labels) = (&context.config.eval.positive, &context.config.task.labels) else { return Ok(None) };
    let told = |message: String| {
        Error::usage(message).hint("leave eval.positive out, or name the class that thresholds are to be of")
    };
    match labels.named(name) {
        None => Err(told(format!("eval.positive: {name:?} is none of task.labels: {}", labels.join(", ")))),
        // A prediction of two classes is class 1's probability, and so is every number that follows from it.
        Some(class) if labels.are_two() && class != Class::ONE => {
            Err(told(format!("eval.positive: of two classes {:?} is the positive one", labels[1])))
        }
        class => Ok(class),
    }
}

/// What errors cost, as the config says.
pub fn costs(context: &Context) -> Costs {
    Costs { false_positive: context.config.eval.cost_fp, false_negative: context.config.eval.cost_fn }
}

/// What the operating points hold fixed, as the config says.
pub fn targets(context: &Context) -> Vec<Target> {
    let eval = &context.config.eval;
    let of = |target, values: &[f64]| values.iter().map(|&at| Target { target, at }).collect::<Vec<_>>();
    [
        of(Aim::Sensitivity, &eval.sensitivities),
        of(Aim::Specificity, &eval.specificities),
        of(Aim::AlertRate, &eval.alert_rates),
    ]
    .concat()
}
