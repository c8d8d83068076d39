//! Mode (b): the best checkpoint of a run directory, its own dev predictions, and a split scored now.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Scored,
    calibration::Fitted,
    costs,
    folder::{self, Folder},
    frozen::{self, Frozen, Named},
    in_sample::Dev,
    inputs, positive, predictions,
};
use crate::{
    config::Stage,
    context::Context,
    data::{self, Needs, Prediction, Record, read_predictions},
    error::{Error, Result},
    fingerprint::Fingerprint,
    generate::scoring::{self, checkpoint_hash},
    labels::Labels,
    metrics::AnySample,
    model::checkpoint::{ClsgenJson, read_info},
    prompt::PromptTemplate,
    storage,
    train::checkpoint::DEV_PREDICTIONS,
};

/// What is to be scored, found before any work.
pub struct Job {
    /// The checkpoint's directory.
    pub checkpoint: PathBuf,
    /// The checkpoint's path as files and titles name it.
    shown: String,
    /// BLAKE3 of its files.
    pub hash: String,
    /// "train", "dev" or "test".
    pub split: String,
    /// The split's file.
    pub data: PathBuf,
}

impl Job {
    /// Finds the run's checkpoint and the split's file.
    ///
    /// # Errors
    /// There is neither; or the settings are not the run's (exit 2).
    pub fn find(context: &Context, split: &str) -> Result<Self> {
        let checkpoint = scoring::checkpoint_dir(&context.run_dir)?;
        let data = split_path(context, split)?;
        let shown = checkpoint.strip_prefix(&context.run_dir).unwrap_or(&checkpoint).display().to_string();
        let job = Self { hash: checkpoint_hash(&checkpoint)?, checkpoint, shown, split: split.to_owned(), data };
        job.check_settings(context)?;
        Ok(job)
    }

    /// What the checkpoint says of itself, and the prompt it was trained with.
    pub fn prompt(&self) -> Result<(ClsgenJson, PromptTemplate)> {
        let info = read_info(&self.checkpoint)?;
        let template = scoring::template(&self.checkpoint, &info)?;
        Ok((info, template))
    }

