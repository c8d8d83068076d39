//! The launch of `kernels.cu`. Shapes are checked by the caller.
#![allow(unsafe_code)]

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor, cuda_backend::CudaDevice};

use super::Rope;
use crate::error::{Error, Result};
use crate::ops::Indices;
use crate::ops::cuda::{Launch, device_of, suffix, uninit};
use crate::ops::linear::array;

const THREADS: u32 = 256;

/// A rotation's frequencies on the device that first asked for them: as long there as the rotation.
#[derive(Debug, Clone, Default)]
pub(super) struct OnDevice(Arc<OnceLock<Tensor>>);

impl OnDevice {
    /// `(head_dim / 2)` f32.
    fn get(&self, inv_freq: &[f32], device: &CudaDevice) -> Result<Tensor> {
        let device = Device::Cuda(device.clone());
        match self.0.get() {
            Some(held) if held.device().same_device(&device) => Ok(held.clone()),
            _ => {
                let made = Tensor::from_slice(inv_freq, inv_freq.len(), &device)?;
                let _ = self.0.set(made.clone());
                Ok(made)
            }
        }
    }
}

/// Turns one or two tensors `(tokens, heads, head_dim)`, bf16 or f32, of the same tokens, forward (`sign` 1) or back
/// (−1).
pub(super) fn turn<const N: usize>(
    xs: [&Tensor; N],
    positions: Indices<'_>,
    rope: &Rope,
    sign: f32,
) -> Result<[Tensor; N]> {
    let ([first] | [first, _]) = xs.as_slice() else { return Err(Error::run(format!("rope: {N} tensors"))) };
    let device = device_of(first)?;
    let dtype = first.dtype();
    let xs: [Tensor; N] = array(xs.iter().map(|x| Ok(x.to_dtype(dtype)?.contiguous()?)))?;
    let ys: [Tensor; N] = array(xs.iter().map(|x| uninit(&device, x.dims3()?, dtype)))?;
    let inv_freq = rope.on_device.get(&rope.inv_freq, &device)?;
    let half = rope.inv_freq.len();
    let mut launch = Launch::new(&device, "rope/kernels", &format!("rope_{}", suffix(dtype)?))?;
    for i in 0..2 {
        let heads = xs.get(i).map_or(Ok(0), |x| x.dim(1))?;
        launch = launch.optional(xs.get(i))?.optional(ys.get(i))?.u32(heads)?;
    }
    let launch = launch.tensor(&positions.on_device(&device)?)?.tensor(&inv_freq)?.u32(half)?.f32(sign);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { launch.run([positions.values().len() as u32, 1, 1], THREADS, 8 * half) }?;
    Ok(ys)
}
