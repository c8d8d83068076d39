//! Checkpoint directories: written whole or not at all, found again, resumed from.
//!
//! ```text
//! checkpoints/epoch-NN/   adapter, head, clsgen.json (model::checkpoint) · trainer.safetensors, trainer.json (here)
//!                         dev.predictions.jsonl, dev.metrics.json · manifest.json
//! checkpoints/last/       the same without dev, replaced every `save_every_steps`
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    dev::DevMetrics,
    loss::{Counts, LossSums},
    plan::BatchPlan,
    replicas,
    step::Trainer,
};
use crate::{
    config::Parameters,
    data::Prediction,
    error::{Error, Result, ResultExt},
    foreign,
    model::{
        self, ModelSource,
        checkpoint::{ClsgenJson, write_model_files},
        peft,
    },
    storage::{self, AtomicDir},
};

/// Directory of checkpoints within a run.
pub const CHECKPOINTS: &str = "checkpoints";
/// Predictions on dev within a checkpoint.
pub const DEV_PREDICTIONS: &str = "dev.predictions.jsonl";
/// Metrics on dev within a checkpoint.
pub const DEV_METRICS: &str = "dev.metrics.json";
/// Tokens of an epoch at most: their sum with any batch's fits 64 bits.
const MOST_TOKENS: usize = 1 << 60;
/// Ranks of a job at most.
const MOST_RANKS: usize = 1 << 20;
const TRAINER_JSON: &str = "trainer.json";
const TRAINER_TENSORS: &str = "trainer.safetensors";

/// `trainer.json`: with the tensors beside it, all that a resume needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// 1.
    pub schema: u32,
    /// Optimizer steps done.
    pub step: usize,
    /// The epoch of that step, counted from 1.
    pub epoch: usize,
    /// Is the epoch over, dev scored and all?
    pub complete: bool,
    /// T.
    pub total_steps: usize,
    /// Ranks that trained. One is not written: nor did it say so before there could be more.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ranks: usize,
    /// Seed of order, dropout and initial weights.
    pub seed: u64,
    /// Sums of the epoch so far, for its means.
    pub epoch_sums: LossSums,
    /// Records of the epoch so far.
    pub epoch_records: usize,
    /// Target tokens of the epoch so far.
    pub epoch_target_tokens: usize,
    /// Prompt tokens of the epoch so far that a row predicts.
    #[serde(default)]
    pub epoch_prompt_tokens: usize,
    /// Records of the epoch so far that have a target; an older clsgen did not count them.
    #[serde(default)]
    pub epoch_explained: usize,
    /// Order of the epoch's records; always what the seed gives, kept for a reader.
    pub data_order: Vec<usize>,
    /// Version of clsgen that wrote it.
    pub clsgen_version: String,
}

fn one() -> usize {
    1
}

fn is_one(ranks: &usize) -> bool {
    *ranks == 1
}

impl TrainerState {
    /// Whether one step of this plan after another leads to this state; else what does not.
    pub fn check(&self, plan: &BatchPlan) -> Result<()> {
        let counts = [
            self.epoch_records.max(self.epoch_explained) <= plan.records,
            self.epoch_target_tokens.max(self.epoch_prompt_tokens) < MOST_TOKENS,
        ];
        let what = if self.step > plan.total_steps() {
            format!("step is {}, the run has {}", self.step, plan.total_steps())
        } else if self.epoch != plan.epoch_of(self.step.max(1)) {
            format!("epoch is {}, step {} is of epoch {}", self.epoch, self.step, plan.epoch_of(self.step.max(1)))
        } else if self.complete && !self.epoch_trained(plan) {
            format!("epoch {} is said to be complete after step {}, which does not end it", self.epoch, self.step)
        } else if self.data_order != plan.order(self.epoch) {
            format!("data_order is not the order of epoch {} under seed {}", self.epoch, plan.seed)
        } else if counts.contains(&false) {
            "it counts more than an epoch has".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::model(format!("{TRAINER_JSON}: {what}")))
    }

