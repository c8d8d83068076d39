//! The model's part of a checkpoint directory: `clsgen.json`, head, and the adapter or (trained in full) a whole HF
//! folder.

use std::{path::Path, sync::Once};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{
    ClsHead, Llama, Model, ModelSource, Precision, head, peft,
    safetensors::SafetensorsFile,
    source::{self, resolve},
};
use crate::{
    config::{Parameters, Quantize, Truncate},
    error::{Error, Result, ResultExt},
    foreign,
    labels::Labels,
    prompt::{TokenizerFiles, of_keys},
    storage::{self, AtomicDir, MANIFEST, reason, verify_manifest},
};

/// What a checkpoint says of itself.
pub const INFO: &str = "clsgen.json";
/// The head's weights.
pub const HEAD: &str = "cls_head.safetensors";
/// Files copied beside full weights, where the base has them.
const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Tokens of a window at most.
const MAX_TOKENS: usize = 1 << 24;
/// Width of the head at most.
const MAX_WIDTH: usize = 1 << 20;

/// Shape of the head, as `clsgen.json` holds it.
pub type HeadShape = crate::config::Head;

/// `clsgen.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClsgenJson {
    /// 1.
    pub schema: u32,
    /// Base model: hub id or path.
    pub base_model: String,
    /// Its [`ModelSource::hash`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
    /// BLAKE3 of the base's tokenizer, chat template and generation config ([`TokenizerFiles::hash`]); checkpoints of
    /// an older clsgen have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_hash: Option<String>,
    /// Verbalized labels.
    pub labels: Labels,
    /// The prompt file's keys.
    pub prompt: serde_json::Value,
    /// Shape of the head.
    pub head: HeadShape,
    /// Window of the prompt.
    pub max_input_tokens: usize,
    /// Window of the answer.
    pub max_output_tokens: usize,
    /// Which part of a too-long document goes.
    #[serde(default)]
    pub truncate: Truncate,
    /// How the base's projections were quantised in training: what they are in prediction too, unless told otherwise.
    #[serde(default, skip_serializing_if = "is_none")]
    pub quantize: Quantize,
    /// `false` where its epoch was cut short.
    #[serde(default = "yes")]
    pub complete: bool,
    /// `false` where neither its run nor one that it started from trained the head (`train.objective = "lm"`): it is as
    /// it was drawn, and its probabilities mean nothing.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub head_trained: bool,
    /// Version of clsgen that wrote it.
    #[serde(default)]
    pub clsgen_version: String,
}

fn is_none(quantize: &Quantize) -> bool {
    *quantize == Quantize::None
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// A checkpoint, ready to predict.
#[derive(Debug)]
pub struct LoadedModel {
    /// Base, adapters and head.
    pub model: Model,
    /// Where the base (and the tokenizer) came from.
    pub source: ModelSource,
    /// What the checkpoint says of itself.
    pub info: ClsgenJson,
}

/// Reads `clsgen.json` of a checkpoint directory.
pub fn read_info(dir: &Path) -> Result<ClsgenJson> {
    let path = dir.join(INFO);
    let failed = |what: String| {
        Error::model(format!("{}: {what}", path.display()))
            .hint("the checkpoint is damaged or another program's: name another of the run's, RUN/checkpoints/…")
    };
    let text = foreign::read_text(&path, foreign::SMALL)
        .map_err(|e| failed(reason(&e)).hint("is this a checkpoint directory (epoch-NN)?"))?;
    // The prompt may hold examples: nothing of the file is repeated.
    let info: ClsgenJson = serde_json::from_str(&text).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let what = if e.is_data() { of_keys(&e.to_string()) } else { "is no JSON".to_owned() };
        failed(format!("not a checkpoint description: line {line}, column {column}: {what}"))
    })?;
    if info.schema != 1 {
        return Err(failed(format!("schema is {}, 1 expected", info.schema))
            .hint("it was written by another version of clsgen"));
    }
    let tokens = 1..=MAX_TOKENS;
    if !tokens.contains(&info.max_input_tokens) || !tokens.contains(&info.max_output_tokens) {
        return Err(failed(format!(
            "max_input_tokens = {}, max_output_tokens = {}: one of them is out of range",
            info.max_input_tokens, info.max_output_tokens
        )));
    }
    if !(1..=MAX_WIDTH).contains(&info.head.hidden) || !(0.0..1.0).contains(&info.head.dropout) {
        return Err(failed(format!(
            "head.hidden = {}, head.dropout = {:e}: one of them is out of range",
            info.head.hidden, info.head.dropout
        )));
    }
    Ok(info)
}

