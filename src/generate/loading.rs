//! Loads models that predict or write: on every rank of a job ([`super::ranks`]); without one, in this process.

use std::path::Path;

use super::{
    memory::Longest,
    ranks::open::{Opening, on_every_rank},
    scoring::{read, read_base, read_untuned, read_writer},
};
use crate::{
    context::Context,
    error::Result,
    model::{
        Model, ModelSource,
        checkpoint::{ClsgenJson, LoadedModel},
    },
};

/// Reads the model, on every rank; `model.base` overrides the checkpoint's.
pub fn load(context: &Context, dir: &Path) -> Result<LoadedModel> {
    on_every_rank(context, || Opening::Tuned(dir.into()), || read(context, dir), |loaded| &mut loaded.model)
}

/// The base model that a checkpoint was made from, as it was before tuning; `model.base` overrides the checkpoint's.
pub fn load_base(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<(Model, ModelSource)> {
    on_every_rank(context, || Opening::Base(dir.into()), || read_base(context, dir, info), |(model, _)| model)
}

/// What a checkpoint's training started from: its base without an adapter, and a head of its shape as it is drawn.
pub fn load_untuned(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<LoadedModel> {
    let read = || read_untuned(context, dir, info);
    on_every_rank(context, || Opening::Untuned(dir.into()), read, |loaded| &mut loaded.model)
}

/// A model that only writes, on every rank; `key` of the config names it.
pub fn load_writer(context: &Context, key: &str, source: &ModelSource, longest: Longest) -> Result<Model> {
    let opening = || Opening::Writer { key: key.to_owned(), path: source.path.clone(), longest };
    on_every_rank(context, opening, || read_writer(context, source), |model| model)
}
