//! The safetensors format, read with suspicion: `u64 header length | JSON header | data`.
//!
//! The header must be small, name each tensor once, and its tensors must cover the data without gap or overlap.
//! Values are copied out as f32 or bf16 and must be finite.

use std::{
    collections::{BTreeMap, btree_map::Entry as Slot},
    fmt,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use super::mmap::{self, Mapped};
use crate::{
    error::{Error, Result},
    foreign,
    storage::{self, Writer},
};

/// Largest header taken: a 70-billion-parameter Llama's has 0.1 MB.
const MAX_HEADER: u64 = 16 << 20;

/// Dimensions of a tensor at most; a Llama's have two.
const MAX_DIMS: usize = 8;

/// Values that are written at once.
const BLOCK: usize = 1 << 14;

/// One tensor of the header.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Entry {
    pub dtype: String,
    pub shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// A mapped file and its checked header.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    pub path: PathBuf,
    map: Mapped,
    data: usize,
    pub entries: BTreeMap<String, Entry>,
}

/// The header: every tensor once, `__metadata__` skipped.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to dtype, shape and data_offsets")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match entries.entry(name) {
                        Slot::Vacant(free) => free.insert(map.next_value()?),
                        Slot::Occupied(held) => {
                            let name = foreign::name(held.key());
                            return Err(M::Error::custom(format!("tensor {name} is there twice")));
                        }
                    };
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl SafetensorsFile {
    /// Maps a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let map = mmap::map(path)?;
        let damaged = |what: String| {
            Error::model(format!("{}: {what}", path.display()))
                .hint("the file is damaged or incomplete: fetch it again")
        };
        let length: [u8; 8] = map
            .get(..8)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| damaged("truncated: no safetensors header".into()))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(damaged(format!("a safetensors header of {length} bytes is not plausible")));
        }
        let data = 8 + length as usize;
        let header = map
            .get(8..data)
            .ok_or_else(|| damaged(format!("truncated: {} bytes, the header alone has {data}", map.len())))?;
        let Header(entries) = serde_json::from_slice(header)
            .map_err(|e| damaged(format!("not a safetensors header: {}", foreign::reason(&e))))?;
        check_layout(&entries, map.len() - data).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), map, data, entries })
    }

    /// A tensor's values; errors name file and tensor.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let failed = |what: String| {
            Error::model(format!("{}: tensor {}: {what}", self.path.display(), foreign::name(name)))
                .hint("the file is damaged or of another model: fetch it again, or name another")
        };
        let entry = self.entries.get(name).ok_or_else(|| failed("missing".into()))?;
        let [start, end] = entry.data_offsets;
        let bytes = &self.map[self.data + start..self.data + end];
        let shape = entry.shape.as_slice();
        let not_finite = || failed("holds NaN or infinite values".into());
        let pairs = || bytes.as_chunks::<2>().0.iter();
        if (entry.dtype.as_str(), dtype) == ("BF16", DType::BF16) {
            let values: Vec<bf16> = pairs().map(|b| bf16::from_le_bytes(*b)).collect();
            return if values.iter().all(|v| v.is_finite()) {
                Ok(Tensor::from_vec(values, shape, device)?)
            } else {
                Err(not_finite())
            };
        }
        let values: Vec<f32> = match entry.dtype.as_str() {
            "F32" => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "BF16" => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            "F16" => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            other => {
                return Err(failed(format!("dtype {} is not supported", foreign::name(other)))
                    .hint("weights must be F32, BF16 or F16"));
            }
        };
        to_tensor(values, shape, dtype, device)?.ok_or_else(not_finite)
    }
}

/// Values as a tensor of `dtype` (F32 or BF16); `None` when one is not finite.
pub(super) fn to_tensor(values: Vec<f32>, shape: &[usize], dtype: DType, device: &Device) -> Result<Option<Tensor>> {
    if !values.iter().all(|v| v.is_finite()) {
        return Ok(None);
    }
    if dtype == DType::BF16 {
        let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
        return Ok(if values.iter().all(|v| v.is_finite()) {
            Some(Tensor::from_vec(values, shape, device)?)
        } else {
            None
        });
    }
    Ok(Some(Tensor::from_vec(values, shape, device)?))
}

