//! Launches of `kernels.cu`.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, blocks, device_of, uninit};

const THREADS: usize = 256;

/// `x` as `dtype`, f32 or bf16.
pub(in crate::ops) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let y = uninit(&device_of(x)?, x.shape(), dtype)?;
    cast_into(x, &y)?;
    Ok(y)
}

/// Writes `x` over `y`, of as many elements, in the type of `y`.
pub(in crate::ops) fn cast_into(x: &Tensor, y: &Tensor) -> Result<()> {
    let kernel = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "cast_f32_to_bf16",
        (DType::BF16, DType::F32) => "cast_bf16_to_f32",
        (from, to) if from == to => return Ok(y.slice_set(&x.contiguous()?, 0, 0)?),
        (from, to) => return Err(Error::run(format!("no kernel makes {to:?} of {from:?}"))),
    };
    let n = x.elem_count();
    if n != y.elem_count() {
        return Err(Error::run(format!("cast: {:?} into {:?}", x.dims(), y.dims())));
    }
    let launch =
        Launch::new(&device_of(x)?, "cast/kernels", kernel)?.tensor(&x.contiguous()?)?.tensor(y)?.u64(n as u64);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { launch.run([blocks(n, THREADS), 1, 1], THREADS as u32, 0) }
}
