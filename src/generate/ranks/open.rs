//! One model on every rank: the same bytes, each rank's memory looked at before any takes some, then read by all.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Command, write};
use crate::{
    context::Context,
    error::{Result, ResultExt},
    fingerprint::{Fingerprint, TOKENIZER},
    generate::{
        Budget,
        memory::{self, Longest},
        scoring,
    },
    model::{
        Model, ModelSource, Precision, Replicas,
        checkpoint::{self, ClsgenJson},
        source,
    },
    prompt::TextTokenizer,
};

/// Models that were opened so far.
static OPENED: AtomicUsize = AtomicUsize::new(0);

/// A model that every rank is to read.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::generate) enum Opening {
    /// A checkpoint.
    Tuned(PathBuf),
    /// What a checkpoint's training started from.
    Untuned(PathBuf),
    /// The base that a checkpoint was made from.
    Base(PathBuf),
    /// A model that only writes, by the config's key that names it.
    Writer { key: String, path: PathBuf, longest: Longest },
}

/// A model that this rank holds for rank 0.
pub(super) struct WorkerModel {
    pub number: usize,
    pub model: Model,
    pub tokenizer: TextTokenizer,
    pub budget: Budget,
}

/// Reads a model by `read`; where there are other ranks, on all of them. `model` is what they are to answer with.
pub(in crate::generate) fn on_every_rank<T>(
    context: &Context,
    opening: impl FnOnce() -> Opening,
    read: impl FnOnce() -> Result<T>,
    model: impl FnOnce(&mut T) -> &mut Model,
) -> Result<T> {
    let ranks = &context.ranks;
    if ranks.size() == 1 {
        return read();
    }
    let opening = opening();
    let number = OPENED.fetch_add(1, Ordering::Relaxed);
    ranks.broadcast(&write(&Command::Open(number, opening.clone()))?)?;
    let mut read = opening.together(context, |_| read())?;
    model(&mut read).replicas = Some(Replicas { ranks: ranks.clone(), opening: number });
    Ok(read)
}

/// A model's files on this rank, and what it has to know of it.
struct Found {
    source: ModelSource,
    /// What must be the same on all ranks: the files' content and the arithmetic.
    identity: Fingerprint,
    longest: Longest,
    /// The checkpoint's directory and description.
    checkpoint: Option<(PathBuf, ClsgenJson)>,
}

impl Found {
    fn check_memory(&self, context: &Context) -> Result<()> {
        let precision = match &self.checkpoint {
            Some((_, info)) => scoring::precision(context, info)?,
            None => Precision::of(context)?,
        };
        memory::check_before_loading(&self.source, precision, &context.device()?, self.longest.clone())
    }
}

impl Opening {
    /// What each rank does, all at once; ends all where one fails.
    fn together<T>(&self, context: &Context, read: impl FnOnce(Found) -> Result<T>) -> Result<T> {
        let ranks = &context.ranks;
        let found = ranks.agree(self.find(context))?;
        found.identity.check_alike(ranks)?;
        // Every rank has looked at what memory is free before any takes some.
        ranks.agree(found.check_memory(context))?;
        ranks.agree(read(found))
    }

    fn find(&self, context: &Context) -> Result<Found> {
        let dir = match self {
            Self::Writer { key, path, longest } => {
                let source = source::resolve(&path.to_string_lossy(), &[], false).context(key)?;
                let identity = identity(context, key, source.hash()?, &source)?;
                return Ok(Found { source, identity, longest: longest.clone(), checkpoint: None });
            }
            Self::Tuned(dir) | Self::Untuned(dir) | Self::Base(dir) => dir.clone(),
        };
        let info = checkpoint::read_info(&dir)?;
        let source = scoring::look(context, &dir, &info, matches!(self, Self::Tuned(_)))?;
        // Reading the base compares it with this hash.
        let base = info.base_hash.clone().map_or_else(|| source.hash(), Ok)?;
        let mut identity = identity(context, "model.base", base, &source)?;
        identity.set("model.quantize", json!(scoring::quantize(context, &info)));
        identity.set("checkpoint", json!(scoring::checkpoint_hash(&dir)?));
        let longest = scoring::windows(context, &info).longest();
        Ok(Found { source, identity, longest, checkpoint: Some((dir, info)) })
    }

    /// Reads the model for rank 0 to ask.
    pub(super) fn hold(&self, context: &Context, number: usize) -> Result<WorkerModel> {
        self.together(context, |found| {
            let model = match (self, &found.checkpoint) {
                (Self::Tuned(_), Some((dir, _))) => scoring::read(context, dir)?.model,
                (Self::Untuned(_), Some((dir, info))) => scoring::read_untuned(context, dir, info)?.model,
                (_, Some((dir, info))) => scoring::read_base(context, dir, info)?.0,
                (_, None) => scoring::read_writer(context, &found.source)?,
            };
            let tokenizer = TextTokenizer::load(found.source.tokenizer_path())?;
            Ok((model, tokenizer, found.longest.input))
        })
        .map(|(model, tokenizer, longest)| {
            let budget = Budget::beside(&model.llama, longest, context.config.generate.batch_tokens);
            WorkerModel { number, model, tokenizer, budget }
        })
    }
}

/// `key` names the weights, which have this hash.
fn identity(context: &Context, key: &str, hash: String, source: &ModelSource) -> Result<Fingerprint> {
    Ok(Fingerprint::of_contents(&[
        (key, json!(hash)),
        (TOKENIZER, json!(TextTokenizer::load(source.tokenizer_path())?.hash())),
        ("--device", json!(if context.device()?.is_cuda() { "cuda" } else { "cpu" })),
        ("model.dtype", json!(context.dtype()?.as_str())),
    ]))
}