/// Where a checkpoint's base model is looked for: beside the checkpoint, in `search`, in the hub cache.
#[derive(Debug, Clone, Copy, Default)]
pub struct BaseLookup<'a> {
    /// Overrides the checkpoint's `base_model`.
    pub base: Option<&'a str>,
    /// Directories that relative paths may begin at.
    pub search: &'a [&'a Path],
    /// May a hub id that is not in the cache be downloaded?
    pub allow_network: bool,
}

/// Reads a checkpoint directory's model and its base.
pub fn load_model(
    dir: &Path,
    lookup: BaseLookup<'_>,
    precision: impl Into<Precision>,
    device: &Device,
) -> Result<LoadedModel> {
    check_manifest(dir)?;
    let info = read_info(dir)?;
    let adapter = dir.join(peft::CONFIG).is_file();
    let source = locate(dir, &info, lookup)?;
    let head = read_head(dir, &info, source.config()?.hidden_size, device)?;
    let mut llama = Llama::load(&source, precision, device)?;
    if adapter {
        peft::load_adapter(&mut llama, dir)?;
    }
    Ok(LoadedModel { model: Model::new(llama, head), source, info })
}

/// The model that a checkpoint's adapter sits on, or the checkpoint itself where it was trained in full.
pub fn locate(dir: &Path, info: &ClsgenJson, lookup: BaseLookup<'_>) -> Result<ModelSource> {
    let adapter = dir.join(peft::CONFIG).is_file();
    let source = if adapter || !holds_weights(dir) {
        find_base(dir, info, lookup)?
    } else {
        let own = source::open(dir)?;
        check_tokenizer(dir, info, &own)?;
        own
    };
    if adapter || source.path == dir {
        Ok(source)
    } else {
        Err(Error::model(format!(
            "{}: the adapter is missing: no {}, no model.safetensors",
            dir.display(),
            peft::CONFIG
        ))
        .hint("copy the checkpoint's whole directory, or name another of the run's"))
    }
}

/// The files that [`locate`] would find, none of them read: for what must be known before gigabytes are hashed.
pub fn look(dir: &Path, info: &ClsgenJson, lookup: BaseLookup<'_>) -> Result<ModelSource> {
    let adapter = dir.join(peft::CONFIG).is_file();
    if adapter || !holds_weights(dir) { resolve_base(dir, info, lookup) } else { source::open(dir) }
}

