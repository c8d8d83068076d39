//! Launches of `kernels.cu`. Shapes are checked by the caller; x, y, dy, dx all bf16 or all f32, weight and rstd f32.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::ops::cuda::{Launch, device_of, suffix, uninit};

const FILE: &str = "rms_norm/kernels";
/// Threads of a block, which is a row: two 16-byte reads each at 4,096 bf16.
const THREADS: u32 = 256;
/// A float for each warp.
const SHARED: usize = 4 * THREADS as usize / 32;

fn launch(x: &Tensor, kernel: &str) -> Result<Launch> {
    Launch::new(&device_of(x)?, FILE, &format!("rms_norm_{kernel}_{}", suffix(x.dtype())?))
}

pub(super) fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (m, n) = x.dims2()?;
    let device = device_of(x)?;
    let y = uninit(&device, (m, n), x.dtype())?;
    let rstd = uninit(&device, m, DType::F32)?;
    let kernel = launch(x, "forward")?
        .tensor(&x.contiguous()?)?
        .tensor(&weight.contiguous()?)?
        .tensor(&y)?
        .tensor(&rstd)?
        .u32(n)?
        .f32(eps as f32);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([m as u32, 1, 1], THREADS, SHARED) }?;
    Ok((y, rstd))
}

pub(super) fn add_forward(a: &Tensor, b: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let (m, n) = a.dims2()?;
    let device = device_of(a)?;
    let dtype = a.dtype();
    let sum = uninit(&device, (m, n), dtype)?;
    let y = uninit(&device, (m, n), dtype)?;
    let rstd = uninit(&device, m, DType::F32)?;
    let kernel = launch(a, "add_forward")?
        .tensor(&a.contiguous()?)?
        .tensor(&b.to_dtype(dtype)?.contiguous()?)?
        .tensor(&weight.contiguous()?)?
        .tensor(&sum)?
        .tensor(&y)?
        .tensor(&rstd)?
        .u32(n)?
        .f32(eps as f32);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([m as u32, 1, 1], THREADS, SHARED) }?;
    Ok((sum, y, rstd))
}

pub(super) fn backward(
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    let dtype = x.dtype();
    let dx = uninit(&device_of(x)?, (m, n), dtype)?;
    let residual = residual.map(|residual| residual.to_dtype(dtype)?.contiguous()).transpose()?;
    let kernel = launch(x, "backward")?
        .tensor(&x.contiguous()?)?
        .tensor(&weight.contiguous()?)?
        .tensor(&rstd.contiguous()?)?
        .tensor(&dy.to_dtype(dtype)?.contiguous()?)?
        .optional(residual.as_ref())?
        .tensor(&dx)?
        .u32(n)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([m as u32, 1, 1], THREADS, SHARED) }?;
    Ok(dx)
}

pub(super) fn backward_weight(x: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    let dw = uninit(&device_of(x)?, n, DType::F32)?;
    let kernel = launch(x, "backward_weight")?
        .tensor(&x.contiguous()?)?
        .tensor(&rstd.contiguous()?)?
        .tensor(&dy.to_dtype(x.dtype())?.contiguous()?)?
        .tensor(&dw)?
        .u32(m)?
        .u32(n)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([n.div_ceil(32) as u32, 1, 1], THREADS, 4 * THREADS as usize) }?;
    Ok(dw)
}