/// Every tensor's bytes fit its shape, and together they are the data, each byte once.
fn check_layout(entries: &BTreeMap<String, Entry>, length: usize) -> Result<(), String> {
    let mut spans = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [start, end] }) in entries {
        let bytes = match dtype.as_str() {
            "F64" | "I64" | "U64" => 8,
            "F32" | "I32" | "U32" => 4,
            "F16" | "BF16" | "I16" | "U16" => 2,
            _ => 1,
        };
        let size = shape.iter().try_fold(bytes, |product: usize, &n| product.checked_mul(n));
        let name = foreign::name(name);
        let dtype = foreign::name(dtype);
        if shape.len() > MAX_DIMS {
            return Err(format!("tensor {name} has {} dimensions", shape.len()));
        }
        if *start > *end || *end > length {
            return Err(format!("truncated: tensor {name} lies at bytes {start}..{end} of {length}"));
        }
        if size != Some(end - start) {
            return Err(format!("tensor {name} of shape {shape:?} ({dtype}) does not fill its {} bytes", end - start));
        }
        spans.push((*start, *end, name));
    }
    spans.sort_unstable();
    let mut at = 0;
    for (start, end, name) in spans {
        if start != at {
            return Err(format!("tensor {name} overlaps another or leaves a gap before it"));
        }
        at = end;
    }
    if at != length { Err(format!("{} bytes follow the last tensor", length - at)) } else { Ok(()) }
}

/// Every tensor of a file, all of them f32.
pub fn load(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let file = SafetensorsFile::open(path)?;
    if let Some((name, _)) = file.entries.iter().find(|(_, entry)| entry.dtype != "F32") {
        return Err(Error::model(format!("{}: tensor {} is not F32", path.display(), foreign::name(name)))
            .hint("the file is damaged or another program's: put an undamaged copy back"));
    }
    file.entries.keys().map(|name| Ok((name.clone(), file.tensor(name, DType::F32, device)?))).collect()
}

/// A file of f32 and bf16 tensors.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut writer = storage::create(path)?;
    write(&mut writer, tensors)?;
    writer.finish()
}

/// Writes f32 or bf16 tensors, in name order, as transformers and PEFT do (`format: pt`).
pub(super) fn write(writer: &mut Writer, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    write_header(writer, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype(), tensor.dims())))?;
    tensors.values().try_for_each(|tensor| write_values(writer, tensor))
}

/// The header of a file whose tensors follow in this order, bf16 or else f32.
pub(super) fn write_header<'a>(
    writer: &mut Writer,
    tensors: impl Iterator<Item = (&'a str, DType, &'a [usize])>,
) -> Result<()> {
    let mut header = serde_json::Map::from_iter([("__metadata__".to_string(), serde_json::json!({"format": "pt"}))]);
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        let (size, dtype) = if dtype == DType::BF16 { (2, "BF16") } else { (4, "F32") };
        let end = at + shape.iter().product::<usize>() * size;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]});
        header.insert(name.to_owned(), entry);
        at = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    writer.put(&(header.len() as u64).to_le_bytes())?;
    writer.put(&header)
}

/// A tensor's values, in blocks: an embedding's bytes once more would be a gigabyte.
pub(super) fn write_values(writer: &mut Writer, tensor: &Tensor) -> Result<()> {
    let flat = tensor.flatten_all()?;
    if tensor.dtype() == DType::BF16 {
        for block in flat.to_vec1::<bf16>()?.chunks(BLOCK) {
            writer.put(&block.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
    } else {
        for block in flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.chunks(BLOCK) {
            writer.put(&block.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
    }
    Ok(())
}
