//! Launches of `kernels.cu`. Shapes are checked by the caller.
#![allow(unsafe_code)]

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::cuda::{Launch, blocks, device_of, suffix};

const FILE: &str = "add/kernels";
const THREADS: usize = 256;

/// `a + b` over `a`, bf16 or f32.
pub(super) fn add(a: Tensor, b: &Tensor) -> Result<Tensor> {
    let a = a.contiguous()?;
    let n = a.elem_count();
    let kernel = Launch::new(&device_of(&a)?, FILE, &format!("add_{}", suffix(a.dtype())?))?
        .tensor(&a)?
        .tensor(&b.to_dtype(a.dtype())?.contiguous()?)?
        .u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(n, THREADS), 1, 1], THREADS as u32, 0) }?;
    Ok(a)
}

/// `bias (width)`, f32, added to every row of `y (rows, width)`.
pub(in crate::ops) fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let (rows, width) = y.dims2()?;
    let kernel = Launch::new(&device_of(y)?, FILE, &format!("add_bias_{}", suffix(y.dtype())?))?
        .tensor(y)?
        .tensor(&bias.contiguous()?)?
        .u32(width)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([rows as u32, 1, 1], THREADS as u32, 0) }
}
