//! Launches of `kernels.cu`. Shapes are checked by the caller. Blocks are bf16, whatever type the model computes in:
//! attention's products take bf16.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use candle_core::{DType, Tensor};

use super::{BLOCK, PagedBatch, PagedSequence};
use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, address, device_of, suffix, uninit, upload_u64};

const THREADS: u32 = 128;
const FILE: &str = "kv_store/kernels";
const BF16: u64 = 2;

/// Addresses of tokens' places in their blocks, on the device: uploaded where a layer first asks for them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    new: OnceLock<Tensor>,
    all: OnceLock<Tensor>,
}

pub(super) fn store(step: &PagedBatch<'_>, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
    let (tokens, kv_heads, d) = k.dims3()?;
    let slots = table(step, &step.tables.new, first_new)?;
    let kernel = Launch::new(&device_of(k)?, FILE, &format!("kv_store_{}", suffix(k.dtype())?))?
        .tensor(&k.contiguous()?)?
        .tensor(&v.to_dtype(k.dtype())?.contiguous()?)?
        .tensor(&slots)?
        .u32(kv_heads)?
        .u32(d)?
        .u32(step.layout.width)?
        .u64(step.layout.layer(layer) as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([tokens as u32, 2, 1], THREADS, 0) }
}

pub(super) fn gather(step: &PagedBatch<'_>, layer: usize, d: usize) -> Result<(Tensor, Tensor)> {
    let device = device_of(step.rows[0].blocks[0])?;
    let kv_heads = step.layout.kv_heads;
    let tokens = step.rows.iter().map(|row| row.len).sum::<usize>();
    let out = || uninit(&device, (tokens, kv_heads, d), DType::BF16);
    let k = out()?;
    let v = out()?;
    let kernel = Launch::new(&device, FILE, "kv_gather")?
        .tensor(&k)?
        .tensor(&v)?
        .tensor(&table(step, &step.tables.all, |_| 0)?)?
        .u32(kv_heads)?
        .u32(d)?
        .u32(step.layout.width)?
        .u64(step.layout.layer(layer) as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([tokens as u32, 2, 1], THREADS, 0) }?;
    Ok((k, v))
}

impl PagedBatch<'_> {
    /// Addresses of the new tokens' places in their blocks, in layer 0.
    pub(crate) fn slots_of_new(&self) -> Result<Vec<u64>> {
        slots(self, first_new)
    }

    /// The same sequences, whose [`PagedBatch::slots_of_new`] will be found at this place, `(2 new tokens)` u32.
    pub(crate) fn with_slots_of_new(&self, place: Tensor) -> Self {
        let tables = Tables { new: OnceLock::from(place), all: OnceLock::new() };
        Self { rows: self.rows.clone(), layout: self.layout, runs: Vec::new(), tables }
    }
}

fn first_new(row: &PagedSequence<'_>) -> usize {
    row.len - row.new
}

/// Where each row's tokens from its `first` on lie, in layer 0, on the device.
fn table(
    step: &PagedBatch<'_>,
    held: &OnceLock<Tensor>,
    first: impl Fn(&PagedSequence<'_>) -> usize,
) -> Result<Tensor> {
    if let Some(table) = held.get() {
        return Ok(table.clone());
    }
    let table = upload_u64(&device_of(step.rows[0].blocks[0])?, &slots(step, first)?)?;
    Ok(held.get_or_init(|| table).clone())
}

fn slots(step: &PagedBatch<'_>, first: impl Fn(&PagedSequence<'_>) -> usize) -> Result<Vec<u64>> {
    if step.layout.dtype != DType::BF16 {
        return Err(Error::run(format!("blocks of keys and values on CUDA are bf16, not {:?}", step.layout.dtype)));
    }
    let mut slots = Vec::new();
    for row in &step.rows {
        let from = first(row);
        for (i, block) in row.blocks.iter().enumerate().skip(from / BLOCK) {
            let start = address(block)?;
            let tokens = from.max(i * BLOCK)..row.len.min((i + 1) * BLOCK);
            slots.extend(tokens.map(|token| start + (token % BLOCK * step.layout.width) as u64 * BF16));
        }
    }
    Ok(slots)
}
