//! Launches of `kernels.cu`. Shapes are checked by the caller; all f32.

use candle_core::{DType, Tensor};

use super::Scalars;
use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, blocks, device_of, uninit};

const FILE: &str = "adamw/kernels";
const THREADS: usize = 256;
/// Elements whose squares one block adds.
const PER_BLOCK: usize = 16_384;

pub(super) fn step(param: &Tensor, grad: &Tensor, m: &Tensor, v: &Tensor, scalars: Scalars) -> Result<()> {
    if [param, grad, m, v].iter().any(|t| t.dtype() != DType::F32) {
        return Err(Error::run("adamw: f32 tensors only"));
    }
    let n = param.elem_count();
    Launch::new(&device_of(param)?, FILE, "adamw_f32")?
        .tensor(param)?
        .tensor(&grad.contiguous()?)?
        .tensor(m)?
        .tensor(v)?
        .f32(1.0)
        .f32(scalars.decay)
        .f32(scalars.one_minus_beta1)
        .f32(scalars.beta2)
        .f32(scalars.one_minus_beta2)
        .f32(scalars.root2)
        .f32(scalars.eps)
        .f32(scalars.step_size)
        .u64(n as u64)
        .run([blocks(2 * n, THREADS), 1, 1], THREADS as u32, 0)
}

/// The sum of all squares: tensors in order, each by blocks; one copy to the host.
pub(super) fn square_sum(tensors: &[Tensor]) -> Result<f64> {
    let counts: Vec<usize> = tensors.iter().map(|tensor| tensor.elem_count().div_ceil(PER_BLOCK)).collect();
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let device = device_of(first)?;
    let sums = uninit(&device, counts.iter().sum::<usize>(), DType::F64)?;
    let mut start = 0;
    for (tensor, &count) in tensors.iter().zip(&counts) {
        if tensor.dtype() != DType::F32 {
            return Err(Error::run("grad_norm: f32 tensors only"));
        }
        if count > 0 {
            Launch::new(&device, FILE, "square_sums_f32")?
                .tensor(&tensor.contiguous()?)?
                .tensor(&sums.narrow(0, start, count)?)?
                .u32(PER_BLOCK)?
                .u64(tensor.elem_count() as u64)
                .run([count as u32, 1, 1], THREADS as u32, 8 * THREADS / 32)?;
        }
        start += count;
    }
    Ok(sums.to_vec1::<f64>()?.into_iter().sum())
}
