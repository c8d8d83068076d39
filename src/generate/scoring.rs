//! From a checkpoint directory to a model that scores: what predict and eval share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Sampling,
    memory::{self, Longest},
    predict::PredictSettings,
};
use crate::{
    config::{Config, Quantize, Stage, Truncate},
    context::Context,
    error::{Error, Result},
    fingerprint::{Fingerprint, TOKENIZER},
    foreign,
    labels::Labels,
    model::{
        ClsHead, LlamaConfig, Model, ModelSource, Precision,
        checkpoint::{self, BaseLookup, ClsgenJson, INFO, LoadedModel},
    },
    prompt::{self, PromptTemplate, Prompter, TextTokenizer},
    storage,
};

/// A checkpoint directory as given, or the best one of a run directory.
pub fn checkpoint_dir(path: &Path) -> Result<PathBuf> {
    if path.join("clsgen.json").is_file() || storage::stepped_aside(path).is_some() {
        return Ok(path.to_owned());
    }
    let best = path.join("best.json");
    let Ok(bytes) = foreign::read(&best, foreign::SMALL) else {
        return Err(Error::model(format!(
            "{} is neither a checkpoint (no clsgen.json) nor a finished run (no best.json)",
            path.display()
        ))
        .hint("give a directory such as RUN/checkpoints/epoch-03, or the RUN itself once its first epoch is done"));
    };
    let named: Option<String> = serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|best| Some(best.get("path")?.as_str()?.to_owned()));
    // As training writes it: relative to the run.
    let named = named.filter(|named| foreign::is_within(named)).ok_or_else(|| {
        Error::model(format!("{}: key path is missing or leads out of the run", best.display()))
            .hint("name the checkpoint itself: RUN/checkpoints/epoch-NN")
    })?;
    Ok(path.join(named))
}

/// Refuses (exit 2) a checkpoint in a run directory's place: it never changes once it is written, and what a command
/// adds would make another of it.
pub fn refuse_checkpoint(run: &Path) -> Result<()> {
    if !run.join(INFO).is_file() {
        return Ok(());
    }
    Err(Error::usage(format!("{} is a checkpoint, not a run directory", run.display()))
        .hint("give the RUN that it is of; or score it by predict, and its file by eval --predictions"))
}

/// The prompt a checkpoint was trained with.
pub fn template(dir: &Path, info: &ClsgenJson) -> Result<PromptTemplate> {
    let failed = |what: String| Error::model(format!("{}: prompt: {what}", dir.join("clsgen.json").display()));
    let template: PromptTemplate =
        serde_json::from_value(info.prompt.clone()).map_err(|e| failed(prompt::of_keys(&e.to_string())))?;
    template.check().map_err(|e| failed(foreign::reason(&e)))?;
    if let Err(error) = template.check_task() {
        tracing::warn!("{}: prompt: {error}", dir.join("clsgen.json").display());
    }
    Ok(template)
}

/// Says that probabilities of this checkpoint mean nothing, where that is so.
pub fn warn_of_untrained_head(dir: &Path, info: &ClsgenJson) {
    if !info.head_trained {
        tracing::warn!(
            "{}: train.objective = \"lm\" trained no classification head: its probabilities are those of random \
            weights, only what the model writes says anything",
            dir.display()
        );
    }
}

/// How long a prompt and an answer may be.
pub struct Windows {
    /// Tokens of a prompt at most.
    pub input: usize,
    /// Tokens of an answer at most.
    pub output: usize,
    /// Which end of a document is cut.
    pub truncate: Truncate,
    /// Whether they may go beyond the model's `max_position_embeddings`.
    pub allow_long: bool,
}

impl Windows {
    /// For the check of memory.
    pub fn longest(&self) -> Longest {
        Longest { input: self.input, output: self.output, key: "model.max_input_tokens".into() }
    }
}

/// The checkpoint's windows, but for those that the config file or `--set` gives.
pub fn windows(context: &Context, info: &ClsgenJson) -> Windows {
    let config = &context.config.model;
    let given = |key: &str| context.config.given.contains(key);
    Windows {
        input: if given("model.max_input_tokens") { config.max_input_tokens } else { info.max_input_tokens },
        output: if given("model.max_output_tokens") { config.max_output_tokens } else { info.max_output_tokens },
        truncate: if given("model.truncate") { config.truncate } else { info.truncate },
        allow_long: config.allow_long,
    }
}

