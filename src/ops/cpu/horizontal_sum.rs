//! Many sums over lanes folded together.
//!
//! A product sums in 16 lanes, which [`sum_lanes`] folds in halves. With AVX-512, sixteen such sums are folded at once:
//! the same additions, four shuffled steps instead of 16 × 4.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use super::simd::isa;
use super::simd::{LANES, sum_lanes, vectorised};

/// `y[j]` is the sum of `sums[j]`'s lanes.
pub(crate) fn horizontal_sums(sums: &[[f32; LANES]], y: &mut [MaybeUninit<f32>]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if isa().is_avx512() {
        for (sums, y) in sums.as_chunks::<LANES>().0.iter().zip(y.as_chunks_mut::<LANES>().0) {
            // SAFETY: AVX-512 was detected; both are sixteen vectors, and one, long.
            unsafe { sixteen_horizontal_sums(sums, y) }
            done += LANES;
        }
    }
    each_horizontal_sum(&sums[done..], &mut y[done..]);
}

vectorised! {
    fn each_horizontal_sum(sums: &[[f32; LANES]], y: &mut [MaybeUninit<f32>]) {
        for (y, sums) in y.iter_mut().zip(sums) {
            y.write(sum_lanes(*sums));
        }
    }
}

/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn sixteen_horizontal_sums(sums: &[[f32; LANES]; LANES], y: &mut [MaybeUninit<f32>; LANES]) {
    // SAFETY: sixteen floats each.
    unsafe {
        _mm512_storeu_ps(
            y.as_mut_ptr().cast(),
            horizontal_sum16(std::array::from_fn(|j| _mm512_loadu_ps(sums[j].as_ptr()))),
        )
    }
}

/// Lane `j` of the result is the sum of `x[j]`'s lanes, in the order of [`sum_lanes`]: lane `i` with `i + 8`, then
/// `i + 4`, `i + 2`, `i + 1`. Each step folds two vectors into one.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn horizontal_sum16(x: [__m512; LANES]) -> __m512 {
    let halves: [__m512; 8] = std::array::from_fn(|i| fold_halves(x[2 * i], x[2 * i + 1]));
    let quarters: [__m512; 4] = std::array::from_fn(|i| fold_quarters(halves[2 * i], halves[2 * i + 1]));
    // quarters[u]: 128-bit block b is what is left of x[4u + b].
    let pairs: [__m512; 2] = std::array::from_fn(|i| fold_pairs(quarters[2 * i], quarters[2 * i + 1]));
    let even = _mm512_shuffle_ps::<0x88>(pairs[0], pairs[1]);
    let odd = _mm512_shuffle_ps::<0xdd>(pairs[0], pairs[1]);
    // Lane 4b + t is now the sum of x[4t + b].
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_ps(order, _mm512_add_ps(even, odd))
}

/// Lanes `i` and `i + 8`: of `a` in the lower half, of `b` in the upper.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn fold_halves(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
}

/// Lanes `i` and `i + 4` of each half.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn fold_quarters(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b))
}

/// Lanes `i` and `i + 2` of each quarter.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn fold_pairs(a: __m512, b: __m512) -> __m512 {
    let a = _mm512_castps_pd(a);
    let b = _mm512_castps_pd(b);
    _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
}
