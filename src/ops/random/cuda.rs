//! The launch of `kernels.cu`.
#![allow(unsafe_code)]

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::Result;
use crate::ops::cuda::{Launch, blocks, suffix, uninit};
use crate::rng::Rng;

const THREADS: usize = 256;

pub(super) fn normal(
    rng: Rng,
    step: u64,
    deviation: f32,
    shape: Shape,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let device = device.as_cuda_device()?;
    let n = shape.elem_count();
    let y = uninit(device, shape, dtype)?;
    let kernel = Launch::new(device, "random/kernels", &format!("normal_{}", suffix(dtype)?))?
        .tensor(&y)?
        .u64(rng.seed())
        .u64(u64::from(rng.stream()))
        .u64(step)
        .f32(deviation)
        .u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(n, THREADS), 1, 1], THREADS as u32, 0) }?;
    Ok(y)
}
