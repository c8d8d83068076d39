//! Launches of `b_gradient.cu`: dB of all sequences at once, where cuBLAS is called for each in turn.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::{RANKS, THREADS, added, asked, chunks_of, groups};
use crate::error::{Error, Result};
use crate::ops::Offsets;
use crate::ops::cuda::{Launch, address_of_rows, device_of, uninit, upload};

/// Rows of a chunk, and channels of a block.
const TOKENS: usize = 512;
const CHANNELS: usize = 128;

/// Whether the kernel is asked for and takes these.
pub(in crate::ops::lora) fn fuses_b(dy: &Tensor, u: &Tensor) -> bool {
    let strips = |u: &Tensor| matches!(*u.stride(), [stride, 1] if stride % 2 == 0);
    asked(dy)
        && u.dtype() == DType::BF16
        && matches!((dy.dims(), u.dims()), (&[_, width], &[_, rank]) if width % 4 == 0 && RANKS.contains(&rank))
        && strips(u)
}

/// `sum + dyᵀ u`: `dy (tokens, out)`, `u (tokens, rank)`, perhaps a strip of a wider tensor's columns, `sum (out,
/// rank)`.
pub(in crate::ops::lora) fn b_gradient(
    mut sum: Option<Tensor>,
    dy: &Tensor,
    u: &Tensor,
    offsets: &Offsets,
) -> Result<Option<Tensor>> {
    let (rows, rank) = u.dims2()?;
    let width = dy.dim(1)?;
    if offsets.total() != rows || dy.dim(0)? != rows {
        return Err(Error::run(format!(
            "lora: gradients of shape {:?} that do not fit {:?} of {} rows",
            dy.dims(),
            u.dims(),
            offsets.total()
        )));
    }
    let device = device_of(dy)?;
    let dy = dy.contiguous()?;
    let (_, stride) = address_of_rows(u)?;
    let starts = offsets.starts();
    // No more than a quarter of what dy takes.
    for group in groups(offsets, TOKENS, rows / (8 * rank)) {
        let lengths = chunks_of(offsets, &group, TOKENS);
        let chunks = Offsets::from_lengths(&lengths);
        let partial = uninit(&device, (1, chunks.total(), width, rank), DType::F32)?;
        let chunk_starts = upload(&device, &chunks.starts())?;
        let kernel = Launch::new(&device, "lora/b_gradient", &format!("lora_b_gradient_r{rank}"))?
            .tensor(&dy)?
            .rows(u)?
            .tensor(&partial)?
            .tensor(&upload(&device, &starts[group.start..=group.end])?)?
            .tensor(&chunk_starts)?
            .u32(width)?
            .u32(stride)?;
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let grid = [width.div_ceil(CHANNELS) as u32, longest as u32, group.len() as u32];
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { kernel.run(grid, THREADS, 0) }?;
        sum = Some(added(sum.as_ref(), &partial, &chunk_starts, group.len())?);
    }
    Ok(sum)
}
