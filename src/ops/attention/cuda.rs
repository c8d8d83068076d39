//! Attention on a CUDA device: launches of `forward.cu`, `backward_*.cu` and `decode*.cu`, which say how they work.
//!
//! Products take bf16 and sum in f32; softmax and log-sum-exp are f32; what is returned has the queries' type. Kernels
//! exist for heads of 64 and 128 channels; others are padded with zeros, which changes neither scores nor outputs
//! (cached keys and values are held so). Forward takes `forward_90.cu`, by wgmma, on a Hopper card (9.0), unless
//! `CLSGEN_ATTENTION=mma` asks for mma.sync everywhere; all other cards take `forward.cu`. Backward:
//! `cuda/backward.rs`. Decoding reads the keys of each row for it alone unless `CLSGEN_DECODE=shared` asks that those
//! which several rows have be read once for all of them; that has not yet run on a card.
#![allow(unsafe_code)]

mod backward;
mod table;

use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{DType, Tensor};

use super::shared::{CHUNK, QUERIES};
use super::{Dims, Offsets};
use crate::error::{Error, Result};
use crate::ops::cuda::{ATTENTION, Launch, device_of, uninit, upload};
use crate::ops::kv_store::{BLOCK, Layout, kernel_width};

pub(super) use backward::backward;
pub(crate) use table::BlockTable;

/// Queries of a block of `forward.cu` and of `backward_q.cu`; keys of one of `backward_kv.cu`.
const ROWS: usize = 128;
/// Rows that meet a block's own at a time.
const STEP: usize = 64;
/// Query heads a kv head may have in `decode.cu`: the rows of an mma.
const MOST_HEADS: usize = 16;
const BF16: usize = 2;

/// Channels of the kernels that serve heads of `d` channels.
fn width(d: usize) -> Result<usize> {
    kernel_width(d).ok_or_else(|| Error::run(format!("attention on CUDA: head_dim {d} is more than 128")))
}

/// `(tokens, heads, width)` in bf16, side by side.
fn operand(x: &Tensor, width: usize) -> Result<Tensor> {
    let x = x.to_dtype(DType::BF16)?;
    let d = x.dim(2)?;
    Ok(if d == width { x.contiguous()? } else { x.pad_with_zeros(2, 0, width - d)?.contiguous()? })
}

/// A kernel's result without the padding, in the type of `like`.
fn result(x: Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(x.narrow(2, 0, like.dim(2)?)?.contiguous()?.to_dtype(like.dtype())?)
}

/// Kernels take powers of 2 for powers of e.
fn log2_scale(scale: f32) -> f32 {
    scale * std::f32::consts::LOG2_E
}

/// Blocks of `size` rows for the longest sequence; the kernels return at once where a sequence has fewer.
fn blocks(offsets: &Offsets, size: usize) -> u32 {
    offsets.ranges().map(|range| range.len().div_ceil(size)).max().unwrap_or(0) as u32
}

/// Whether this card has wgmma.
pub(super) fn has_wgmma(device: &CudaDevice) -> Result<bool> {
    Ok(device.cuda_stream().context().compute_capability().w()? == (9, 0))
}

/// Whether a pass that can be by wgmma is.
fn by_wgmma(device: &CudaDevice) -> Result<bool> {
    Ok(has_wgmma(device)? && ATTENTION.takes_first())
}

/// The forward kernel's file, its name, its threads and what it takes of shared memory beyond its tiles.
fn forward_kernel(device: &CudaDevice) -> Result<(&'static str, &'static str, u32, usize)> {
    Ok(if by_wgmma(device)? {
        ("attention/forward_90", "attention_forward_90", 256, 1024)
    } else {
        ("attention/forward", "attention_forward", 128, 0)
    })
}

