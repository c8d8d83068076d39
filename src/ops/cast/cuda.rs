//! Launches of `kernels.cu`.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, Parts, address, blocks, device_of, uninit};

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

/// As `to_bf16_stacked`: parts of one tensor, each on a multiple of 16 bytes.
pub(super) fn to_bf16_stacked(groups: &[Vec<&Tensor>]) -> Result<Vec<Tensor>> {
    let Some(first) = groups.iter().flatten().next() else { return Ok(Vec::new()) };
    let device = device_of(first)?;
    let mut starts = Vec::with_capacity(groups.len());
    let mut total = 0;
    for group in groups {
        starts.push(total);
        total += group.iter().map(|tensor| tensor.elem_count()).sum::<usize>().next_multiple_of(8);
    }
    let all = uninit(&device, total, DType::BF16)?;
    let held = groups.iter().flatten().map(|tensor| Ok(tensor.contiguous()?)).collect::<Result<Vec<_>>>()?;
    let mut each = held.iter();
    let mut parts = Vec::with_capacity(held.len());
    let mut stacked = Vec::with_capacity(groups.len());
    for (group, start) in groups.iter().zip(starts) {
        let mut end = start;
        for tensor in each.by_ref().take(group.len()) {
            if tensor.dtype() != DType::F32 {
                return Err(Error::run(format!("cast: {:?} where f32 belongs", tensor.dtype())));
            }
            parts.push(([address(tensor)?, address(&all.narrow(0, end, 1)?)?], tensor.elem_count()));
            end += tensor.elem_count();
        }
        let Some(first) = group.first() else { return Err(Error::run("cast: a group of nothing")) };
        stacked.push(all.narrow(0, start, end - start)?.reshape(((), first.dim(1)?))?);
    }
    let parts = Parts::new(&device, &parts)?;
    let kernel = parts.launch(&device, "cast/kernels", "cast_f32_to_bf16_each")?;
    // SAFETY: the kernel's arguments are the table; its parts lie in tensors that are held here and in `all`.
    unsafe { kernel.run([parts.blocks() as u32, 1, 1], THREADS as u32, 0) }?;
    Ok(stacked)
}
