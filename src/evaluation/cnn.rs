//! The CNN baseline (paper §5.2, Table 6): its grid on dev, then its seeds on the scored split; every
//! epoch and every seed is kept.
//!
//! ```text
//! RUN/eval/baselines/cnn/  meta.json   what everything here was made from; other inputs begin anew
//!                          grid.jsonl  a line an epoch of the grid, with its score on dev
//!                          state/      weights and moments of the run in progress
//!                          seed-N.jsonl  predictions of a finished seed
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{log, run_directory::split_path};
use crate::{
    baselines::{
        cnn::{Document, Embeddings, EpochResult, GRID, GRID_SEED, Trainer, predict, rarest, selection_score},
        prompting::BaselineAnswer,
    },
    config::{Cnn, Stage},
    context::Context,
    data::{self, Needs, Record},
    error::{Error, Result, ResultExt},
    fingerprint::{Fingerprint, TOKENIZER},
    foreign,
    labels::Class,
    model::{ModelSource, source},
    storage::{self, RecordLog},
};

/// The hash of the word embeddings beside the keys.
const EMBEDDINGS: &str = "cnn.embeddings";

/// A line of a seed's predictions.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    label: Option<Class>,
    /// Of class 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    probability: Option<f64>,
    /// Of all of more than two classes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    probabilities: Option<Vec<f64>>,
}

/// What is missing for the CNN, said before any work.
pub fn check_cnn(context: &Context) -> Result<()> {
    embeddings(context)?;
    split_path(context, "train")?;
    split_path(context, "dev").map(|_| ())
}

/// The BERT folder that `cnn.embeddings` names, by path or by hub id.
fn embeddings(context: &Context) -> Result<ModelSource> {
    let config = &context.config;
    let named = config.cnn.embeddings.as_ref().ok_or_else(|| {
        Error::usage("the baseline cnn needs word embeddings, and cnn.embeddings is not set")
            .hint("name a Hugging Face BERT folder or a hub id: --set cnn.embeddings=DIR")
    })?;
    source::resolve(&named.display().to_string(), &[&config.dir], context.allow_network).context("cnn.embeddings")
}

/// Trains what is not trained yet; what every test seed says of `records` (of a file with this hash), read by `fields`.
pub fn run(
    context: &Context,
    fields: &[String],
    records: &[Record],
    data_hash: &str,
    (folder, overwrite): (&Path, bool),
) -> Result<Vec<Vec<BaselineAnswer>>> {
    let labels = &context.config.task.labels;
    let cnn = &context.config.cnn;
    let folder = folder.join("cnn");
    let train_path = split_path(context, "train")?;
    let dev_path = split_path(context, "dev")?;
    let source = embeddings(context)?;
    let words = &source.path;
    let contents = [
        ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
        (EMBEDDINGS, json!(weights_of(&source)?)),
        (TOKENIZER, json!(storage::hash_file(&words.join("tokenizer.json")).ok())),
        ("data.train", json!(data::source_hash(&train_path)?)),
        ("data.dev", json!(data::source_hash(&dev_path)?)),
        ("records", json!(data_hash)),
        ("fields", json!(fields)),
    ];
    // Records may name their class; of two classes it was not told before there were more.
    let named = (!labels.are_two()).then(|| ("labels", json!(labels)));
    let contents: Vec<_> = contents.into_iter().chain(named).collect();
    let made = Fingerprint::new(Stage::Cnn, &context.config, &contents)?;
    begin(&folder, &made, overwrite)?;
    let missing = (0..cnn.seeds).filter(|&seed| !seed_file(&folder, seed).is_file()).count();
    if missing > 0 {
        let embeddings = Embeddings::load(words)?;
        let split = |name: &str, path: &Path| -> Result<Vec<Document>> {
            let records = data::load(&context.config.data, path, &Needs::split(&context.config.data, name, fields))?;
            documents(&embeddings, &records, fields, cnn)
        };
        let work = Work {
            cnn,
            classes: labels.count(),
            folder: &folder,
            train: split("train", &train_path)?,
            dev: split("dev", &dev_path)?,
            embeddings,
        };
        work.run(records, fields).map_err(log::resumable)?;
    }
    (0..cnn.seeds).map(|seed| answers(&seed_file(&folder, seed), records, labels.count())).collect()
}