/// `(out, lse)`.
pub(super) fn forward(
    [q, k, v]: [&Tensor; 3],
    dims: Dims,
    [q_offsets, kv_offsets]: [&Offsets; 2],
    scale: f32,
) -> Result<(Tensor, Tensor)> {
    let device = device_of(q)?;
    let width = width(dims.d)?;
    let tq = q_offsets.total();
    let out = uninit(&device, (tq, dims.heads, width), DType::BF16)?;
    let lse = uninit(&device, (dims.heads, tq), DType::F32)?;
    let (file, name, threads, more) = forward_kernel(&device)?;
    let kernel = Launch::new(&device, file, &format!("{name}_d{width}"))?
        .tensor(&operand(q, width)?)?
        .tensor(&operand(k, width)?)?
        .tensor(&operand(v, width)?)?
        .tensor(&out)?
        .tensor(&lse)?
        .tensor(&upload(&device, &q_offsets.starts())?)?
        .tensor(&upload(&device, &kv_offsets.starts())?)?
        .u32(dims.heads)?
        .u32(dims.kv_heads)?
        .u32(tq)?
        .f32(log2_scale(scale));
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe {
        kernel.run(
            [dims.heads as u32, blocks(q_offsets, ROWS), q_offsets.count() as u32],
            threads,
            (ROWS + 2 * STEP) * width * BF16 + more,
        )
    }?;
    Ok((result(out, q)?, lse))
}

/// `(rows, heads, d)` of one query a row.
pub(super) fn decode(
    q: &Tensor,
    table: &BlockTable,
    dims: Dims,
    layout: Layout,
    layer: usize,
    scale: f32,
) -> Result<Tensor> {
    let Dims { heads, kv_heads, d } = dims;
    if heads / kv_heads > MOST_HEADS {
        return Err(Error::run(format!(
            "attention on CUDA: {} query heads a kv head are more than {MOST_HEADS}",
            heads / kv_heads
        )));
    }
    if layout.dtype != DType::BF16 {
        return Err(Error::run(format!("blocks of keys and values on CUDA are bf16, not {:?}", layout.dtype)));
    }
    let device = device_of(q)?;
    let width = width(d)?;
    let n = table.count;
    let chunks = table.longest.div_ceil(CHUNK);
    let partial_o = uninit(&device, (n, heads, chunks, width), DType::F32)?;
    let partial_ml = uninit(&device, (n, heads, chunks, 2), DType::F32)?;
    let out = uninit(&device, (n, heads, width), DType::BF16)?;
    let (name, grid, queries) = match table.shared {
        Some((_, _, items)) => ("attention_decode_shared", [items, kv_heads, 1], QUERIES),
        None => ("attention_decode", [n, kv_heads, chunks], MOST_HEADS),
    };
    let mut kernel = Launch::new(&device, "attention/decode", &format!("{name}_d{width}"))?
        .tensor(&operand(q, width)?)?
        .tensor(&table.rows)?
        .tensor(&table.blocks)?;
    if let Some((items, members, _)) = &table.shared {
        kernel = kernel.tensor(items)?.tensor(members)?.u32(chunks)?;
    }
    kernel = kernel
        .tensor(&partial_o)?
        .tensor(&partial_ml)?
        .u32(heads)?
        .u32(kv_heads)?
        .u64(layout.layer(layer) as u64)
        .f32(log2_scale(scale));
    // Two tiles of 16 keys and values for each of 4 warps; the chunk's blocks; of each query its number, and maxima and
    // sums of 4 warps.
    let of_queries = queries * (1 + 2 * 4) * size_of::<f32>();
    let shared = 4 * 4 * 16 * width * BF16 + CHUNK / BLOCK * size_of::<u64>() + of_queries;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run(grid.map(|n| n as u32), 128, shared) }?;
    let kernel = Launch::new(&device, "attention/decode_merge", &format!("attention_decode_merge_d{width}"))?
        .tensor(&partial_o)?
        .tensor(&partial_ml)?
        .tensor(&table.rows)?
        .tensor(&out)?
        .u32(heads)?
        .u32(chunks)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([heads as u32, n as u32, 1], width as u32, 0) }?;
    result(out, q)
}
