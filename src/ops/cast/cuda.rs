//! Launches of `kernels.cu`.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, blocks, device_of, uninit};

const THREADS: usize = 256;

/// `x` as `dtype`, f32 or bf16.
pub(in crate::ops) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let kernel = match (x.dtype(), dtype) {
        (from, to) if from == to => return Ok(x.clone()),
        (DType::F32, DType::BF16) => "cast_f32_to_bf16",
        (DType::BF16, DType::F32) => "cast_bf16_to_f32",
        (from, to) => return Err(Error::run(format!("no kernel makes {to:?} of {from:?}"))),
    };
    let (device, n) = (device_of(x)?, x.elem_count());
    let y = uninit(&device, x.shape(), dtype)?;
    Launch::new(&device, "cast/kernels", kernel)?.tensor(&x.contiguous()?)?.tensor(&y)?.u64(n as u64).run(
        [blocks(n, THREADS), 1, 1],
        THREADS as u32,
        0,
    )?;
    Ok(y)
}