/// Reads the weights and head of `dir` into a model of the same base (`train.init_from`, `--resume`).
///
/// A model that has adapters keeps their shape and dropout; the checkpoint's must have the same.
pub fn load_into(model: &mut Model, dir: &Path) -> Result<()> {
    check_manifest(dir)?;
    let info = read_info(dir)?;
    let device = model.llama.device.clone();
    let head = read_head(dir, &info, model.llama.config.hidden_size, &device)?;
    match model.llama.lora.clone() {
        Some(wanted) => {
            let found = peft::read_config(dir)?;
            if !found.same_shape(&wanted) {
                return Err(Error::model(format!(
                    "{}: its adapter has {}, the config asks for {}",
                    dir.display(),
                    found.describe(),
                    wanted.describe()
                ))
                .hint("set [lora] as in the checkpoint"));
            }
            peft::load_adapter(&mut model.llama, dir)?;
            model.llama.set_lora_dropout(wanted.dropout);
        }
        None if dir.join(peft::CONFIG).is_file() => peft::load_adapter(&mut model.llama, dir)?,
        None => {
            let stored = source::open(dir)?;
            let dtype = model.llama.embed_tokens.dtype();
            let llama = Llama::load(&stored, dtype, &device)?;
            if !llama.config.same_architecture(&model.llama.config) {
                return Err(Error::model(format!("{} holds a model of another shape than the base", dir.display()))
                    .hint("set model.base to the model that it was trained from"));
            }
            model.llama = llama;
        }
    }
    model.head = head;
    Ok(())
}

/// Writes the model's files of a checkpoint: adapter (or, under `Parameters::Full`, the HF folder), head,
/// `clsgen.json`.
pub fn write_model_files(
    dir: &AtomicDir,
    model: &Model,
    source: &ModelSource,
    info: &ClsgenJson,
    parameters: Parameters,
) -> Result<()> {
    match parameters {
        Parameters::Lora => peft::write_adapter(dir, &model.llama, &info.base_model)?,
        Parameters::Full => write_folder(dir, &model.llama, Some(source), DType::F32)?,
    }
    let tensors = model.head.tensors().map(|(name, tensor)| (name.to_string(), tensor.clone())).into();
    peft::write_tensors(dir, HEAD, &tensors)?;
    dir.write_file(INFO, &storage::json(info)?)
}

/// Writes a standard HF folder: weights as `dtype` (f32 or bf16), config, and the tokenizer files of `source`.
pub fn write_folder(dir: &AtomicDir, llama: &Llama, source: Option<&ModelSource>, dtype: DType) -> Result<()> {
    let mut tensors = llama.base_tensors();
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_dtype(dtype)?;
    }
    peft::write_tensors(dir, "model.safetensors", &tensors)?;
    dir.write_file("config.json", format!("{:#}\n", llama.config.to_json(dtype)).as_bytes())?;
    source.map_or(Ok(()), |source| write_tokenizer(dir, source))
}

/// Writes the tokenizer files of `source`, its chat template and generation config.
pub(super) fn write_tokenizer(dir: &AtomicDir, source: &ModelSource) -> Result<()> {
    for name in TOKENIZER_FILES {
        let path = source.tokenizer_path().join(name);
        if !path.is_file() {
            continue;
        }
        let bytes = foreign::read(&path, foreign::LARGE)
            .map_err(|e| Error::model(format!("cannot read {}: {}", path.display(), reason(&e))))?;
        dir.write_file(name, &bytes)?;
    }
    // A .gguf file alone holds its tokenizer: the folder gets it as Hugging Face's files.
    match Some(source.tokenizer_path()).filter(|path| path.is_file()) {
        Some(gguf) => {
            TokenizerFiles::from_gguf(gguf)?.named().try_for_each(|(name, bytes)| dir.write_file(name, bytes))
        }
        None => Ok(()),
    }
}

/// A directory with a manifest must match it; one without was made by another tool.
fn check_manifest(dir: &Path) -> Result<()> {
    if !verify_manifest(dir)? {
        tracing::warn!("{} has no {MANIFEST}: made by another tool, its files cannot be verified", dir.display());
    }
    Ok(())
}

fn holds_weights(dir: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| dir.join(name).is_file())
}

/// The base model that a checkpoint names, or that `lookup` does, its files not read.
pub fn resolve_base(dir: &Path, info: &ClsgenJson, lookup: BaseLookup<'_>) -> Result<ModelSource> {
    let wanted = lookup.base.unwrap_or(&info.base_model);
    let search: Vec<&Path> = [dir].into_iter().chain(lookup.search.iter().copied()).collect();
    resolve(wanted, if lookup.base.is_some() { &search[1..] } else { &search }, lookup.allow_network)
        .map_err(|e| e.context(format!("base model of {}", dir.display())))
}

