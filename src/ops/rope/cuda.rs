//! The launch of `kernels.cu`. Shapes are checked by the caller.
#![allow(unsafe_code)]

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, device_of, suffix, uninit, upload};
use crate::ops::linear::array;

const THREADS: u32 = 256;

/// Turns one or two tensors `(tokens, heads, head_dim)`, bf16 or f32, of the same tokens, forward (`sign` 1) or back
/// (−1).
pub(super) fn turn<const N: usize>(
    xs: [&Tensor; N],
    positions: &[u32],
    inv_freq: &[f32],
    sign: f32,
) -> Result<[Tensor; N]> {
    let ([first] | [first, _]) = xs.as_slice() else { return Err(Error::run(format!("rope: {N} tensors"))) };
    let device = device_of(first)?;
    let dtype = first.dtype();
    let xs: [Tensor; N] = array(xs.iter().map(|x| Ok(x.to_dtype(dtype)?.contiguous()?)))?;
    let ys: [Tensor; N] = array(xs.iter().map(|x| uninit(&device, x.dims3()?, dtype)))?;
    // As words, so that it is remembered as positions are.
    let words: Vec<u32> = inv_freq.iter().map(|f| f.to_bits()).collect();
    let mut launch = Launch::new(&device, "rope/kernels", &format!("rope_{}", suffix(dtype)?))?;
    for i in 0..2 {
        let heads = xs.get(i).map_or(Ok(0), |x| x.dim(1))?;
        launch = launch.optional(xs.get(i))?.optional(ys.get(i))?.u32(heads)?;
    }
    let launch =
        launch.tensor(&upload(&device, positions)?)?.tensor(&upload(&device, &words)?)?.u32(inv_freq.len())?.f32(sign);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { launch.run([positions.len() as u32, 1, 1], THREADS, 8 * inv_freq.len()) }?;
    Ok(ys)
}
