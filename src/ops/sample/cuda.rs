//! Launches of `kernels.cu`. Shapes are checked by the caller; logits bf16 or f32.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::Draw;
use crate::error::Result;
use crate::ops::cuda::{Launch, device_of, suffix, uninit, upload_u64};

/// Threads of a block, which is a row.
const THREADS: u32 = 1024;
/// What the kernel writes where it leaves a row to the host.
const FOR_HOST: u32 = u32::MAX;

/// Each row's token, or none where the host must choose. One copy to the host, of 4 bytes a row.
pub(super) fn choose(logits: &Tensor, draws: &[Draw]) -> Result<Vec<Option<u32>>> {
    let (n, vocab) = logits.dims2()?;
    let device = device_of(logits)?;
    let words: Vec<u64> = draws
        .iter()
        .flat_map(|draw| [draw.sampling.temperature.to_bits(), draw.sampling.top_p.to_bits(), u64::from(draw.word())])
        .collect();
    let chosen = uninit(&device, n, DType::U32)?;
    let kernel = Launch::new(&device, "sample/kernels", &format!("sample_{}", suffix(logits.dtype())?))?
        .tensor(&logits.contiguous()?)?
        .tensor(&upload_u64(&device, &words)?)?
        .tensor(&chosen)?
        .u32(vocab)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([n as u32, 1, 1], THREADS, 0) }?;
    Ok(chosen.to_vec1::<u32>()?.into_iter().map(|id| (id != FOR_HOST).then_some(id)).collect())
}
