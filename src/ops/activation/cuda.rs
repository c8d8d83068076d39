//! Launches of `kernels.cu`. Shapes are checked by the caller; f32.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::Activation;
use crate::error::Result;
use crate::ops::cuda::{Launch, blocks, device_of, uninit};

const THREADS: usize = 128;

/// The kernels' number of an activation.
fn number(kind: Activation) -> usize {
    match kind {
        Activation::Gelu => 0,
        Activation::Relu => 1,
        Activation::Tanh => 2,
    }
}

pub(super) fn forward(kind: Activation, x: &Tensor) -> Result<Tensor> {
    launch("activation_forward_f32", kind, &[x])
}

pub(super) fn backward(kind: Activation, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    launch("activation_backward_f32", kind, &[x, dy])
}

fn launch(kernel: &str, kind: Activation, inputs: &[&Tensor]) -> Result<Tensor> {
    let device = device_of(inputs[0])?;
    let n = inputs[0].elem_count();
    let y = uninit(&device, inputs[0].shape(), DType::F32)?;
    let mut launch = Launch::new(&device, "activation/kernels", kernel)?;
    for input in inputs {
        launch = launch.tensor(&input.to_dtype(DType::F32)?.contiguous()?)?;
    }
    let kernel = launch.tensor(&y)?.u32(number(kind))?.u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(8 * n, THREADS), 1, 1], THREADS as u32, 0) }?;
    Ok(y)
}
