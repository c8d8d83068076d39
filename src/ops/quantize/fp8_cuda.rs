//! fp8's products on Hopper: launches of `fp8.cu`, then cuBLASLt. Both copies of W are held, since cuBLASLt sums along
//! the rows of both operands: W itself for y, its transpose for dx. Tokens are padded with rows of zeros.
#![allow(unsafe_code)]

use candle_core::{DType, Device, Tensor};

use super::super::{Format, Quantized};
use super::matmul::{Scaled, product};
use super::{Affine, check_capability};
use crate::error::{Error, Result};
use crate::ops::add::add_bias;
use crate::ops::cuda::{Launch, device_of, suffix, uninit};
use crate::ops::linear::array;

const THREADS: usize = 256;
/// Bytes of shared memory: a float for each warp.
const WARPS: usize = 4 * THREADS / 32;
/// Of which the sides of an fp8 product are multiples.
const SIDE: usize = 16;

/// Wᵀ.
#[derive(Debug, Clone)]
pub(in crate::ops::quantize) struct Transposed {
    /// `(in, out)`, u8.
    codes: Tensor,
    /// `(in)`, each 1: W's scales are in dy.
    scales: Tensor,
}

/// Fails (exit 2) where the card has none of these products.
pub(super) fn check(device: &Device) -> Result<()> {
    let context = device.as_cuda_device()?.cuda_stream().context().clone();
    let capability = context.compute_capability();
    check_capability(capability.map_err(|error| Error::run(format!("CUDA device: {error}")))?)
}

/// A matrix quantised on the host, and its transpose, on the device.
pub(in crate::ops::quantize) fn to_cuda(quantized: &Quantized, device: &Device) -> Result<Quantized> {
    let (rows, columns) = quantized.shape;
    if rows % SIDE != 0 || columns % SIDE != 0 {
        return Err(Error::usage(format!(
            "a matrix of {rows} x {columns}: with model.quantize = \"fp8\" CUDA multiplies multiples of {SIDE} only"
        ))
        .hint("\"int8\" and \"nf4\" take matrices of any size"));
    }
    let transposed = quantized.codes.reshape((rows, columns))?.t()?.contiguous()?;
    Ok(Quantized {
        format: Format::Fp8,
        shape: quantized.shape,
        codes: quantized.codes.to_device(device)?,
        scales: quantized.scales.to_device(device)?,
        transposed: Some(Transposed {
            codes: transposed.to_device(device)?,
            scales: Tensor::from_vec(vec![1.0f32; columns], columns, &Device::Cpu)?.to_device(device)?,
        }),
    })
}

/// `x (tokens, in)` → `y (tokens, out)` of each, in x's type; x is quantised once.
pub(super) fn forward_each<const N: usize>(x: &Tensor, weights: [Affine<'_>; N]) -> Result<[Tensor; N]> {
    let (tokens, input) = x.dims2()?;
    let (codes, scales) = quantize_rows(x, None)?;
    array(weights.into_iter().map(|(weight, bias)| {
        let (out, width) = weight.shape;
        check_width(width, input)?;
        let w = Scaled { codes: &weight.codes, scales: &weight.scales };
        let y = product(Scaled { codes: &codes, scales: &scales }, w, [out, width], x.dtype())?;
        let y = y.narrow(0, 0, tokens)?;
        if let Some(bias) = bias {
            add_bias(&y, bias)?;
        }
        Ok(y)
    }))
}

/// `dy (tokens, out)` → `dx (tokens, in)`.
pub(super) fn backward_input(dy: &Tensor, weight: &Quantized) -> Result<Tensor> {
    let (tokens, width) = dy.dims2()?;
    let (out, input) = weight.shape;
    check_width(out, width)?;
    let Some(transposed) = &weight.transposed else {
        return Err(Error::run("an fp8 matrix on CUDA without its transpose"));
    };
    let (codes, scales) = quantize_rows(dy, Some(&weight.scales))?;
    let w = Scaled { codes: &transposed.codes, scales: &transposed.scales };
    let dx = product(Scaled { codes: &codes, scales: &scales }, w, [input, out], dy.dtype())?;
    Ok(dx.narrow(0, 0, tokens)?)
}

fn check_width(expected: usize, width: usize) -> Result<()> {
    if expected == width {
        return Ok(());
    }
    Err(Error::run(format!("fp8: rows of {width} numbers where {expected} belong")))
}

/// The codes of x's rows `(padded, columns)` and their scales `(padded)`: a multiple of 16 rows, and at least as many.
fn quantize_rows(x: &Tensor, factors: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let device = device_of(x)?;
    let (rows, columns) = x.dims2()?;
    let padded = rows.next_multiple_of(SIDE).max(SIDE);
    let codes = uninit(&device, (padded, columns), DType::U8)?;
    let scales = uninit(&device, padded, DType::F32)?;
    let launch = Launch::new(&device, "quantize/fp8", &format!("e4m3_rows_{}", suffix(x.dtype())?))?
        .tensor(&x.contiguous()?)?
        .optional(factors)?
        .tensor(&codes)?
        .tensor(&scales)?
        .u64(rows as u64)
        .u64(columns as u64);
    // SAFETY: the kernel's arguments in the order of its declaration; a block for each row of the outputs.
    unsafe { launch.run([padded as u32, 1, 1], THREADS as u32, WARPS) }?;
    Ok((codes, scales))
}