impl Windows {
    /// The config with these windows for its own.
    pub fn config(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.model.max_input_tokens = self.input;
        config.model.max_output_tokens = self.output;
        config.model.truncate = self.truncate;
        config
    }
}

/// How the base's projections are quantised: as in training, but where the config file or `--set` says otherwise.
pub fn quantize(context: &Context, info: &ClsgenJson) -> Quantize {
    let model = &context.config.model;
    if context.config.given.contains("model.quantize") { model.quantize } else { info.quantize }
}

pub(super) fn precision(context: &Context, info: &ClsgenJson) -> Result<Precision> {
    Ok(Precision::new(context.dtype()?, quantize(context, info)))
}

/// What a checkpoint's prompts and base are known by.
pub struct Known {
    /// [`ModelSource::hash`] of the base; `None` where the checkpoint does not name it and the base is not there.
    pub base: Option<String>,
    /// The tokenizer's hash; `None` likewise.
    pub tokenizer: Option<String>,
    /// The date of a prompt whose chat template reads the clock.
    pub date: Option<String>,
}

/// Names base and tokenizer by the hashes in the checkpoint, since reading it refuses any other; finds them where an
/// older clsgen or another tool named none.
pub fn known(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<Known> {
    let template = template(dir, info)?;
    if let (Some(base), Some(tokenizer)) = (&info.base_hash, &info.tokenizer_hash) {
        return Ok(Known { base: Some(base.clone()), tokenizer: Some(tokenizer.clone()), date: template.date });
    }
    let Ok(source) = locate(context, dir, info) else {
        // Reading the model says what is wrong; what is finished needs none.
        return Ok(Known { base: info.base_hash.clone(), tokenizer: info.tokenizer_hash.clone(), date: template.date });
    };
    let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
    let date = template.dated(&tokenizer, &context.prompt_date()).date;
    Ok(Known { base: Some(source.hash()?), tokenizer: Some(tokenizer.hash().to_owned()), date })
}

/// What decides the predictions of a checkpoint (`hash` is its [`checkpoint_hash`]), `predict`'s and `eval`'s. `more`
/// is what each of them knows besides.
pub fn fingerprint(
    context: &Context,
    (dir, hash): (&Path, &str),
    info: &ClsgenJson,
    more: &[(&str, Value)],
) -> Result<Fingerprint> {
    let Known { base, tokenizer, date } = known(context, dir, info)?;
    let mut contents = vec![
        ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
        ("checkpoint", json!(hash)),
        ("model.base", json!(base)),
        (TOKENIZER, json!(tokenizer)),
        ("model.dtype", json!(context.dtype()?.as_str())),
        ("model.quantize", json!(quantize(context, info))),
        ("train.seed", json!(context.seed)),
        // The rest of the prompt is in the checkpoint's hash.
        ("prompt date", json!(date)),
    ];
    contents.extend_from_slice(more);
    Fingerprint::new(Stage::Predict, &windows(context, info).config(&context.config), &contents)
}

/// How to score: the config's decoding.
pub fn settings(context: &Context, explanation: bool, windows: &Windows) -> PredictSettings {
    let generate = &context.config.generate;
    PredictSettings {
        sampling: Sampling { temperature: generate.temperature, top_p: generate.top_p, seed: context.seed },
        max_new_tokens: windows.output,
        explanation,
        constrain: generate.constrain,
        evidence: generate.evidence,
        batch_tokens: generate.batch_tokens,
    }
}

/// Refuses (exit 5), before anything large is read, a checkpoint whose model and longest prompt could not be held.
pub fn check_memory(context: &Context, dir: &Path, info: &ClsgenJson, windows: &Windows) -> Result<()> {
    let source = look(context, dir, info, true)?;
    memory::check_before_loading(&source, precision(context, info)?, &context.device()?, windows.longest())
}

/// The same of a checkpoint's base alone.
pub fn check_memory_of_base(context: &Context, dir: &Path, info: &ClsgenJson, windows: &Windows) -> Result<()> {
    let source = look(context, dir, info, false)?;
    memory::check_before_loading(&source, precision(context, info)?, &context.device()?, windows.longest())
}

/// The same of any model, held as the config says.
pub fn check_memory_of(context: &Context, source: &ModelSource, longest: Longest) -> Result<()> {
    memory::check_before_loading(source, Precision::of(context)?, &context.device()?, longest)
}

/// Reads the model, on this rank alone; `model.base` overrides the checkpoint's.
pub(super) fn read(context: &Context, dir: &Path) -> Result<LoadedModel> {
    let device = context.device()?;
    // Another process may train into this directory.
    storage::read_unchanged(dir, |dir| {
        let precision = precision(context, &checkpoint::read_info(dir)?)?;
        let mut loaded = checkpoint::load_model(dir, lookup(context, &[&context.config.dir]), precision, &device)?;
        loaded.model.llama.prepare_inference()?;
        Ok(loaded)
    })
}

/// The files that [`read`] would read, or only its base, none of them read.
pub(super) fn look(context: &Context, dir: &Path, info: &ClsgenJson, tuned: bool) -> Result<ModelSource> {
    let look = if tuned { checkpoint::look } else { checkpoint::resolve_base };
    look(dir, info, lookup(context, &[&context.config.dir]))
}

/// The model that [`read`] would read, found but not read.
pub fn locate(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<ModelSource> {
    checkpoint::locate(dir, info, lookup(context, &[&context.config.dir]))
}

/// `model.base` overrides the checkpoint's; a download needs `--allow-network`.
fn lookup<'a>(context: &'a Context, search: &'a [&'a Path]) -> BaseLookup<'a> {
    let base = Some(context.config.model.base.as_str()).filter(|base| !base.is_empty());
    BaseLookup { base, search, allow_network: context.allow_network }
}