/// What the word embeddings are known by: the hash of the one file that they lie in, or of all shards' hashes.
fn weights_of(source: &ModelSource) -> Result<String> {
    let mut hashes = source.weight_files().iter().map(|file| storage::hash_file(file)).collect::<Result<Vec<_>>>()?;
    match hashes.as_mut_slice() {
        [one] => Ok(std::mem::take(one)),
        all => Ok(storage::hash_bytes(all.concat().as_bytes())),
    }
}

/// How many of the seeds are finished in the baselines' `folder`: of as many as this command names, else of all.
pub fn finished(context: &Context, folder: &Path) -> usize {
    let folder = folder.join("cnn");
    if !folder.join("meta.json").is_file() {
        return 0;
    }
    let config = &context.config;
    let most = if config.given.contains("cnn.seeds") { config.cnn.seeds } else { usize::MAX };
    (0..most).take_while(|&seed| seed_file(&folder, seed).is_file()).count()
}

/// What those say of `records`, whatever settings made them: it takes neither train nor word embeddings.
pub fn kept(context: &Context, records: &[Record], folder: &Path) -> Result<Vec<Vec<BaselineAnswer>>> {
    let classes = context.config.task.labels.count();
    let file = |seed| seed_file(&folder.join("cnn"), seed);
    (0..finished(context, folder)).map(|seed| answers(&file(seed), records, classes)).collect()
}

/// Keeps a folder that was made from the same inputs; any other that holds something is refused, or emptied under
/// `--overwrite`.
fn begin(folder: &Path, made: &Fingerprint, overwrite: bool) -> Result<()> {
    let path = folder.join("meta.json");
    let theirs: Option<Fingerprint> =
        foreign::read(&path, foreign::LARGE).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // An older clsgen kept no hash of shards: they cannot be compared.
    let differences = |theirs: Fingerprint| {
        made.filtered(|key| key != EMBEDDINGS || !theirs.get(EMBEDDINGS).is_null()).differences(&theirs)
    };
    match theirs.map(differences) {
        Some(differing) if differing.is_empty() => return Ok(()),
        Some(differing) if !overwrite => {
            let message = format!("{} was made with other settings: {}", folder.display(), differing.join("; "));
            return Err(Error::usage(message).hint("--overwrite makes it again; or give the settings that made it"));
        }
        None if !overwrite && std::fs::read_dir(folder).is_ok_and(|mut held| held.next().is_some()) => {
            let message = format!("{}: {} does not say what made it", folder.display(), path.display());
            return Err(Error::data(message).hint("--overwrite makes it again; or put that file back"));
        }
        _ => {}
    }
    storage::remove_dir_all(folder)?;
    storage::create_dir_all(folder)?;
    storage::write_json(&path, made)
}

fn seed_file(folder: &Path, seed: usize) -> PathBuf {
    folder.join(format!("seed-{seed}.jsonl"))
}

fn documents(embeddings: &Embeddings, records: &[Record], fields: &[String], cnn: &Cnn) -> Result<Vec<Document>> {
    records.iter().map(|record| embeddings.document(record, fields, cnn.max_tokens)).collect()
}

struct Work<'a> {
    cnn: &'a Cnn,
    classes: usize,
    folder: &'a Path,
    embeddings: Embeddings,
    train: Vec<Document>,
    dev: Vec<Document>,
}

