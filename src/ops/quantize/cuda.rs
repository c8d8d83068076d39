//! Launches of `kernels.cu`.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::{Format, Quantized};
use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, blocks, device_of, suffix, uninit};

const THREADS: usize = 256;
/// Bytes of the shared memory that holds the values of nf4.
const TABLE: usize = 64;

/// The matrix that `quantized` stands for, in f32 or bf16.
pub(super) fn dequantize(quantized: &Quantized, dtype: DType) -> Result<Tensor> {
    let (rows, columns) = quantized.shape;
    let n = rows * columns;
    let device = device_of(&quantized.codes)?;
    let y = uninit(&device, (rows, columns), dtype)?;
    let name = match quantized.format {
        Format::Nf4 => "dequantize_nf4_",
        Format::Int8 => "dequantize_int8_",
        Format::Fp8 => {
            return Err(Error::run("CUDA multiplies a matrix in fp8 as it is, and has no kernel to widen it"));
        }
    };
    let launch = Launch::new(&device, "quantize/kernels", &format!("{name}{}", suffix(dtype)?))?
        .tensor(&quantized.codes)?
        .tensor(&quantized.scales)?
        .tensor(&y)?
        .u64(n as u64);
    let launch = if quantized.format == Format::Int8 { launch.u64(columns as u64) } else { launch };
    // SAFETY: the kernel's arguments in the order of its declaration; codes and scales are as many as the shape asks
    // for.
    unsafe { launch.run([blocks(n, THREADS), 1, 1], THREADS as u32, TABLE) }?;
    Ok(y)
}
