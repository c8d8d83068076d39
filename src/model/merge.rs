//! A checkpoint as one HF folder: `W + scaling · B A`, computed in f32 and rounded to bf16 once, tensor by tensor.
//!
//! The layout is that of a checkpoint trained in full (`train.parameters = "full"`), head and `clsgen.json` beside the
//! weights: the folder is a checkpoint itself, and a model of transformers.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device};
use serde_json::{Map, json};

use super::{
    LlamaConfig, ModelSource, adapter,
    checkpoint::{self, ClsgenJson, HEAD, INFO},
    peft,
    safetensors::{self, SafetensorsFile, to_tensor},
    source::Weights,
    tensor_spec::{elements, shapes},
    weights,
};
use crate::{
    config::Quantize,
    error::{Error, Result, ResultExt},
    foreign,
    signals::check_interrupted,
    storage::{self, AtomicDir, reason},
};

/// Bytes of a file of weights at most, but for a tensor that alone has more: transformers' own default.
pub const SHARD: u64 = 5_000_000_000;

/// Bytes of the merged weights.
pub fn bytes(config: &LlamaConfig) -> u64 {
    shapes(config).iter().map(|(_, shape)| size(shape)).sum()
}

fn size(shape: &[usize]) -> u64 {
    elements(shape) * DType::BF16.size_in_bytes() as u64
}

/// Refuses (exit 2) a base whose weights are rounded already.
pub fn check(source: &ModelSource) -> Result<()> {
    match &source.weights {
        Weights::Safetensors(_) => Ok(()),
        Weights::Gguf(path) => Err(Error::usage(format!(
            "{} is a .gguf file: an adapter is merged into the weights of a Hugging Face folder",
            path.display()
        ))
        .hint("name the folder that it was converted from: --set model.base=DIR")),
    }
}

/// A checkpoint and its base, opened: what is read of them later is of this moment, though the checkpoint be replaced
/// meanwhile.
pub struct Opened {
    dir: PathBuf,
    /// `clsgen.json`.
    pub info: ClsgenJson,
    /// Its base or, trained in full, its own weights.
    pub source: ModelSource,
    /// The base's shape.
    pub config: LlamaConfig,
    files: Vec<SafetensorsFile>,
    adapter: Option<(adapter::LoraConfig, SafetensorsFile)>,
    head: Vec<u8>,
}

impl Opened {
    /// Opens the checkpoint in `dir`, over `source`.
    pub fn open(dir: &Path, info: ClsgenJson, source: ModelSource) -> Result<Self> {
        check(&source)?;
        let config = source.config()?;
        let files = match &source.weights {
            Weights::Safetensors(paths) => weights::open_all(&source.path, paths, &config)?,
            Weights::Gguf(_) => Vec::new(),
        };
        let adapter = if dir.join(peft::CONFIG).is_file() { Some(peft::open_adapter(&config, dir)?) } else { None };
        let head = dir.join(HEAD);
        let head = foreign::read(&head, foreign::LARGE)
            .map_err(|e| Error::model(format!("cannot read {}: {}", head.display(), reason(&e))))?;
        Ok(Self { dir: dir.to_owned(), info, source, config, files, adapter, head })
    }
}

/// Writes the merged folder of a checkpoint, in files of `shard` bytes; `done` hears of each tensor.
pub fn write(out: &AtomicDir, opened: &Opened, shard: u64, mut done: impl FnMut()) -> Result<()> {
    let Opened { dir, info, source, config, files, adapter, head } = opened;
    let mut merged = 0;
    let parts = parts(config, shard);
    let mut index = Map::new();
    for (number, part) in parts.iter().enumerate() {
        let name = match parts.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let mut writer = out.writer(&name)?;
        safetensors::write_header(
            &mut writer,
            part.iter().map(|(name, shape)| (name.as_str(), DType::BF16, &shape[..])),
        )?;
        for (tensor, shape) in part {
            check_interrupted()?;
            let file = weights::file_of(files, tensor)?;
            merged += usize::from(write_tensor(&mut writer, file, adapter.as_ref(), (tensor, shape))?);
            index.insert(tensor.clone(), name.clone().into());
            done();
        }
        writer.finish()?;
    }
    if adapter.as_ref().is_some_and(|(_, file)| 2 * merged != file.entries.len()) {
        return Err(Error::model(format!("{}: the adapter is not of this base", dir.display())));
    }
    if parts.len() > 1 {
        let index = json!({ "metadata": { "total_size": bytes(config) }, "weight_map": index });
        out.write_file("model.safetensors.index.json", &storage::json(&index)?)?;
    }
    out.write_file("config.json", format!("{:#}\n", config.to_json(DType::BF16)).as_bytes())?;
    checkpoint::write_tokenizer(out, source)?;
    out.write_file(HEAD, head)?;
    // The weights here are whole, whatever those of the training were.
    let info = ClsgenJson { base_hash: None, quantize: Quantize::None, ..info.clone() };
    out.write_file(INFO, &storage::json(&info)?)
}

/// A tensor, with the adapter's part where it has one; whether it has.
fn write_tensor(
    writer: &mut storage::Writer,
    file: &SafetensorsFile,
    adapter: Option<&(adapter::LoraConfig, SafetensorsFile)>,
    (name, shape): (&str, &[usize]),
) -> Result<bool> {
    let projection = name.strip_suffix(".weight").unwrap_or(name);
    let of_adapter = adapter.filter(|(_, file)| file.entries.contains_key(&adapter::name_a(projection)));
    let Some((config, low_rank)) = of_adapter else {
        return safetensors::write_values(writer, &file.tensor(name, DType::BF16, &Device::Cpu)?).map(|()| false);
    };
    let part = |name: String| low_rank.tensor(&name, DType::F32, &Device::Cpu);
    let product = (part(adapter::name_b(projection))?.matmul(&part(adapter::name_a(projection))?)? * config.scaling())?;
    let sum = (file.tensor(name, DType::F32, &Device::Cpu)? + product)?;
    let rounded = to_tensor(sum.flatten_all()?.to_vec1()?, shape, DType::BF16, &Device::Cpu)?;
    let rounded = rounded.ok_or_else(|| Error::model("holds NaN or infinite values once it is merged"));
    safetensors::write_values(writer, &rounded.context(format!("tensor {name}"))?).map(|()| true)
}

/// The tensors of each file, in the model's order.
fn parts(config: &LlamaConfig, shard: u64) -> Vec<Vec<(String, Vec<usize>)>> {
    let mut parts: Vec<Vec<(String, Vec<usize>)>> = Vec::new();
    let mut held = u64::MAX;
    for (name, shape) in shapes(config) {
        let size = size(&shape);
        match parts.last_mut() {
            Some(part) if held.saturating_add(size) <= shard => {
                held += size;
                part.push((name, shape));
            }
            _ => {
                held = size;
                parts.push(vec![(name, shape)]);
            }
        }
    }
    parts
}

/// Whether these names have what a merged folder has, others among them perhaps, and nothing of a training's
/// checkpoint.
pub fn is_one(names: &BTreeSet<String>) -> bool {
    [INFO, HEAD, "config.json", storage::MANIFEST].iter().all(|name| names.contains(*name))
        && ![peft::CONFIG, "trainer.json"].iter().any(|name| names.contains(*name))
}