/// The base model that a checkpoint was made from, as it was before tuning, on this rank alone.
pub(super) fn read_base(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<(Model, ModelSource)> {
    let source = checkpoint::find_base(dir, info, lookup(context, &[&context.config.dir]))?;
    Ok((Model::base(&source, precision(context, info)?, &context.device()?)?, source))
}

/// What a checkpoint's training started from: its base without an adapter, and a head of its shape as it is drawn; on
/// this rank alone.
pub(super) fn read_untuned(context: &Context, dir: &Path, info: &ClsgenJson) -> Result<LoadedModel> {
    let (mut model, source) = read_base(context, dir, info)?;
    let shape = &info.head;
    let hidden = model.llama.config.hidden_size;
    let classes = info.labels.count();
    let device = context.device()?;
    model.head = ClsHead::new(hidden, shape.hidden, classes, shape.activation, shape.dropout, context.seed, &device)?;
    Ok(LoadedModel { model, source, info: info.clone() })
}

/// A model that only writes, on this rank alone.
pub(super) fn read_writer(context: &Context, source: &ModelSource) -> Result<Model> {
    Model::base(source, Precision::of(context)?, &context.device()?)
}

/// The prompter of a loaded model. `date` is now for a template that reads the clock and was trained without one.
pub fn prompter(loaded: &LoadedModel, template: PromptTemplate, windows: &Windows, date: &str) -> Result<Prompter> {
    prompter_of(&loaded.source, loaded.info.labels.clone(), &loaded.model.llama.config, template, windows, date)
}

/// The prompter over the tokenizer of `source`, whose vocabulary must fit the model's.
pub fn prompter_of(
    source: &ModelSource,
    labels: Labels,
    config: &LlamaConfig,
    template: PromptTemplate,
    windows: &Windows,
    date: &str,
) -> Result<Prompter> {
    let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
    let template = template.dated(&tokenizer, date);
    tokenizer.check_vocab(config.vocab_size)?;
    config.check_window(windows.input, windows.output, windows.allow_long)?;
    Prompter::new(template, Arc::new(tokenizer), labels, windows.input, windows.output, windows.truncate)
}

/// BLAKE3 over the files a prediction depends on.
pub fn checkpoint_hash(dir: &Path) -> Result<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map_err(|e| Error::model(format!("cannot read {}: {}", dir.display(), storage::reason(&e))))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !name.starts_with("trainer.")
                && !name.starts_with("dev.")
                && !name.starts_with('.')
                && name != storage::MANIFEST
        })
        .collect();
    names.sort();
    let mut described = String::new();
    for name in names.iter().filter(|name| dir.join(name).is_file()) {
        described.push_str(&format!("{name} {}\n", storage::hash_file(&dir.join(name))?));
    }
    Ok(storage::hash_bytes(described.as_bytes()))
}