    /// Before the first step.
    pub fn start(plan: &BatchPlan) -> Self {
        Self {
            schema: 1,
            step: 0,
            epoch: 1,
            complete: false,
            total_steps: plan.total_steps(),
            ranks: plan.ranks,
            seed: plan.seed,
            epoch_sums: LossSums::default(),
            epoch_records: 0,
            epoch_target_tokens: 0,
            epoch_prompt_tokens: 0,
            epoch_explained: 0,
            data_order: plan.order(1),
            clsgen_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The state before the next step: a new epoch begins where the last one is over.
    pub fn begin_step(&mut self, plan: &BatchPlan) {
        let epoch = plan.epoch_of(self.step + 1);
        if epoch != self.epoch {
            *self = Self { step: self.step, epoch, data_order: plan.order(epoch), ..Self::start(plan) };
        }
    }

    /// The state after a step.
    pub fn add(&mut self, sums: LossSums, counts: Counts) {
        self.step += 1;
        self.complete = false;
        self.epoch_sums += sums;
        self.epoch_records += counts.records;
        self.epoch_target_tokens += counts.target_tokens;
        self.epoch_prompt_tokens += counts.prompt_tokens;
        self.epoch_explained += counts.explained;
    }

    /// What the epoch's means are over, so far.
    pub fn epoch_counts(&self) -> Counts {
        Counts {
            records: self.epoch_records,
            explained: self.epoch_explained,
            target_tokens: self.epoch_target_tokens,
            prompt_tokens: self.epoch_prompt_tokens,
            tokens: 0,
            pairs: 0,
        }
    }

    /// Is the epoch's last step done?
    pub fn epoch_trained(&self, plan: &BatchPlan) -> bool {
        self.step > 0 && plan.ends_epoch(self.step)
    }

    /// Whether a run of at most so many steps has none left, its epoch finished where it was trained to its end.
    pub fn is_over(&self, plan: &BatchPlan, max_steps: Option<usize>) -> bool {
        self.step >= plan.last_step(max_steps) && (self.complete || !self.epoch_trained(plan))
    }

    /// Epochs that a run of at most so many steps has yet to end, its last one where `max_steps` cuts it.
    pub fn epochs_left(&self, plan: &BatchPlan, max_steps: Option<usize>) -> usize {
        plan.epoch_of(plan.last_step(max_steps)).saturating_sub(self.complete_epochs())
    }

    /// Epochs that are over.
    pub fn complete_epochs(&self) -> usize {
        if self.complete { self.epoch } else { self.epoch - 1 }
    }
}

/// What every checkpoint of a run has in common. Every rank calls it: their parameters are compared first, and none
/// goes on before rank 0 has written.
pub struct CheckpointWriter {
    /// The run directory.
    pub run: PathBuf,
    /// The base model.
    pub source: ModelSource,
    /// `clsgen.json`.
    pub info: ClsgenJson,
    /// Adapter or whole model.
    pub parameters: Parameters,
}

impl CheckpointWriter {
    /// Writes `checkpoints/epoch-NN/`, replacing an incomplete one; returns its path within the run.
    pub fn epoch(
        &self,
        trainer: &Trainer,
        state: &TrainerState,
        dev: Option<&(Vec<Prediction>, DevMetrics)>,
    ) -> Result<PathBuf> {
        let name = epoch_path(state.epoch);
        self.write(&self.run.join(&name), trainer, state, dev)?;
        Ok(name)
    }

    /// Replaces `checkpoints/last/`.
    pub fn last(&self, trainer: &Trainer, state: &TrainerState) -> Result<()> {
        self.write(&self.run.join(CHECKPOINTS).join("last"), trainer, state, None)
    }

    fn write(
        &self,
        path: &Path,
        trainer: &Trainer,
        state: &TrainerState,
        dev: Option<&(Vec<Prediction>, DevMetrics)>,
    ) -> Result<()> {
        replicas::check_equal(&trainer.ranks, trainer.optimizer.parameters())?;
        trainer.ranks.on_rank_0(|| self.write_files(path, trainer, state, dev)).map(drop)
    }

    fn write_files(
        &self,
        path: &Path,
        trainer: &Trainer,
        state: &TrainerState,
        dev: Option<&(Vec<Prediction>, DevMetrics)>,
    ) -> Result<()> {
        let dir = AtomicDir::create(path)?;
        let info = ClsgenJson { complete: state.complete, ..self.info.clone() };
        write_model_files(&dir, &trainer.model, &self.source, &info, self.parameters)?;
        dir.write_file(TRAINER_JSON, &line(state)?)?;
        peft::write_tensors(&dir, TRAINER_TENSORS, &trainer.optimizer.state())?;
        if let Some((predictions, metrics)) = dev {
            let mut writer = dir.writer(DEV_PREDICTIONS)?;
            for prediction in predictions {
                writer.put(prediction.to_line()?.as_bytes())?;
                writer.put(b"\n")?;
            }
            writer.finish()?;
            dir.write_file(DEV_METRICS, &storage::json(metrics)?)?;
        }
        dir.commit(true).context(path.display())
    }
}

/// `checkpoints/epoch-NN`, relative to the run.
pub fn epoch_path(epoch: usize) -> PathBuf {
    Path::new(CHECKPOINTS).join(format!("epoch-{epoch:02}"))
}

/// A checkpoint that a resume can start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumable {
    /// Its directory.
    pub path: PathBuf,
    /// Its `trainer.json`.
    pub state: TrainerState,
}

/// The newest checkpoint of `run` that is whole, by its manifest; a broken one is passed over with a warning. `None`
/// where none was ever committed; an error (exit 4) where every one is broken: training does not start over them.
pub fn newest_valid(run: &Path) -> Result<Option<Resumable>> {
    let mut found: Vec<Resumable> = Vec::new();
    let mut whole = 0;
    let mut damage = None;
    for path in directories(run) {
        storage::recover(&path)?;
        // What was never written to its end holds nothing to lose.
        if !path.exists() {
            continue;
        }
        whole += 1;
        // Only its trainer.json is read to put candidates in order: hashing every epoch's files would be slow.
        match read_state(&path) {
            Ok(state) => found.push(Resumable { path, state }),
            Err(error) => {
                tracing::warn!("{} is passed over: {error}", path.display());
                damage = Some(error);
            }
        }
    }
    // Of two with the same step the one whose epoch is over, then the epoch's own directory.
    found.sort_by_key(|c| (c.state.step, c.state.complete, !c.path.ends_with("last")));
    while let Some(candidate) = found.pop() {
        match storage::verify_manifest(&candidate.path) {
            Ok(true) => return Ok(Some(candidate)),
            Ok(false) => tracing::warn!("{} is passed over: it has no manifest.json", candidate.path.display()),
            Err(error) => {
                tracing::warn!("{} is passed over: {error}", candidate.path.display());
                damage = Some(error);
            }
        }
    }
    if whole == 0 {
        return Ok(None);
    }
    let reason = damage.map_or_else(|| "they have no manifest.json".to_owned(), |error| error.to_string());
    Err(Error::model(format!("no checkpoint of {} can be resumed from, of {whole}: {reason}", run.display()))
        .hint("put an undamaged copy of a checkpoint back, or start over in another directory with --run"))
}

/// A checkpoint directory of `run`, valid or not, if there is one.
pub fn any(run: &Path) -> Option<PathBuf> {
    directories(run).into_iter().next()
}

/// Checkpoint directories of a run, `epoch-…` and `last`; also those of which a killed process left only a dot name:
/// the old one that had stepped aside, or the new one under its temporary name.
fn directories(run: &Path) -> BTreeSet<PathBuf> {
    let folder = run.join(CHECKPOINTS);
    let Ok(entries) = std::fs::read_dir(&folder) else { return BTreeSet::new() };
    let names = entries.flatten().map(|entry| storage::whose(&entry.file_name()).unwrap_or_else(|| entry.file_name()));
    let checkpoints = names.filter(|name| name == "last" || name.as_encoded_bytes().starts_with(b"epoch-"));
    checkpoints.map(|name| folder.join(name)).collect()
}

/// A checkpoint's `trainer.json`.
pub fn read_state(dir: &Path) -> Result<TrainerState> {
    let failed = |what: String| Error::model(format!("{}: {what}", dir.join(TRAINER_JSON).display()));
    let state: TrainerState =
        serde_json::from_slice(&storage::verify_file(dir, TRAINER_JSON)?).map_err(|e| failed(foreign::reason(&e)))?;
    if state.schema != 1 || state.epoch == 0 || !(1..=MOST_RANKS).contains(&state.ranks) {
        return Err(failed(format!(
            "schema = {}, epoch = {}, ranks = {}: one of them is out of range",
            state.schema, state.epoch, state.ranks
        )));
    }
    Ok(state)
}

/// A checkpoint's moments.
pub fn read_moments(dir: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    model::load_tensors(&dir.join(TRAINER_TENSORS), device)
}

/// JSON on one line: the data order alone would be thousands.
fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
