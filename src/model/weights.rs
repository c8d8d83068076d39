//! From weight files to the tensors of a [`LlamaConfig`](super::LlamaConfig): each there once, well shaped, finite; nothing else there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::{
    LlamaConfig, ModelSource, gguf,
    mmap::huge_zeros,
    safetensors::SafetensorsFile,
    source::{Weights, read_index},
};
use crate::{
    device,
    error::{Error, Result},
};

/// Names shown of a long list.
const SHOWN: usize = 5;

/// Every tensor of a model, by its HF name, with its shape.
pub fn shapes(config: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let mut all = vec![("model.embed_tokens.weight".to_string(), vec![config.vocab_size, hidden])];
    for i in 0..config.num_hidden_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.push((format!("model.layers.{i}.{norm}.weight"), vec![hidden]));
        }
        let mut linear = |name: &str, out: usize, input: usize, bias: bool| {
            all.push((format!("model.layers.{i}.{name}.weight"), vec![out, input]));
            if bias {
                all.push((format!("model.layers.{i}.{name}.bias"), vec![out]));
            }
        };
        linear("self_attn.q_proj", q, hidden, config.attention_bias);
        linear("self_attn.k_proj", kv, hidden, config.attention_bias);
        linear("self_attn.v_proj", kv, hidden, config.attention_bias);
        linear("self_attn.o_proj", hidden, q, config.attention_bias);
        linear("mlp.gate_proj", ffn, hidden, config.mlp_bias);
        linear("mlp.up_proj", ffn, hidden, config.mlp_bias);
        linear("mlp.down_proj", hidden, ffn, config.mlp_bias);
    }
    all.push(("model.norm.weight".to_string(), vec![hidden]));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_string(), vec![config.vocab_size, hidden]));
    }
    all
}

/// Bytes the weights take in memory.
pub fn bytes(config: &LlamaConfig, dtype: DType) -> u64 {
    shapes(config).iter().map(|(_, shape)| elements(shape) * stored(dtype, shape).size_in_bytes() as u64).sum()
}

/// Numbers in all tensors.
pub fn count(config: &LlamaConfig) -> u64 {
    shapes(config).iter().map(|(_, shape)| elements(shape)).sum()
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&n| n as u64).product()
}

/// Matrices are held as asked, vectors (norms, biases) in f32.
fn stored(dtype: DType, shape: &[usize]) -> DType {
    if shape.len() == 1 { DType::F32 } else { dtype }
}

/// Reads every tensor of `config`, or says all that is wrong.
pub(super) fn load(source: &ModelSource, config: &LlamaConfig, dtype: DType, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    if !matches!(dtype, DType::F32 | DType::BF16) {
        return Err(Error::run(format!("weights cannot be held as {dtype:?}")));
    }
    let tensors = match &source.weights {
        Weights::Gguf(path) => gguf::load(path, config, |shape| stored(dtype, shape), device),
        Weights::Safetensors(files) => from_safetensors(&source.path, files, config, dtype, device),
    }?;
    if device.is_cpu() { in_huge_pages(tensors) } else { Ok(tensors) }
}

/// Bytes of weights that are moved into one buffer.
pub(super) const TOGETHER: usize = 64 << 20;

/// The bf16 tensors side by side in a few large buffers, since a single one is often smaller than a huge page. (f32 tensors may be
/// trained, so each keeps a storage of its own.)
fn in_huge_pages(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let (mut frozen, mut moved): (BTreeMap<_, _>, BTreeMap<_, _>) = tensors.into_iter().partition(|(_, t)| t.dtype() == DType::BF16);
    while !frozen.is_empty() {
        let (mut group, mut count) = (Vec::new(), 0);
        while count * size_of::<bf16>() < TOGETHER {
            let Some((name, tensor)) = frozen.pop_first() else { break };
            count += tensor.elem_count();
            group.push((name, tensor));
        }
        let mut buffer = huge_zeros(count);
        let mut rest = buffer.as_mut_slice();
        for (_, tensor) in &group {
            let (to, after) = rest.split_at_mut(tensor.elem_count());
            to.copy_from_slice(&tensor.flatten_all()?.to_vec1::<bf16>()?);
            rest = after;
        }
        let (buffer, mut start) = (Tensor::from_vec(buffer, count, &Device::Cpu)?, 0);
        for (name, tensor) in group {
            let at = buffer.narrow(0, start, tensor.elem_count())?;
            start += tensor.elem_count();
            moved.insert(name, at.reshape(tensor.shape())?);
        }
    }
    Ok(moved)
}

