//! f32 to bf16: to nearest, ties to even.
#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
mod cuda;

use std::mem::MaybeUninit;
use std::ptr;

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::cpu::par_for::ParFor;
use super::cpu::simd::vectorised;
use super::cpu::slice::{View, init_with};
use crate::error::Result;

/// An f32 tensor as bf16, of the same shape; a bf16 tensor as it is.
pub fn to_bf16(x: &Tensor) -> Result<Tensor> {
    if x.dtype() == DType::BF16 {
        return Ok(x.clone());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::cast(x, DType::BF16);
    }
    let x = x.contiguous()?;
    let view = View::of(&x)?;
    Ok(Tensor::from_vec(rounded(view.f32()?), x.shape(), &Device::Cpu)?)
}

/// Of each group the f32 tensors `(rowsᵢ, columns)`, one at least, one below the other as bf16, `(Σ rowsᵢ,
/// columns)`; on CUDA by one launch for all groups.
pub fn to_bf16_stacked(groups: &[Vec<&Tensor>]) -> Result<Vec<Tensor>> {
    #[cfg(feature = "cuda")]
    if groups.iter().flatten().any(|tensor| tensor.device().is_cuda()) {
        return cuda::to_bf16_stacked(groups);
    }
    let rounded = |group: &Vec<&Tensor>| group.iter().map(|tensor| to_bf16(tensor)).collect::<Result<Vec<_>>>();
    groups.iter().map(|group| Ok(Tensor::cat(&rounded(group)?, 0)?)).collect()
}

#[cfg(feature = "cuda")]
pub(in crate::ops) use cuda::{cast, cast_into};

/// `x` as bf16.
pub(crate) fn rounded(x: &[f32]) -> Vec<bf16> {
    let write = |[y]: [&mut [MaybeUninit<bf16>]; 1]| {
        y.par_chunks_mut(1 << 14).zip(x.par_chunks(1 << 14)).par_for_each(|(y, x)| round_into(x, y));
    };
    // SAFETY: `round_into` writes as many as it reads.
    let [y] = unsafe { init_with([x.len()], write) };
    y
}

/// As [`rounded`], to `y`, on this thread.
pub(crate) fn round(x: &[f32], y: &mut [bf16]) {
    // SAFETY: `round_into` writes numbers, never what is no number.
    round_into(x, unsafe { &mut *(ptr::from_mut(y) as *mut [MaybeUninit<bf16>]) });
}

/// The bits of `x` as bf16; branch-free, so loops over it vectorise (`half`'s own do not).
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    (if x.is_nan() { bits | 0x40_0000 } else { rounded }) >> 16
}

vectorised! {
    fn round_into(x: &[f32], y: &mut [MaybeUninit<bf16>]) {
        for (y, x) in y.iter_mut().zip(x) {
            y.write(bf16::from_bits(bf16_bits(*x) as u16));
        }
    }

}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::random;

    #[test]
    fn rounds_as_the_half_crate_does() {
        let mut x = random(1, 1000);
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1.003_906_3,
            1.011_718_8,
            1e-40,
        ]);
        assert_eq!(rounded(&x), x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
        assert!(rounded(&[f32::NAN])[0].is_nan());
    }
}
