//! Launches of `kernels.cu`. Shapes are checked by the caller; all operands bf16 or all f32.
#![allow(unsafe_code)]

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::cuda::{Launch, blocks, device_of, suffix, uninit};

const FILE: &str = "swiglu/kernels";
const THREADS: usize = 256;

pub(super) fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let device = device_of(gate)?;
    let n = gate.elem_count();
    let act = uninit(&device, gate.shape(), gate.dtype())?;
    let kernel = Launch::new(&device, FILE, &format!("swiglu_forward_{}", suffix(gate.dtype())?))?
        .tensor(&gate.contiguous()?)?
        .tensor(&up.to_dtype(gate.dtype())?.contiguous()?)?
        .tensor(&act)?
        .u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(n, THREADS), 1, 1], THREADS as u32, 0) }?;
    Ok(act)
}

pub(super) fn backward(gate: &Tensor, up: &Tensor, dact: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = device_of(gate)?;
    let n = gate.elem_count();
    let dtype = gate.dtype();
    let dgate = uninit(&device, gate.shape(), dtype)?;
    let dup = uninit(&device, gate.shape(), dtype)?;
    let kernel = Launch::new(&device, FILE, &format!("swiglu_backward_{}", suffix(dtype)?))?
        .tensor(&gate.contiguous()?)?
        .tensor(&up.to_dtype(dtype)?.contiguous()?)?
        .tensor(&dact.to_dtype(dtype)?.contiguous()?)?
        .tensor(&dgate)?
        .tensor(&dup)?
        .u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(n, THREADS), 1, 1], THREADS as u32, 0) }?;
    Ok((dgate, dup))
}
