//! What a training run must not change underneath itself: its config keys, its records, its base model, its tokenizer.
//!
//! `RUN/train.json` holds them as a [`Fingerprint`]. A later `train` in the same directory with another one is refused
//! with exit 2, naming the keys.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::{Value, json};

use super::inputs::Inputs;
use crate::{
    commands::Context,
    config::Stage,
    error::{Error, Result},
    fingerprint::{Fingerprint, TOKENIZER},
    foreign,
    generate::scoring,
    storage,
};

const FILE: &str = "train.json";
/// The checkpoint that a run starts from, by its hash.
const START: &str = "train.init_from";

/// The fingerprint of a run.
pub(super) struct Identity {
    fingerprint: Fingerprint,
    /// The checkpoint of `train.init_from` is not there any more.
    start_gone: bool,
}

impl Identity {
    /// The identity of the run that `context` and `inputs` describe.
    pub fn of(context: &Context, inputs: &Inputs, base_hash: &str, tokenizer_hash: &str) -> Result<Self> {
        let config = &context.config;
        let template = serde_json::to_value(&inputs.template)
            .map_err(|e| Error::usage(format!("the prompt cannot be stored: {e}")))?;
        let hash = |source: &Option<(_, String)>| source.as_ref().map_or(Value::Null, |(_, hash)| json!(hash));
        let init_from = config.train.init_from.as_ref().map(|dir| config.resolve(dir));
        // Gone since: a resumed run does not need it, and a new one says so when it reads it.
        let gone = init_from.as_ref().is_some_and(|dir| !dir.exists() && storage::stepped_aside(dir).is_none());
        let start_hash = |dir: PathBuf| storage::read_unchanged(&dir, scoring::checkpoint_hash);
        let init_from = init_from.filter(|_| !gone).map(start_hash).transpose()?;
        let contents = [
            ("task.prompt", template),
            ("train.seed", json!(context.seed)),
            ("model.base", json!(base_hash)),
            (TOKENIZER, json!(tokenizer_hash)),
            ("model.dtype", json!(context.dtype()?.as_str())),
            ("model.quantize", json!(config.model.quantize)),
            ("data.train", json!(inputs.train_hash)),
            ("data.dev", hash(&inputs.dev_source)),
            ("construct/train.jsonl", hash(&inputs.constructed)),
            ("construct/dev.jsonl", hash(&inputs.constructed_dev)),
            (START, json!(init_from)),
        ];
        Ok(Self { fingerprint: Fingerprint::new(Stage::Train, config, &contents)?, start_gone: gone })
    }

    /// Refuses ranks that found other records, another base or another kind of device than rank 0.
    pub fn check_ranks(&self, context: &Context, device: &Device) -> Result<()> {
        let mut found = self.fingerprint.clone();
        found.set("--device", json!(if device.is_cuda() { "cuda" } else { "cpu" }));
        found.check_alike(&context.ranks)
    }

    /// Refuses a run directory that holds another run. A start that is gone stays what was recorded of it.
    pub fn check(&mut self, run: &Path) -> Result<()> {
        // Before hours whose checkpoints would find no place.
        let file = ["checkpoints", "tensorboard"].map(|name| run.join(name)).into_iter().find(|path| path.is_file());
        if let Some(file) = file {
            return Err(storage::foreign(&file, "and it is a file, not a directory"));
        }
        let path = run.join(FILE);
        let Ok(bytes) = foreign::read(&path, foreign::LARGE) else { return refuse_foreign(run) };
        let recorded: Fingerprint =
            serde_json::from_slice(&bytes).map_err(|_| storage::foreign(&path, "and no clsgen wrote it"))?;
        if self.start_gone {
            self.fingerprint.set(START, recorded.get(START).clone());
        }
        let differing = self.fingerprint.differences(&recorded);
        if differing.is_empty() {
            return Ok(());
        }
        Err(Error::usage(format!("{} holds a run with another configuration: {}", run.display(), differing.join("; ")))
            .hint("undo the change, or choose another directory with --run"))
    }

    /// The checkpoint that the run starts from, where it does from one, by its hash.
    pub fn start_hash(&self) -> Option<&str> {
        self.fingerprint.get(START).as_str()
    }

    /// Records the run's identity.
    pub fn write(&self, run: &Path) -> Result<()> {
        storage::write_json(&run.join(FILE), &self.fingerprint)
    }
}

/// A run is begun by its `train.json`: what lies in its files' places without one is somebody else's.
fn refuse_foreign(run: &Path) -> Result<()> {
    let there = ["metrics.jsonl", "best.json"]
        .map(|name| run.join(name))
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok());
    match there {
        None => Ok(()),
        Some(path) => Err(storage::foreign(&path, &format!("and no {FILE} says which run it is of"))),
    }
}