/// The base model the adapter was trained on: found, and of the hash written down.
pub fn find_base(dir: &Path, info: &ClsgenJson, lookup: BaseLookup<'_>) -> Result<ModelSource> {
    let source = resolve_base(dir, info, lookup)?;
    let wanted = lookup.base.unwrap_or(&info.base_model);
    check_tokenizer(dir, info, &source)?;
    let Some(expected) = &info.base_hash else {
        let wanted = foreign::name(wanted);
        tracing::warn!("{INFO} names no base_hash: that {wanted} is the right base cannot be checked");
        return Ok(source);
    };
    let hash = source.hash()?;
    if &hash != expected {
        return Err(Error::model(format!(
            "{} was trained on another base than {wanted}: its weights hash to {}…, {}… expected",
            dir.display(),
            &hash[..12],
            foreign::name(expected.get(..12).unwrap_or("no hash"))
        ))
        .hint("set model.base to the model it was trained on"));
    }
    Ok(source)
}

/// Refuses (exit 4) another tokenizer, chat template or generation config than the checkpoint was trained with: every
/// prompt's ids would be others, and nothing would say so.
fn check_tokenizer(dir: &Path, info: &ClsgenJson, source: &ModelSource) -> Result<()> {
    static WARNED: Once = Once::new();
    let path = source.tokenizer_path();
    let Some(expected) = &info.tokenizer_hash else {
        WARNED.call_once(|| {
            tracing::warn!(
                "{} names no tokenizer_hash (an older clsgen wrote it): that {} holds the tokenizer and chat template \
                of its training \
                 cannot be checked",
                dir.join(INFO).display(),
                path.display()
            );
        });
        return Ok(());
    };
    let hash = TokenizerFiles::load(path)?.hash();
    if &hash == expected {
        return Ok(());
    }
    Err(Error::model(format!(
        "{} was trained with another tokenizer, chat template or generation_config than {} holds: they hash to {}…, \
        {}… expected",
        dir.display(),
        path.display(),
        &hash[..12],
        foreign::name(expected.get(..12).unwrap_or("no hash"))
    ))
    .hint("put the files back as they were, or set model.base to a folder that holds them"))
}

fn read_head(dir: &Path, info: &ClsgenJson, hidden_size: usize, device: &Device) -> Result<ClsHead> {
    head_of(dir, info, hidden_size, device).or_hint(
        "is model.base the model that it was trained from? Else the checkpoint is damaged: name another of the run's",
    )
}

fn head_of(dir: &Path, info: &ClsgenJson, hidden_size: usize, device: &Device) -> Result<ClsHead> {
    let shape = &info.head;
    let path = dir.join(HEAD);
    if !path.is_file() {
        return Err(Error::model(format!("{}: the classification head is missing", path.display())));
    }
    let file = SafetensorsFile::open(&path)?;
    let shapes = head::shapes(hidden_size, shape.hidden, info.labels.count());
    if let Some(name) = file.entries.keys().find(|name| !shapes.iter().any(|(known, _)| known == name)) {
        return Err(Error::model(format!("{}: tensor {} is unexpected", path.display(), foreign::name(name))));
    }
    let [dense_weight, dense_bias, out_weight, out_bias] = shapes.map(|(name, shape)| {
        match file.entries.get(name) {
            Some(entry) if entry.shape != shape => {
                return Err(Error::model(format!(
                    "{}: tensor {name} has shape {:?}, {shape:?} expected",
                    path.display(),
                    entry.shape
                )));
            }
            _ => {}
        }
        file.tensor(name, DType::F32, device)
    });
    ClsHead::from_tensors([dense_weight?, dense_bias?, out_weight?, out_bias?], shape.activation, shape.dropout)
}
