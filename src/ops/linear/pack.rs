//! Rearranges operands into the order the kernel reads them: transposes by 16 × 16 tiles, and plain copies.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

use crate::ops::simd::Isa;

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

/// `to[c·width + r] = from[r·stride + c]` for `rows` × `cols`, `rows ≤ width`; rows from `rows` to `width` become 0.
/// `from` starts at the first element; `to` holds `cols·width` numbers.
pub(crate) fn transpose<T: Element>(isa: Isa, from: &[T], stride: usize, [rows, cols]: [usize; 2], to: &mut [f32], width: usize) {
    assert!(rows <= width && to.len() >= cols * width && (rows == 0 || cols == 0 || from.len() >= (rows - 1) * stride + cols));
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        for r in (0..width).step_by(16) {
            for c in (0..cols).step_by(16) {
                let (height, written) = (rows.saturating_sub(r).min(16), (width - r).min(16));
                // SAFETY: AVX-512 was detected; the assertion above covers the tile's source and destination.
                unsafe {
                    let from = from.as_ptr().wrapping_add(r * stride + c);
                    tile16(from, stride, [height, (cols - c).min(16)], to.as_mut_ptr().add(c * width + r), width, written);
                }
            }
        }
        return;
    }
    let _ = isa;
    for (c, to) in to.chunks_mut(width).take(cols).enumerate() {
        for (r, to) in to.iter_mut().enumerate() {
            *to = if r < rows { from[r * stride + c].widen() } else { 0.0 };
        }
    }
}

/// Transposes up to 16 × 16 elements; each of the `cols` output rows gets `written` numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile16<T: Element>(from: *const T, stride: usize, [rows, cols]: [usize; 2], to: *mut f32, ld: usize, written: usize) {
    let read = (u32::MAX >> (32 - cols)) as u16;
    let mut x = [_mm512_setzero_ps(); 16];
    if rows == 16 {
        for (r, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's tile.
            *x = unsafe { T::load16(from.wrapping_add(r * stride), read) };
        }
    } else {
        for (r, x) in x.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's tile.
            *x = unsafe { T::load16(from.wrapping_add(r * stride), read) };
        }
    }
    let x = transpose16(x);
    let write = (u32::MAX >> (32 - written)) as u16;
    if cols == 16 {
        for (c, x) in x.iter().enumerate() {
            // SAFETY: the caller's tile.
            unsafe { _mm512_mask_storeu_ps(to.add(c * ld), write, *x) };
        }
    } else {
        for (c, x) in x.iter().enumerate().take(cols) {
            // SAFETY: the caller's tile.
            unsafe { _mm512_mask_storeu_ps(to.add(c * ld), write, *x) };
        }
    }
}

/// The 16 × 16 transpose in registers: pairs, quads, then 128-bit blocks twice.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose16(x: [__m512; 16]) -> [__m512; 16] {
    let zero = _mm512_setzero_ps();
    let (mut t, mut u, mut v, mut w) = ([zero; 16], [zero; 16], [zero; 16], [zero; 16]);
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    // u[4g + j]: 128-bit block b holds column 4b + j of rows 4g..4g+4.
    for g in 0..4 {
        for j in 0..2 {
            let (low, high) = (_mm512_castps_pd(t[4 * g + j]), _mm512_castps_pd(t[4 * g + 2 + j]));
            u[4 * g + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            u[4 * g + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    for j in 0..4 {
        v[j] = _mm512_shuffle_f32x4::<0x88>(u[j], u[4 + j]);
        v[4 + j] = _mm512_shuffle_f32x4::<0xdd>(u[j], u[4 + j]);
        v[8 + j] = _mm512_shuffle_f32x4::<0x88>(u[8 + j], u[12 + j]);
        v[12 + j] = _mm512_shuffle_f32x4::<0xdd>(u[8 + j], u[12 + j]);
    }
    // v[j] = blocks 0, 2 of rows 0..8 · v[4 + j] = blocks 1, 3 · v[8..] the same of rows 8..16.
    for j in 0..4 {
        w[j] = _mm512_shuffle_f32x4::<0x88>(v[j], v[8 + j]);
        w[8 + j] = _mm512_shuffle_f32x4::<0xdd>(v[j], v[8 + j]);
        w[4 + j] = _mm512_shuffle_f32x4::<0x88>(v[4 + j], v[12 + j]);
        w[12 + j] = _mm512_shuffle_f32x4::<0xdd>(v[4 + j], v[12 + j]);
    }
    w
}

/// Copies `rows` × `cols` into rows of `width` numbers, padding with 0.
pub(crate) fn copy_rows<T: Element>(from: &[T], stride: usize, [rows, cols]: [usize; 2], to: &mut [f32], width: usize) {
    for (r, to) in to.chunks_mut(width).take(rows).enumerate() {
        let from = &from[r * stride..][..cols];
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
        to[cols..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::available;

    #[test]
    fn transposes_tiles_of_every_shape() {
        let stride = 70;
        let from: Vec<f32> = (0..70 * stride).map(|i| i as f32).collect();
        let halves: Vec<bf16> = from.iter().map(|&x| bf16::from_f32(x)).collect();
        for isa in available() {
            for (rows, cols, width) in [(1, 1, 14), (14, 33, 14), (13, 70, 14), (32, 64, 32), (20, 17, 32), (64, 63, 64), (40, 5, 64)] {
                let mut to = vec![-1.0; cols * width];
                transpose(isa, &from, stride, [rows, cols], &mut to, width);
                let mut to_half = vec![-1.0; cols * width];
                transpose(isa, &halves, stride, [rows, cols], &mut to_half, width);
                for c in 0..cols {
                    for r in 0..width {
                        let expected = if r < rows { from[r * stride + c] } else { 0.0 };
                        assert_eq!(to[c * width + r], expected, "{isa:?} {rows}x{cols} at {r},{c}");
                        assert_eq!(to_half[c * width + r], bf16::from_f32(expected).to_f32());
                    }
                }
            }
        }
    }
}
