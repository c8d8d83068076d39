//! Products that low-rank adapters add: scaled, several of one input, and onto what is there.
//!
//! On CUDA the scaling is part of the product and adapters of one input share it; on a CPU each result has the bits of
//! the plain product, then scaled.

use candle_core::Tensor;

use super::{array, backward_input, check, decode, decode_each, forward_each};
use crate::error::Result;
use crate::ops::add;

/// `x (m, in)`, each `weight (outᵢ, in)` → `scale · x·Wᵀ`, `(m, outᵢ)`; perhaps not contiguous.
pub fn scaled_forward_each<const N: usize>(x: &Tensor, weights: [&Tensor; N], scale: f64) -> Result<[Tensor; N]> {
    scaled("linear::scaled_forward_each", x, weights, scale, || forward_each(x, weights.map(|weight| (weight, None))))
}

/// [`scaled_forward_each`] by the kernel for few rows.
pub fn scaled_decode_each<const N: usize>(x: &Tensor, weights: [&Tensor; N], scale: f64) -> Result<[Tensor; N]> {
    scaled("linear::scaled_decode_each", x, weights, scale, || decode_each(x, weights.map(|weight| (weight, None))))
}

fn scaled<const N: usize>(
    op: &str,
    x: &Tensor,
    weights: [&Tensor; N],
    scale: f64,
    plain: impl FnOnce() -> Result<[Tensor; N]>,
) -> Result<[Tensor; N]> {
    let k = x.dims2()?.1;
    weights.iter().try_for_each(|weight| check(op, weight.dims2()?.1 == k, x, weight))?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::scaled_each(x, weights, scale);
    }
    array(plain()?.into_iter().map(|y| Ok((y * scale)?)))
}

/// `scale · dy·W`: `dy (m, out)`, `weight (out, in)` → `(m, in)`.
pub fn scaled_backward_input(dy: &Tensor, weight: &Tensor, scale: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        check("linear::scaled_backward_input", dy.dims2()?.1 == weight.dims2()?.0, dy, weight)?;
        return super::cuda::backward_input(dy, weight, scale);
    }
    Ok((backward_input(dy, weight)? * scale)?)
}

/// `y + x·Wᵀ` written over `y (m, out)`, by the kernel for few rows. Nobody else may hold `y`.
pub fn decode_add(y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if y.device().is_cuda() {
        return super::add_forward(y, x, weight);
    }
    add(y, &decode(x, weight, None)?)
}
