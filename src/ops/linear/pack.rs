//! What packed operands are made of: units of four bytes, in lines of 64.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;

use half::bf16;

use crate::ops::cast::bf16_bits;

/// A 64-byte line of a packing buffer, so that buffers are aligned for 512-bit loads.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [f32; 16]);

/// The lines as plain numbers.
pub(crate) fn floats(lines: &[Line]) -> &[f32] {
    // SAFETY: `Line` is sixteen f32 with no padding, and its alignment is the stricter.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 16) }
}

/// The lines as plain numbers, to write.
pub(crate) fn floats_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: `Line` is sixteen f32 with no padding, and its alignment is the stricter.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 16) }
}

/// An operand's element: f32, or bf16 widened on the way.
pub(crate) trait Element: Copy + Send + Sync {
    /// As f32.
    fn widen(self) -> f32;
    /// Sixteen elements as f32; those outside `mask` are 0 and are not read.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VL, and the elements in `mask` are readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(from: *const Self, mask: u16) -> __m512;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load16(from: *const Self, mask: u16) -> __m512 {
        // SAFETY: only elements in the mask are touched.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Element for bf16 {
    /// A shift alone, unlike `to_f32`, which looks for NaN and does not vectorise.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load16(from: *const Self, mask: u16) -> __m512 {
        // SAFETY: only elements in the mask are touched.
        let half = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
}

/// What a packed operand is made of: units of four bytes, each one f32 or a pair of bf16.
pub(crate) trait Packing {
    /// An element of the operand in memory.
    type Item: Copy + Send + Sync;
    /// Elements in a unit.
    const PER: usize;

    /// The unit of these elements; with fewer than [`Self::PER`], the rest are 0.
    fn unit(items: [Self::Item; 2], there: usize) -> f32;

    /// Sixteen units from the elements that lie in a row; those from `there` on are 0 and are not read.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VL, and `there` elements are readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(from: *const Self::Item, there: usize) -> __m512;
}

/// One element a unit, widened to f32.
pub(crate) struct AsF32<T>(PhantomData<T>);
/// Two bf16 a unit.
pub(crate) struct Bf16x2;
/// Two f32 a unit, rounded to bf16.
pub(crate) struct F32ToBf16x2;

impl<T: Element> Packing for AsF32<T> {
    type Item = T;
    const PER: usize = 1;

    #[inline(always)]
    fn unit(items: [T; 2], _: usize) -> f32 {
        items[0].widen()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load16(from: *const T, there: usize) -> __m512 {
        // SAFETY: only elements that are there are touched.
        unsafe { T::load16(from, first(there) as u16) }
    }
}

impl Packing for Bf16x2 {
    type Item = bf16;
    const PER: usize = 2;

    #[inline(always)]
    fn unit([low, high]: [bf16; 2], there: usize) -> f32 {
        let high = if there > 1 { u32::from(high.to_bits()) << 16 } else { 0 };
        f32::from_bits(high | u32::from(low.to_bits()))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load16(from: *const bf16, there: usize) -> __m512 {
        // SAFETY: only elements that are there are touched.
        _mm512_castsi512_ps(unsafe { _mm512_maskz_loadu_epi16(first(there), from.cast()) })
    }
}

impl Packing for F32ToBf16x2 {
    type Item = f32;
    const PER: usize = 2;

    #[inline(always)]
    fn unit([low, high]: [f32; 2], there: usize) -> f32 {
        let high = if there > 1 { bf16_bits(high) << 16 } else { 0 };
        f32::from_bits(high | bf16_bits(low))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load16(from: *const f32, there: usize) -> __m512 {
        // The upper half of each of 32 numbers.
        #[rustfmt::skip]
        let upper = _mm512_set_epi16(
            63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33,
            31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
        );
        // SAFETY: only elements that are there are touched.
        let [low, high] = unsafe {
            [
                _mm512_maskz_loadu_ps(first(there) as u16, from),
                _mm512_maskz_loadu_ps(first(there.saturating_sub(16)) as u16, from.wrapping_add(16)),
            ]
        };
        _mm512_castsi512_ps(_mm512_permutex2var_epi16(round16(low), upper, round16(high)))
    }
}

/// As [`bf16_bits`], in the upper halves; in the lower ones, anything.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn round16(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x), bits, _mm512_set1_epi32(0x40_0000))
}

/// A mask of the first `there` of up to 32 elements.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn first(there: usize) -> u32 {
    if there >= 32 { u32::MAX } else { (1 << there) - 1 }
}