/// One tensor of a model of any architecture, in f32: the one called `name`, or `<prefix>.name` where exactly one is.
pub fn read_one(source: &ModelSource, name: &str, device: &Device) -> Result<Tensor> {
    let dir = source.path.display();
    let Weights::Safetensors(paths) = &source.weights else {
        return Err(Error::model(format!("{dir}: {name} is read from safetensors files only")));
    };
    let mut found = Vec::new();
    for file in paths.iter().map(|path| SafetensorsFile::open(path)) {
        let file = file?;
        let fits = |key: &&String| key.strip_suffix(name).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        for key in file.entries.keys().filter(fits) {
            // As it is read, and once more where the caller wants its numbers.
            let need = 2 * elements(&file.entries[key].shape) * DType::F32.size_in_bytes() as u64;
            device::check_memory(need, device::memory_available(), &format!("{dir}: {name}"))
                .map_err(|error| error.hint("a smaller table would fit, or more memory"))?;
            found.push(file.tensor(key, DType::F32, device)?);
        }
    }
    match found.as_slice() {
        [tensor] => Ok(tensor.clone()),
        found => Err(Error::model(format!("{dir}: {} tensors are called {name}, one is wanted", found.len()))),
    }
}

fn from_safetensors(
    dir: &Path,
    paths: &[PathBuf],
    config: &LlamaConfig,
    dtype: DType,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let files: Vec<SafetensorsFile> = paths.iter().map(|path| SafetensorsFile::open(path)).collect::<Result<_>>()?;
    let mut found: BTreeMap<&str, (&SafetensorsFile, &[usize])> = BTreeMap::new();
    for file in &files {
        for (name, entry) in &file.entries {
            if let Some((other, _)) = found.insert(name, (file, &entry.shape)) {
                return Err(Error::model(format!("tensor {name} is in both {} and {}", other.path.display(), file.path.display())));
            }
        }
    }
    let expected = shapes(config);
    let found_shapes = found.iter().map(|(name, (_, shape))| (*name, *shape)).collect();
    check_names(&expected, &found_shapes, config).map_err(|e| e.context(dir.display()))?;
    check_index(dir, &files)?;
    let read = |(name, shape): &(String, Vec<usize>)| {
        let (file, _) = found.get(name.as_str()).ok_or_else(|| Error::model(format!("tensor {name} is missing")))?;
        Ok((name.clone(), file.tensor(name, stored(dtype, shape), device)?))
    };
    let results: Vec<Result<(String, Tensor)>> = expected.par_iter().map(read).collect();
    gather(results)
}

/// The tensors, or one error that tells of the first few failures.
pub(super) fn gather(results: Vec<Result<(String, Tensor)>>) -> Result<BTreeMap<String, Tensor>> {
    let (tensors, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let messages: Vec<String> = errors.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
    if messages.is_empty() { Ok(tensors.into_iter().flatten().collect()) } else { Err(Error::model(list(messages, "; "))) }
}

/// Compares the tensors found with those expected; ignores, with a warning, what is known to be superfluous.
pub(super) fn check_names(expected: &[(String, Vec<usize>)], found: &BTreeMap<&str, &[usize]>, config: &LlamaConfig) -> Result<()> {
    let mut problems = Vec::new();
    let missing: Vec<String> = expected.iter().map(|(name, _)| name).filter(|name| !found.contains_key(name.as_str())).cloned().collect();
    if !missing.is_empty() {
        problems.push(format!("missing tensors: {}", list(missing, ", ")));
    }
    let misshapen = expected.iter().filter_map(|(name, shape)| {
        let has = found.get(name.as_str())?;
        (*has != shape.as_slice()).then(|| format!("{name} has shape {has:?}, {shape:?} expected"))
    });
    let misshapen: Vec<String> = misshapen.collect();
    if !misshapen.is_empty() {
        problems.push(format!("misshapen tensors: {}", list(misshapen, "; ")));
    }
    let known: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let (ignored, unexpected): (Vec<&str>, Vec<&str>) =
        found.keys().filter(|name| !known.contains(*name)).partition(|name| superfluous(name, config));
    if !unexpected.is_empty() {
        problems.push(format!("unexpected tensors: {}", list(unexpected.into_iter().map(String::from).collect(), ", ")));
    }
    if !problems.is_empty() {
        return Err(Error::model(problems.join("; ")).hint("do config.json and the weights belong to the same Llama model?"));
    }
    if !ignored.is_empty() {
        tracing::warn!("ignored tensors: {}", list(ignored.into_iter().map(String::from).collect(), ", "));
    }
    Ok(())
}

/// Tensors old exports carry and no Llama needs.
fn superfluous(name: &str, config: &LlamaConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")
}

/// Each tensor lies in the shard the index says.
fn check_index(dir: &Path, files: &[SafetensorsFile]) -> Result<()> {
    let Some(index) = read_index(dir)? else { return Ok(()) };
    for (tensor, file) in index {
        let holds = |f: &&SafetensorsFile| f.path.file_name().is_some_and(|name| name.to_string_lossy() == file);
        if !files.iter().find(holds).is_some_and(|f| f.entries.contains_key(&tensor)) {
            return Err(Error::model(format!("{}: the index puts tensor {tensor} into {file}, which does not hold it", dir.display())));
        }
    }
    Ok(())
}

/// The first few of a list, and how many more there are.
fn list(items: Vec<String>, separator: &str) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let shown = items.into_iter().take(SHOWN).collect::<Vec<_>>().join(separator);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
