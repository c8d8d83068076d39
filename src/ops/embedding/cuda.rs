//! Launches of `kernels.cu`. Ids and shapes are checked by the caller.
#![allow(unsafe_code)]

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::ops::Indices;
use crate::ops::cuda::{Launch, device_of, suffix, uninit, upload};

const FILE: &str = "embedding/kernels";
const THREADS: u32 = 256;

/// In the table's type.
pub(super) fn forward(weight: &Tensor, ids: Indices<'_>) -> Result<Tensor> {
    let device = device_of(weight)?;
    let hidden = weight.dim(1)?;
    let rows = ids.values().len();
    let y = uninit(&device, (rows, hidden), weight.dtype())?;
    let kernel = Launch::new(&device, FILE, &format!("embedding_forward_{}", suffix(weight.dtype())?))?
        .tensor(&weight.contiguous()?)?
        .tensor(&ids.on_device(&device)?)?
        .tensor(&y)?
        .u32(hidden)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([rows as u32, 1, 1], THREADS, 0) }?;
    Ok(y)
}

/// f32.
pub(super) fn backward(vocab: usize, ids: &[u32], dy: &Tensor) -> Result<Tensor> {
    let device = device_of(dy)?;
    let hidden = dy.dim(1)?;
    let mut rows_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (row, &id) in ids.iter().enumerate() {
        rows_of.entry(id).or_default().push(row as u32);
    }
    let mut starts = vec![0u32];
    starts.extend(rows_of.values().scan(0, |end, rows| {
        *end += rows.len() as u32;
        Some(*end)
    }));
    let (occurring, rows): (Vec<u32>, Vec<Vec<u32>>) = rows_of.into_iter().unzip();
    let dweight = Tensor::zeros((vocab, hidden), DType::F32, dy.device())?;
    let kernel = Launch::new(&device, FILE, "embedding_backward_f32")?
        .tensor(&dy.to_dtype(DType::F32)?.contiguous()?)?
        .tensor(&upload(&device, &occurring)?)?
        .tensor(&upload(&device, &starts)?)?
        .tensor(&upload(&device, &rows.concat())?)?
        .tensor(&dweight)?
        .u32(hidden)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([occurring.len() as u32, 1, 1], THREADS, 0) }?;
    Ok(dweight)
}
