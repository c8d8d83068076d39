//! The launch of `kernels.cu`. Shapes are checked by the caller.

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::cuda::{Launch, device_of, suffix, uninit, upload};

const THREADS: u32 = 256;

/// Turns `x (tokens, heads, head_dim)`, bf16 or f32, forward (`sign` 1) or back (−1).
pub(super) fn turn(x: &Tensor, positions: &[u32], inv_freq: &[f32], sign: f32) -> Result<Tensor> {
    let ((tokens, heads, head_dim), device) = (x.dims3()?, device_of(x)?);
    let y = uninit(&device, (tokens, heads, head_dim), x.dtype())?;
    // As words, so that it is remembered as positions are.
    let words: Vec<u32> = inv_freq.iter().map(|f| f.to_bits()).collect();
    Launch::new(&device, "rope/kernels", &format!("rope_{}", suffix(x.dtype())?))?
        .tensor(&x.contiguous()?)?
        .tensor(&y)?
        .tensor(&upload(&device, positions)?)?
        .tensor(&upload(&device, &words)?)?
        .u32(heads)?
        .u32(head_dim / 2)?
        .f32(sign)
        .run([tokens as u32, 1, 1], THREADS, 4 * head_dim)?;
    Ok(y)
}
