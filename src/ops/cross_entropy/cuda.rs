//! Launches of `kernels.cu`. Shapes and targets are checked by the caller; logits bf16 or f32.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::ops::cuda::{Launch, device_of, suffix, uninit, upload};

/// Threads of a block, which is a row.
const THREADS: u32 = 1024;
/// Two floats for each warp.
const SHARED: usize = 2 * 4 * THREADS as usize / 32;

fn launch(logits: &Tensor, kernel: &str) -> Result<Launch> {
    Launch::new(
        &device_of(logits)?,
        "cross_entropy/kernels",
        &format!("cross_entropy_{kernel}_{}", suffix(logits.dtype())?),
    )
}

/// The f32 numbers as words that [`upload`] takes.
fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

pub(super) fn forward(logits: &Tensor, targets: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
    let (n, vocab) = logits.dims2()?;
    let device = device_of(logits)?;
    // Losses, then log-sum-exps: one copy to the host.
    let both = uninit(&device, (2, n), DType::F32)?;
    let kernel = launch(logits, "forward")?
        .tensor(&logits.contiguous()?)?
        .tensor(&upload(&device, targets)?)?
        .tensor(&both.narrow(0, 0, 1)?)?
        .tensor(&both.narrow(0, 1, 1)?)?
        .u32(vocab)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([n as u32, 1, 1], THREADS, SHARED) }?;
    let mut both = both.flatten_all()?.to_vec1::<f32>()?;
    let lse = both.split_off(n);
    Ok((both, lse))
}

pub(super) fn backward(logits: Tensor, targets: &[u32], lse: &[f32], scales: &[f32]) -> Result<Tensor> {
    let (n, vocab) = logits.dims2()?;
    let device = device_of(&logits)?;
    let logits = logits.contiguous()?;
    let kernel = launch(&logits, "backward")?
        .tensor(&logits)?
        .tensor(&upload(&device, targets)?)?
        .tensor(&upload(&device, &words(lse))?)?
        .tensor(&upload(&device, &words(scales))?)?
        .u32(vocab)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([n as u32, 1, 1], THREADS, 0) }?;
    Ok(logits)
}

pub(super) fn in_place(logits: Tensor, targets: &[u32], scales: &[f32]) -> Result<(Vec<f32>, Tensor)> {
    let (n, vocab) = logits.dims2()?;
    let device = device_of(&logits)?;
    let logits = logits.contiguous()?;
    let losses = uninit(&device, n, DType::F32)?;
    let kernel = launch(&logits, "in_place")?
        .tensor(&logits)?
        .tensor(&upload(&device, targets)?)?
        .tensor(&upload(&device, &words(scales))?)?
        .tensor(&losses)?
        .u32(vocab)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([n as u32, 1, 1], THREADS, SHARED) }?;
    Ok((losses.to_vec1::<f32>()?, logits))
}