    /// Refuses (exit 2) settings other than the run's: its thresholds were tuned on dev predictions that those made.
    /// What the command leaves out is the checkpoint's, but for decoding and reading, which have defaults.
    fn check_settings(&self, context: &Context) -> Result<()> {
        let path = context.run_dir.join("train.json");
        let Some(run) = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Fingerprint>(&bytes).ok())
        else {
            return Ok(());
        };
        let config = &context.config;
        let mut ours = Fingerprint::new(Stage::Train, config, &Stage::Train.contents(|_| Value::Null))?;
        if let Some(dev) = config.data.dev.as_ref().map(|dev| config.resolve(dev)).filter(|dev| dev.exists()) {
            ours.set("data.dev", json!(data::source_hash(&dev)?));
        }
        if config.given.contains("task.prompt") {
            let (_, own) = self.prompt()?;
            let named =
                PromptTemplate { date: own.date, ..PromptTemplate::load(&config.resolve(&config.task.prompt))? };
            ours.set("task.prompt", json!(named));
        }
        // What has no default of the command's own counts only where it is given.
        let counts = |key: &str| match key {
            "task.labels" | "task.prompt" | "data.dev" | "data.format" => config.given.contains(key),
            "model.max_input_tokens" | "model.max_output_tokens" | "model.truncate" => config.given.contains(key),
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
    pub fn records(&self, context: &Context, template: &PromptTemplate) -> Result<Vec<Record>> {
        let data = &context.config.data;
        data::load(data, &self.data, &Needs::split(data, &self.split, &template.fields()))
    }

    /// What decides the split's predictions, and the hash of those that its thresholds are tuned on: the settings of
    /// its folder.
    pub fn made(&self, context: &Context) -> Result<(Fingerprint, Option<String>)> {
        let dev = self.checkpoint.join(DEV_PREDICTIONS);
        let dev = dev.is_file().then(|| storage::hash_file(&dev)).transpose()?;
        let data = [("records", json!(data::source_hash(&self.data)?))];
        Ok((scoring::fingerprint(context, (&self.checkpoint, &self.hash), &read_info(&self.checkpoint)?, &data)?, dev))
    }

    /// Freezes the thresholds, then reads and scores the split.
    pub fn score(&self, context: &Context, folder: &Folder) -> Result<Scored> {
        let dev = self.checkpoint.join(DEV_PREDICTIONS);
        let out = &folder.out;
        let (frozen, calibration) = self.freeze(context, &dev, folder)?.unzip();
        let (_, template) = self.prompt()?;
        let records = self.records(context, &template)?;
        let kept = if self.split == "dev" { kept_dev(&dev, &context.config.task.labels, &records)? } else { None };
        let predictions = match kept {
            Some(kept) => predictions::keep(out, kept, context.dry_run)?,
            None => {
                let source = self.source(true);
                predictions::generate(context, folder, &source, template, &records)?
            }
        };
        let sample =
            inputs::sample(&out.join(predictions::FILE), &predictions, &context.config.task.labels, Some(&records))?;
        let title = format!("{}, {} split ({})", self.shown, self.split, sample.counts());
        let in_sample = frozen.is_some() && self.is_dev(context, &dev, &predictions, &records)?;
        Ok(Scored {
            sample,
            title,
            frozen,
            calibration: calibration.flatten(),
            in_sample,
            predictions,
            records: Some(records),
        })
    }

    /// Whether the records are those of the checkpoint's dev predictions, by ids and texts.
    fn is_dev(&self, context: &Context, dev: &Path, predictions: &[Prediction], records: &[Record]) -> Result<bool> {
        if self.split == "dev" {
            return Ok(true);
        }
        let data = &context.config.data;
        let tuned =
            data.dev.as_ref().and_then(|path| data::load(data, &context.config.resolve(path), &Needs::default()).ok());
        Ok(Dev::new(&read_predictions(dev, &context.config.task.labels)?, &tuned.unwrap_or_default())
            .holds(predictions, Some(records)))
    }

    /// The base model's predictions of the split, with the checkpoint's prompts: the sample, record for record that of
    /// [`Job::score`].
    pub fn score_base(&self, context: &Context, folder: &Folder) -> Result<AnySample> {
        let (_, template) = self.prompt()?;
        let records = self.records(context, &template)?;
        let predictions = predictions::generate(context, folder, &self.source(false), template, &records)?;
        inputs::sample(
            &folder.out.join(predictions::BASE_FILE),
            &predictions,
            &context.config.task.labels,
            Some(&records),
        )
    }

    fn source(&self, tuned: bool) -> predictions::Source<'_> {
        predictions::Source { checkpoint: &self.checkpoint, hash: &self.hash, data: &self.data, tuned }
    }

    /// Thresholds and calibrator from the checkpoint's dev predictions; none where another tool left no such file.
    fn freeze(&self, context: &Context, dev: &Path, folder: &Folder) -> Result<Option<(Frozen, Option<Fitted>)>> {
        if !dev.is_file() {
            tracing::warn!("{} has no {DEV_PREDICTIONS}: no thresholds can be tuned", self.checkpoint.display());
            return Ok(None);
        }
        let labels = &context.config.task.labels;
        let sample = inputs::sample(dev, &read_predictions(dev, labels)?, labels, None)?;
        let checkpoint = Named { path: self.shown.clone(), blake3: self.hash.clone() };
        let shown = Path::new(&self.shown).join(DEV_PREDICTIONS);
        let frozen = Frozen::tune(
            (&sample, positive(context)?),
            costs(context),
            Some(checkpoint),
            &shown,
            &storage::hash_file(dev)?,
        );
        frozen::write(folder, folder::THRESHOLDS, Some(&frozen.bytes()?), context.dry_run)?;
        let fitted = Fitted::fit(context, &sample, &frozen)?;
        Fitted::write(fitted.as_ref(), folder, context.dry_run)?;
        Ok(Some((frozen, fitted)))
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

/// The checkpoint's dev predictions, where they are of exactly these records with these labels: what scoring them again
/// would give.
fn kept_dev(dev: &Path, labels: &Labels, records: &[Record]) -> Result<Option<Vec<Prediction>>> {
    if !dev.is_file() {
        return Ok(None);
    }
    let mut by_id: HashMap<String, Prediction> = HashMap::new();
    for prediction in read_predictions(dev, labels)? {
        by_id.insert(prediction.id.clone().unwrap_or_default(), prediction);
    }
    if by_id.len() != records.len() {
        return Ok(None);
    }
    let take = |record: &Record| {
        let mut prediction = by_id.remove(&record.id).filter(|prediction| prediction.label == record.label)?;
        prediction.complete(record);
        Some(prediction)
    };
    Ok(records.iter().map(take).collect())
}
