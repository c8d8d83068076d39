//! The launch of `kernels.cu`. Shapes are checked by the caller.
#![allow(unsafe_code)]

use candle_core::Tensor;

use super::DropoutKey;
use crate::error::Result;
use crate::ops::Offsets;
use crate::ops::cuda::{Launch, blocks, device_of, suffix, uninit, upload, upload_u64};

const THREADS: usize = 256;

pub(super) fn forward(x: &Tensor, key: &DropoutKey, offsets: &Offsets) -> Result<Tensor> {
    let (m, width) = x.dims2()?;
    let device = device_of(x)?;
    let y = uninit(&device, (m, width), x.dtype())?;
    let longest = offsets.ranges().map(|range| range.len()).max().unwrap_or(0);
    let kernel = Launch::new(&device, "dropout/kernels", &format!("dropout_{}", suffix(x.dtype())?))?
        .tensor(&x.contiguous()?)?
        .tensor(&y)?
        .tensor(&upload(&device, &offsets.starts())?)?
        .tensor(&upload_u64(&device, &key.steps)?)?
        .u32(width)?
        .u64(key.rng.seed())
        .u64(u64::from(key.rng.stream()))
        .f32(key.p)
        .f32(1.0 / (1.0 - key.p));
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(longest * width, THREADS), offsets.count() as u32, 1], THREADS as u32, 0) }?;
    Ok(y)
}
