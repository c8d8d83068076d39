//! From weight files to the tensors of a [`LlamaConfig`](super::LlamaConfig): each there once, well shaped, finite;
//! nothing else there.

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
    precision::{BaseWeight, Precision},
    safetensors::SafetensorsFile,
    source::{Weights, read_index},
    tensor_spec::{check_names, elements, gather, shapes, stored},
};
use crate::{
    device,
    error::{Error, Result},
    foreign,
};

/// Reads every tensor of `config`, or says all that is wrong.
pub(super) fn load(
    source: &ModelSource,
    config: &LlamaConfig,
    precision: Precision,
    device: &Device,
) -> Result<BTreeMap<String, BaseWeight>> {
    let dtype = precision.dtype;
    if !matches!(dtype, DType::F32 | DType::BF16) {
        return Err(Error::run(format!("weights cannot be held as {dtype:?}")));
    }
    precision.check(device)?;
    let hold = |name: &str, tensor: Tensor| BaseWeight::hold(name, tensor, precision, device);
    let tensors = match &source.weights {
        Weights::Gguf(path) => gguf::load(path, config, |shape| stored(dtype, shape), hold),
        Weights::Safetensors(files) => from_safetensors(&source.path, files, config, dtype, hold),
    }?;
    if device.is_cpu() { in_huge_pages(tensors) } else { Ok(tensors) }
}

/// Bytes of weights that are moved into one buffer.
pub(super) const TOGETHER: usize = 64 << 20;

/// The bf16 tensors side by side in a few large buffers, since a single one is often smaller than a huge page. (f32
/// tensors may be trained, so each keeps a storage of its own.)
fn in_huge_pages(tensors: BTreeMap<String, BaseWeight>) -> Result<BTreeMap<String, BaseWeight>> {
    let mut frozen = BTreeMap::new();
    let mut moved = BTreeMap::new();
    for (name, weight) in tensors {
        match weight {
            BaseWeight::Whole(tensor) if tensor.dtype() == DType::BF16 => drop(frozen.insert(name, tensor)),
            other => drop(moved.insert(name, other)),
        }
    }
    while !frozen.is_empty() {
        let mut group = Vec::new();
        let mut count = 0;
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
        let buffer = Tensor::from_vec(buffer, count, &Device::Cpu)?;
        let mut start = 0;
        for (name, tensor) in group {
            let at = buffer.narrow(0, start, tensor.elem_count())?;
            start += tensor.elem_count();
            moved.insert(name, at.reshape(tensor.shape())?.into());
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
        let fits =
            |key: &&String| key.strip_suffix(name).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        for key in file.entries.keys().filter(fits) {
            // As it is read, and once more where the caller wants its numbers.
            let need = elements(&file.entries[key].shape).saturating_mul(2 * DType::F32.size_in_bytes() as u64);
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
    hold: impl Fn(&str, Tensor) -> Result<BaseWeight> + Sync,
) -> Result<BTreeMap<String, BaseWeight>> {
    let files = open_all(dir, paths, config)?;
    let read = |(name, shape): &(String, Vec<usize>)| {
        let tensor = file_of(&files, name)?.tensor(name, stored(dtype, shape), &Device::Cpu)?;
        Ok((name.clone(), hold(name, tensor)?))
    };
    let results: Vec<Result<(String, BaseWeight)>> = shapes(config).par_iter().map(read).collect();
    gather(results)
}

/// The file that holds a tensor.
pub(super) fn file_of<'a>(files: &'a [SafetensorsFile], name: &str) -> Result<&'a SafetensorsFile> {
    let file = files.iter().find(|file| file.entries.contains_key(name));
    file.ok_or_else(|| Error::model(format!("tensor {name} is missing")))
}

/// The files of a model, which together hold every tensor of `config` once and well shaped, and nothing else.
pub(super) fn open_all(dir: &Path, paths: &[PathBuf], config: &LlamaConfig) -> Result<Vec<SafetensorsFile>> {
    let files: Vec<SafetensorsFile> = paths.iter().map(|path| SafetensorsFile::open(path)).collect::<Result<_>>()?;
    let mut found: BTreeMap<&str, (&SafetensorsFile, &[usize])> = BTreeMap::new();
    for file in &files {
        for (name, entry) in &file.entries {
            if let Some((other, _)) = found.insert(name, (file, &entry.shape)) {
                return Err(Error::model(format!(
                    "tensor {} is in both {} and {}",
                    foreign::name(name),
                    other.path.display(),
                    file.path.display()
                )));
            }
        }
    }
    let found_shapes = found.iter().map(|(name, (_, shape))| (*name, *shape)).collect();
    check_names(&shapes(config), &found_shapes, config).map_err(|e| e.context(dir.display()))?;
    check_index(dir, &files)?;
    Ok(files)
}

/// Each tensor lies in the shard the index says.
fn check_index(dir: &Path, files: &[SafetensorsFile]) -> Result<()> {
    let Some(index) = read_index(dir)? else { return Ok(()) };
    for (tensor, file) in index {
        let holds = |f: &&SafetensorsFile| f.path.file_name().is_some_and(|name| name.to_string_lossy() == file);
        if !files.iter().find(holds).is_some_and(|f| f.entries.contains_key(&tensor)) {
            return Err(Error::model(format!(
                "{}: the index puts tensor {} into {}, which does not hold it",
                dir.display(),
                foreign::name(&tensor),
                foreign::name(&file)
            )));
        }
    }
    Ok(())
}
