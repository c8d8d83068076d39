//! Launches of `b_gradient.cu`: dB of all sequences at once, where cuBLAS is called for each in turn.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::{Group, RANKS, THREADS, added, asked, groups};
use crate::error::{Error, Result};
use crate::ops::Offsets;
use crate::ops::cuda::{Launch, address_of_rows, device_of, uninit};

/// Rows of a chunk.
const TOKENS: usize = 512;

/// Whether the kernel is asked for and takes these.
pub(in crate::ops::lora) fn fuses_b(dy: &Tensor, u: &Tensor) -> bool {
    asked(dy)
        && u.dtype() == DType::BF16
        && matches!((dy.dims(), u.dims()), (&[_, width], &[_, rank]) if width % 4 == 0 && RANKS.contains(&rank))
        && matches!(*u.stride(), [stride, 1] if stride % 2 == 0)
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
    // No more than a quarter of what dy takes.
    for group in groups(offsets, TOKENS, rows / (8 * rank)) {
        let group = Group::new(&device, offsets, group, TOKENS)?;
        let partial = uninit(&device, (1, group.total, width, rank), DType::F32)?;
        let kernel = Launch::new(&device, "lora/b_gradient", &format!("lora_b_gradient_r{rank}"))?
            .tensor(&dy)?
            .rows(u)?
            .tensor(&partial)?
            .tensor(&group.starts)?
            .tensor(&group.chunks)?
            .u32(width)?
            .u32(stride)?;
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { kernel.run(group.grid(width), THREADS, 0) }?;
        sum = Some(added(sum.as_ref(), &partial, &group)?);
    }
    Ok(sum)
}