impl Work<'_> {
    fn run(&self, records: &[Record], fields: &[String]) -> Result<()> {
        let best = self.grid()?;
        tracing::info!("cnn: learning rate {} and epoch {} are the best on dev", best.learning_rate, best.epoch);
        let test = documents(&self.embeddings, records, fields, self.cnn)?;
        for seed in 0..self.cnn.seeds {
            let file = seed_file(self.folder, seed);
            if file.is_file() {
                continue;
            }
            let mut trainer = self.trainer(best.learning_rate, seed as u64, best.epoch)?;
            while trainer.epoch() < best.epoch {
                let loss = trainer.train_epoch()?;
                trainer.save(&self.state())?;
                tracing::info!("cnn: seed {seed}, epoch {} of {}, loss {loss:.4}", trainer.epoch(), best.epoch);
            }
            let probabilities = predict(trainer.network(), &self.embeddings, &test)?;
            let mut lines = String::new();
            for (record, probabilities) in records.iter().zip(probabilities) {
                let BaselineAnswer { probability, probabilities, .. } = BaselineAnswer::of_probabilities(probabilities);
                let line = Line { id: record.id.clone(), label: record.label, probability, probabilities };
                lines += &serde_json::to_string(&line).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
                lines.push('\n');
            }
            storage::write_file_atomic(&file, lines.as_bytes())?;
        }
        storage::remove_dir_all(&self.state())
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn trainer(&self, learning_rate: f64, seed: u64, until: usize) -> Result<Trainer<'_>> {
        let folder = self.state();
        let schedule = (learning_rate, seed);
        Trainer::start(&self.embeddings, self.classes, &self.train, self.cnn, schedule, &folder, until)
    }

    /// Every epoch of every learning rate, scored on dev; the best one, the earliest of equals.
    fn grid(&self) -> Result<EpochResult> {
        let path = self.folder.join("grid.jsonl");
        let mut lines = RecordLog::open(&path)?;
        let mut results: Vec<EpochResult> = log::read(&path)?;
        let rarest = rarest(self.classes, self.train.iter().map(|document| document.label));
        let labels: Vec<Class> = self.dev.iter().map(|document| document.label).collect();
        let rates = self.cnn.learning_rate.map_or(GRID.to_vec(), |rate| vec![rate]);
        for learning_rate in rates {
            let done = results.iter().filter(|result| result.learning_rate == learning_rate).count();
            if done == self.cnn.epochs {
                continue;
            }
            // A state beyond the last line that is logged would leave a gap.
            let mut trainer = self.trainer(learning_rate, GRID_SEED, done)?;
            while trainer.epoch() < self.cnn.epochs {
                let loss = trainer.train_epoch()?;
                // An epoch that is trained again, for want of its state, is logged already.
                if trainer.epoch() > done {
                    let probabilities = predict(trainer.network(), &self.embeddings, &self.dev)?;
                    let score = selection_score(&probabilities, &labels, rarest);
                    let result = EpochResult {
                        learning_rate,
                        seed: GRID_SEED,
                        epoch: trainer.epoch(),
                        loss,
                        score: Some(score),
                    };
                    lines.append(&result)?;
                    results.push(result);
                    tracing::info!(
                        "cnn: learning rate {learning_rate}, epoch {}, loss {loss:.4}, dev score {score:.4}",
                        trainer.epoch()
                    );
                }
                trainer.save(&self.state())?;
            }
        }
        lines.sync()?;
        let score = |result: &EpochResult| result.score.unwrap_or(0.0);
        let best = results.iter().fold(None, |best: Option<&EpochResult>, result| match best {
            Some(best) if score(best) >= score(result) => Some(best),
            _ => Some(result),
        });
        best.copied().ok_or_else(|| Error::run("the CNN's grid is empty"))
    }
}

/// What a seed says, in the records' order.
fn answers(file: &Path, records: &[Record], classes: usize) -> Result<Vec<BaselineAnswer>> {
    let lines: Vec<Line> = log::read(file)?;
    let said = |line: Line| match (line.probability, line.probabilities) {
        (Some(probability), None) if classes == 2 => Some(BaselineAnswer::of_probability(probability)),
        (None, Some(probabilities)) if classes == probabilities.len() => {
            Some(BaselineAnswer::of_probabilities(probabilities))
        }
        _ => None,
    };
    let same = lines.iter().map(|line| &line.id).eq(records.iter().map(|record| &record.id));
    let runs: Option<Vec<BaselineAnswer>> = lines.into_iter().map(said).collect();
    match runs {
        Some(runs) if same => Ok(runs),
        _ => Err(Error::run(format!("{} holds other records than the split", file.display()))
            .hint("delete it and try again")),
    }
}
