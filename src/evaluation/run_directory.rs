//! Mode (b): the best checkpoint of a run directory, its own dev predictions, and a split scored now.

use std::{
    cell::OnceCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Scored,
    calibration::{Fitted, freeze},
    folder::Folder,
    frozen::{Frozen, Named},
    in_sample::Dev,
    inputs, log,
    predictions::{self, Source},
    splits,
};
use crate::{
    config::{Dtype, Stage},
    context::Context,
    data::{self, Needs, Prediction, Predictions, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    generate::{
        predict::add_evidence,
        scoring::{self, checkpoint_hash},
    },
    metrics::AnySample,
    model::checkpoint::{ClsgenJson, read_info},
    prompt::PromptTemplate,
    storage,
    train::checkpoint::DEV_PREDICTIONS,
};

/// What is to be scored, found before any work, each file of it read once.
pub struct EvalJob {
    /// The checkpoint's directory.
    pub checkpoint: PathBuf,
    /// The checkpoint's path as files and titles name it.
    shown: String,
    /// BLAKE3 of its files.
    pub hash: String,
    /// What it says of itself.
    pub info: ClsgenJson,
    /// The prompt it was trained with.
    pub template: PromptTemplate,
    /// What it said of dev; none where another tool left no such file.
    dev: Option<Predictions>,
    /// "train", "dev" or "test".
    pub split: String,
    /// The split's file.
    pub data: PathBuf,
    /// BLAKE3 of it.
    pub data_hash: String,
    records: OnceCell<Arc<Vec<Record>>>,
}

/// What the base model says of the split before tuning.
pub struct Base {
    /// Its predictions.
    pub predictions: Predictions,
    /// The same, record for record as [`EvalJob::score`] has the tuned model's.
    pub sample: AnySample,
}

impl EvalJob {
    /// Finds the run's checkpoint and the split's file.
    ///
    /// # Errors
    /// There is neither; or the settings are not the run's (exit 2).
    pub fn find(context: &Context, split: &str) -> Result<Self> {
        scoring::refuse_checkpoint(&context.run_dir)?;
        let checkpoint = scoring::checkpoint_dir(&context.run_dir)
            .map_err(|error| error.hint("give --run a run directory whose first epoch is done"))?;
        let data = split_path(context, split)?;
        let shown = checkpoint.strip_prefix(&context.run_dir).unwrap_or(&checkpoint).display().to_string();
        let info = read_info(&checkpoint)?;
        scoring::warn_of_untrained_head(&checkpoint, &info);
        let job = Self {
            hash: checkpoint_hash(&checkpoint)?,
            template: scoring::template(&checkpoint, &info)?,
            dev: dev_predictions(&checkpoint, &info)?,
            data_hash: data::source_hash(&data)?,
            records: OnceCell::new(),
            split: split.to_owned(),
            checkpoint,
            shown,
            info,
            data,
        };
        job.check_settings(context)?;
        Ok(job)
    }

    /// Refuses (exit 2) labels, prompt, dev, reading, windows and decoding other than the run's: its thresholds were
    /// tuned on dev predictions that those made. What the command leaves out is the checkpoint's, but for decoding and
    /// reading, which have defaults.
    fn check_settings(&self, context: &Context) -> Result<()> {
        let Some(run) = trained(&context.run_dir)? else { return Ok(()) };
        let config = &context.config;
        let mut ours = Fingerprint::new(Stage::Train, config, &Stage::Train.contents(|_| Value::Null))?;
        let dev = config.data.dev.as_ref().map(|dev| config.resolve(dev));
        if let Some(gone) = dev.as_ref().filter(|dev| !dev.exists()) {
            tracing::warn!(
                "data.dev: {} is not there: that the run's dev split is this cannot be checked",
                gone.display()
            );
        }
        let dev = dev.filter(|dev| dev.exists());
        if let Some(dev) = &dev {
            ours.set("data.dev", json!(data::source_hash(dev)?));
        }
        ours.set("model.quantize", json!(config.model.quantize));
        if config.given.contains("task.prompt") {
            let date = self.template.date.clone();
            let named = PromptTemplate { date, ..PromptTemplate::load(&config.resolve(&config.task.prompt))? };
            ours.set("task.prompt", json!(named));
        }
        // What has no default of the command's own counts only where it is given.
        let counts = |key: &str| match key {
            "data.dev" => dev.is_some(),
            "task.labels" | "task.prompt" | "data.format" => config.given.contains(key),
            "model.max_input_tokens" | "model.max_output_tokens" | "model.truncate" | "model.quantize" => {
                config.given.contains(key)
            }
            _ => key == "data.horizon" || key.starts_with("data.fields.") || key.starts_with("generate."),
        };
        let differing = ours.filtered(counts).differences(&run.filtered(counts));
        if differing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} was trained and its dev split scored under other settings: {}",
            context.run_dir.display(),
            differing.join("; ")
        );
        Err(Error::usage(message).hint(
            "give the run's own; or `clsgen predict` test and dev under these and compare them with `clsgen eval \
            --predictions … \
             --dev-predictions …`",
        ))
    }

    /// The split's records. Its labels are read here: not before thresholds are frozen.
    pub fn records(&self, context: &Context) -> Result<Arc<Vec<Record>>> {
        if let Some(records) = self.records.get() {
            return Ok(records.clone());
        }
        let data = &context.config.data;
        let records = data::load(data, &self.data, &Needs::split(data, &self.split, &self.template.fields()))?;
        Ok(self.records.get_or_init(|| Arc::new(records)).clone())
    }

    /// What decides the split's predictions, and the hash of those that its thresholds are tuned on: the settings of
    /// its folder.
    pub fn made(&self, context: &Context) -> Result<(Fingerprint, Option<String>)> {
        Ok((self.fingerprint(context, None)?, self.dev.as_ref().map(|dev| dev.blake3.clone())))
    }

    /// What decides the predictions of the checkpoint, or (of what is `tuned` or not) those in a file.
    fn fingerprint(&self, context: &Context, tuned: Option<bool>) -> Result<Fingerprint> {
        let data = [("records", json!(self.data_hash))].into_iter().chain(tuned.map(|tuned| ("tuned", json!(tuned))));
        scoring::fingerprint(context, (&self.checkpoint, &self.hash), &self.info, &data.collect::<Vec<_>>())
    }

    /// Freezes the thresholds, then reads and scores the split.
    pub fn score(&self, context: &Context, folder: &Folder) -> Result<Scored> {
        let out = &folder.out;
        let (frozen, calibration) = self.freeze(context, folder)?.unzip();
        let records = self.records(context)?;
        // A log that says what made it is of a command that drew for itself: it is gone on with or refused.
        let drawn = log::made_by(&out.join(predictions::FILE)).is_some();
        let dev = self.dev.as_ref().filter(|_| self.split == "dev" && !drawn && self.drew_alike(context));
        let predictions = match dev.and_then(|dev| kept(dev, &records)) {
            Some(mut kept) => {
                if context.config.generate.evidence {
                    let with_records = kept.iter_mut().zip(records.iter());
                    with_records.for_each(|(line, record)| add_evidence(line, &record.fields));
                }
                predictions::keep(out, kept, context.dry_run)?
            }
            None => predictions::generate(context, folder, &self.source(context, true)?, &records)?,
        };
        let sample = inputs::sample(&predictions, &context.config.task.labels, Some(&records))?;
        let title = format!("{}, {} split ({})", self.shown, self.split, sample.counts());
        let shared = self.of_dev(context, &predictions, &records);
        let in_sample = shared > 0 && shared == records.len();
        Ok(Scored {
            sample,
            question: Some(self.template.question.clone()),
            fields: self.template.fields(),
            title,
            frozen,
            calibration: calibration.flatten(),
            in_sample,
            dev_overlap: if in_sample { 0 } else { shared },
            predictions,
            verdict: self.template.verdict()?,
            records: Some(records),
        })
    }

    /// Whether training scored dev as this command would: in its arithmetic, where one is named, and drawing by its
    /// `--seed`, where one is given and texts are drawn at all. A checkpoint without its run does not say in which
    /// windows, with which texts and how its dev was written.
    fn drew_alike(&self, context: &Context) -> bool {
        let config = &context.config;
        let Ok(Some(run)) = trained(&context.run_dir) else {
            tracing::warn!(
                "{}: no train.json says how its checkpoint's {DEV_PREDICTIONS} was made: dev is predicted anew, and \
                 the texts there cannot be compared with these",
                context.run_dir.display()
            );
            return false;
        };
        let dtype = run.get("model.dtype");
        let known = !dtype.is_null() && dtype != "auto";
        let ours = context.dtype().map_or(Value::Null, |dtype| json!(dtype.as_str()));
        let other_dtype = known && ours != *dtype;
        let asked = config.given.contains("model.dtype") && config.model.dtype != Dtype::Auto;
        if other_dtype && !asked {
            tracing::warn!("dev's predictions are those of training, in {dtype}; this command computes in {ours}");
        }
        let seeded = context.sets.iter().any(|set| set.trim_start().starts_with("train.seed"));
        let draws = config.generate.temperature > 0.0;
        let other_seed = draws && seeded && *run.get("train.seed") != json!(context.seed);
        !(other_seed || (other_dtype && asked))
    }

    /// How many of the records are those of the checkpoint's dev predictions, by their texts or, where dev cannot be
    /// read, by id and label; all of them of the file that training names as its dev.
    fn of_dev(&self, context: &Context, predictions: &[Prediction], records: &[Record]) -> usize {
        let Some(dev) = &self.dev else { return 0 };
        if self.split == "dev" {
            // A checkpoint alone does not name its dev, and what is called so here may be any file.
            let named = |run: Fingerprint| *run.get("data.dev") == json!(self.data_hash);
            let own = trained(&context.run_dir).ok().flatten().is_some_and(named);
            return if own { records.len() } else { Dev::new(dev, &[]).holds(predictions, None) };
        }
        let load = |path: &PathBuf| splits::load(&context.config, path, &self.template.fields());
        let tuned = context.config.data.dev.as_ref().map(load).transpose().unwrap_or_else(|error| {
            tracing::warn!("records of dev among those scored are told by their ids alone: {error}");
            None
        });
        Dev::new(dev, &tuned.unwrap_or_default()).holds(predictions, Some(records))
    }

    /// The base model's predictions of the split, with the checkpoint's prompts.
    pub fn score_base(&self, context: &Context, folder: &Folder) -> Result<Base> {
        let records = self.records(context)?;
        let predictions = predictions::generate(context, folder, &self.source(context, false)?, &records)?;
        let sample = inputs::sample(&predictions, &context.config.task.labels, Some(&records))?;
        Ok(Base { predictions, sample })
    }

    fn source(&self, context: &Context, tuned: bool) -> Result<Source<'_>> {
        let made = self.fingerprint(context, Some(tuned))?;
        Ok(Source { checkpoint: &self.checkpoint, info: &self.info, template: &self.template, made, tuned })
    }

    /// Thresholds and calibrator from the checkpoint's dev predictions; none without them.
    fn freeze(&self, context: &Context, folder: &Folder) -> Result<Option<(Frozen, Option<Fitted>)>> {
        let Some(dev) = &self.dev else {
            tracing::warn!("{} has no {DEV_PREDICTIONS}: no thresholds can be tuned", self.checkpoint.display());
            return Ok(None);
        };
        let checkpoint = Named { path: self.shown.clone(), blake3: self.hash.clone() };
        let shown = Path::new(&self.shown).join(DEV_PREDICTIONS);
        freeze(context, folder, dev, &shown, Some(checkpoint)).map(Some)
    }
}

