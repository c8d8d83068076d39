//! Scores of decoding: queries of one kv head against a run of cached keys.
//!
//! A score is a dot product in 16 lanes. With AVX-512 and heads of 32, 64 or 128 channels, the sums of 16 keys at a
//! time are folded together ([`horizontal_sum16`]). Keys in bf16 are widened on the way.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::horizontal_sum::horizontal_sum16;
use crate::ops::cpu::simd::{self, L2, LANES, sum_lanes, vectorised};
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::simd::{L1, isa};
use crate::ops::cpu::slice::Weight;
use crate::ops::linear::pack::Element;

/// Asks for the first `count` elements, into L2.
pub(crate) fn prefetch(x: Weight<'_>, count: usize) {
    match x {
        Weight::F32(x) => simd::prefetch::<L2, _>(x.as_ptr(), count),
        Weight::Bf16(x) => simd::prefetch::<L2, _>(x.as_ptr(), count),
    }
}

/// `scores[g·n + j] = scale · q[g]·k[j]` for `count` keys, `sizes = [d, n, count]`; keys lie side by side.
pub(crate) fn score(q: &[f32], k: Weight<'_>, sizes: [usize; 3], scale: f32, scores: &mut [f32]) {
    let [d, n, count] = sizes;
    let done = match k {
        Weight::F32(k) => whole_sixteens(q, k, sizes, scale, scores),
        Weight::Bf16(k) => whole_sixteens(q, k, sizes, scale, scores),
    };
    if done < count {
        one_by_one(q, k.from(done * d), [d, n, count - done], scale, &mut scores[done..]);
    }
}

vectorised! {
    fn one_by_one(q: &[f32], k: Weight<'_>, sizes: [usize; 3], scale: f32, scores: &mut [f32]) {
        match k {
            Weight::F32(k) => each(q, k, sizes, scale, scores),
            Weight::Bf16(k) => each(q, k, sizes, scale, scores),
        }
    }
}

#[inline(always)]
fn each<T: Element>(q: &[f32], k: &[T], [d, n, count]: [usize; 3], scale: f32, scores: &mut [f32]) {
    for j in 0..count {
        let key = &k[j * d..][..d];
        for (g, q) in q.chunks_exact(d).enumerate() {
            let (q, q_rest) = q.as_chunks::<LANES>();
            let (key, key_rest) = key.as_chunks::<LANES>();
            let mut lanes = [0.0; LANES];
            for (q, key) in q.iter().zip(key) {
                for l in 0..LANES {
                    lanes[l] = q[l].mul_add(key[l].widen(), lanes[l]);
                }
            }
            for (lane, (q, key)) in lanes.iter_mut().zip(q_rest.iter().zip(key_rest)) {
                *lane = q.mul_add(key.widen(), *lane);
            }
            scores[g * n + j] = scale * sum_lanes(lanes);
        }
    }
}

/// Scores keys sixteen at a time, as far as there are sixteen and a kernel for them; gives the number of keys done.
fn whole_sixteens<T: Element>(q: &[f32], k: &[T], sizes: [usize; 3], scale: f32, scores: &mut [f32]) -> usize {
    let [d, n, count] = sizes;
    #[cfg(target_arch = "x86_64")]
    if isa().is_avx512() && matches!(d, 32 | 64 | 128) {
        let done = count / LANES * LANES;
        for first in (0..done).step_by(LANES) {
            let keys = &k[first * d..][..LANES * d];
            let to = &mut scores[first..][..(q.len() / d - 1) * n + LANES];
            // SAFETY: AVX-512 was detected; `keys` spans sixteen keys and `to` sixteen scores of each query.
            unsafe {
                match d {
                    32 => sixteen::<T, 2>(q, keys.as_ptr(), scale, to.as_mut_ptr(), n),
                    64 => sixteen::<T, 4>(q, keys.as_ptr(), scale, to.as_mut_ptr(), n),
                    _ => sixteen::<T, 8>(q, keys.as_ptr(), scale, to.as_mut_ptr(), n),
                }
            }
        }
        return done;
    }
    let _ = (q, k, d, n, count, scale, scores);
    0
}

/// Sixteen scores of each query of `16·C` channels: keys are widened once, into L1, and a query's sums stay in
/// registers.
///
/// # Safety
/// The CPU has AVX-512 F, BW and VL; `keys` holds sixteen keys of `16·C` elements, `q` queries of as many, and `to`
/// room for sixteen scores of each query, `n` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn sixteen<T: Element, const C: usize>(q: &[f32], keys: *const T, scale: f32, to: *mut f32, n: usize) {
    let mut wide = [MaybeUninit::<[__m512; C]>::uninit(); LANES];
    // SAFETY: the caller's sixteen keys and scores; `load16` touches what its full mask says; `wide` is written before
    // it is read.
    unsafe {
        for (j, wide) in wide.iter_mut().enumerate() {
            let key = keys.add(j * C * LANES);
            // The sixteen after these, into L1: worth 4 % of a decoding step.
            simd::prefetch::<L1, _>(key.wrapping_add(LANES * C * LANES), C * LANES);
            wide.write(std::array::from_fn(|c| T::load16(key.add(c * LANES), u16::MAX)));
        }
        for (g, q) in q.chunks_exact(C * LANES).enumerate() {
            let q: [__m512; C] = std::array::from_fn(|c| _mm512_loadu_ps(q.as_ptr().add(c * LANES)));
            let sums = std::array::from_fn(|j| {
                let key = wide[j].assume_init_ref();
                q.iter().zip(key).fold(_mm512_setzero_ps(), |sum, (q, key)| _mm512_fmadd_ps(*q, *key, sum))
            });
            _mm512_storeu_ps(to.add(g * n), _mm512_mul_ps(_mm512_set1_ps(scale), horizontal_sum16(sums)));
        }
    }
}
