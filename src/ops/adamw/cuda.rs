//! Launches of `kernels.cu`: all tensors at once, by a table of their addresses. Shapes are checked by the caller; all
//! f32.
#![allow(unsafe_code)]

use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Tensor};

use super::{ParamState, Scalars};
use crate::error::{Error, Result};
use crate::ops::cuda::{Launch, Parts, address, device_of, uninit};

const FILE: &str = "adamw/kernels";
const THREADS: u32 = 256;
/// An f64 for each warp.
const SHARED: usize = 8 * THREADS as usize / 32;
/// Tensors of one launch.
struct Table {
    device: CudaDevice,
    parts: Parts,
}

impl Table {
    /// Each row is gradient, parameter and moments, contiguous and of one size; the last three may be missing where
    /// only sums are asked.
    fn new(device: CudaDevice, rows: &[Vec<&Tensor>]) -> Result<Self> {
        let parts = rows.iter().map(|row| {
            if row.iter().any(|tensor| tensor.dtype() != DType::F32) {
                return Err(Error::run("adamw: f32 tensors only"));
            }
            let mut addresses = [0; 4];
            for (place, tensor) in addresses.iter_mut().zip(row) {
                *place = address(tensor)?;
            }
            Ok((addresses, row[0].elem_count()))
        });
        let parts = Parts::new(&device, &parts.collect::<Result<Vec<_>>>()?)?;
        Ok(Self { device, parts })
    }

    fn blocks(&self) -> usize {
        self.parts.blocks()
    }

    fn launch(&self, kernel: &str) -> Result<Launch> {
        self.parts.launch(&self.device, FILE, kernel)
    }

    /// `(2)` f64 on the device: the norm of all gradients, and what clipping to `max_norm` multiplies them by.
    fn norm(&self, max_norm: f64) -> Result<Tensor> {
        let sums = uninit(&self.device, self.blocks(), DType::F64)?;
        let norm = uninit(&self.device, 2, DType::F64)?;
        let kernel = self.launch("square_sums_f32")?.tensor(&sums)?;
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { kernel.run([self.blocks() as u32, 1, 1], THREADS, SHARED) }?;
        let kernel = Launch::new(&self.device, FILE, "norm_f64")?
            .tensor(&sums)?
            .tensor(&norm)?
            .u32(self.blocks())?
            .f64(max_norm);
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { kernel.run([1, 1, 1], THREADS, SHARED) }?;
        Ok(norm)
    }
}

/// Norm, clipping and update in three launches; the host waits once, for the norm, when all of them are in the stream.
pub(super) fn step(parts: &[ParamState<'_>], max_norm: f64, scalars: Scalars) -> Result<f64> {
    let Some(first) = parts.first() else { return Ok(0.0) };
    let gradients = parts.iter().map(|part| Ok(part.gradient.contiguous()?)).collect::<Result<Vec<_>>>()?;
    let rows: Vec<Vec<&Tensor>> =
        parts.iter().zip(&gradients).map(|(part, gradient)| vec![gradient, part.param, part.m, part.v]).collect();
    let table = Table::new(device_of(first.param)?, &rows)?;
    let norm = table.norm(max_norm)?;
    let kernel = table
        .launch("adamw_f32")?
        .tensor(&norm)?
        .f32(scalars.decay)
        .f32(scalars.one_minus_beta1)
        .f32(scalars.beta2)
        .f32(scalars.one_minus_beta2)
        .f32(scalars.root2)
        .f32(scalars.eps)
        .f32(scalars.step_size);
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([table.blocks() as u32, 1, 1], THREADS, 0) }?;
    Ok(norm.to_vec1::<f64>()?[0])
}

pub(super) fn norm(tensors: &[Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let tensors = tensors.iter().map(|tensor| Ok(tensor.contiguous()?)).collect::<Result<Vec<_>>>()?;
    let rows: Vec<Vec<&Tensor>> = tensors.iter().map(|tensor| vec![tensor]).collect();
    Ok(Table::new(device_of(first)?, &rows)?.norm(0.0)?.to_vec1::<f64>()?[0])
}