/// What the run's training was made of; `None` where the run does not say (a checkpoint of another tool's, copied
/// alone).
pub fn trained(run: &Path) -> Result<Option<Fingerprint>> {
    let path = run.join("train.json");
    let told =
        |what: &str| Error::model(format!("{}: {what}", path.display())).hint("put it back as training wrote it");
    match foreign::read(&path, foreign::LARGE) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(told(&format!("cannot be read: {}", storage::reason(&e)))),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| told("no clsgen wrote it")),
    }
}

/// The file of a split.
pub fn split_path(context: &Context, split: &str) -> Result<PathBuf> {
    let data = &context.config.data;
    let path = match split {
        "train" => &data.train,
        "dev" => &data.dev,
        _ => &data.test,
    };
    let path = path.as_ref().ok_or_else(|| {
        let error = Error::usage(format!("data.{split} names no file"));
        match split {
            "test" => error.hint(
                "name one with --set data.test=FILE, or score dev with --split dev (tuned values are then in-sample)",
            ),
            _ => error.hint(format!("name one with --set data.{split}=FILE, or give --config")),
        }
    })?;
    Ok(context.config.resolve(path))
}

/// What a checkpoint said of dev, as its manifest says that it was written.
fn dev_predictions(checkpoint: &Path, info: &ClsgenJson) -> Result<Option<Predictions>> {
    let path = checkpoint.join(DEV_PREDICTIONS);
    if !path.is_file() {
        return Ok(None);
    }
    Predictions::parse(&path, &storage::verify_file(checkpoint, DEV_PREDICTIONS)?, &info.labels, &[]).map(Some)
}

/// The checkpoint's dev predictions, where ids and labels are exactly these records'.
fn kept(dev: &[Prediction], records: &[Record]) -> Option<Vec<Prediction>> {
    if dev.len() != records.len() {
        return None;
    }
    let by_id: HashMap<&str, &Prediction> =
        dev.iter().filter_map(|prediction| Some((prediction.id.as_deref()?, prediction))).collect();
    let take = |record: &Record| {
        let mut kept = (*by_id.get(record.id.as_str())?).clone();
        kept.complete(record);
        (kept.label == record.label).then_some(kept)
    };
    records.iter().map(take).collect()
}
