//! Rearranges operands into the order the kernel reads them: transposes by 16 × 16 tiles, and plain copies.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::kernel::NR;
use super::pack::Packing;
#[cfg(target_arch = "x86_64")]
use super::pack::first;
use crate::ops::cpu::simd::{Isa, L1, prefetch};

/// `to[u·width + r]` = unit `u` of row `r` for `rows` × `cols` elements, `rows ≤ width`; rows from `rows` to
/// `width` become 0. `from` starts at the first element, rows are `stride` apart; `to` holds `width` numbers for every
/// unit.
pub(crate) fn transpose<P: Packing>(
    isa: Isa,
    from: &[P::Item],
    stride: usize,
    [rows, cols]: [usize; 2],
    to: &mut [f32],
    width: usize,
) {
    let units = cols.div_ceil(P::PER);
    assert!(
        rows <= width
            && to.len() >= units * width
            && (rows == 0 || cols == 0 || from.len() >= (rows - 1) * stride + cols)
    );
    #[cfg(target_arch = "x86_64")]
    if isa.is_avx512() {
        for r in (0..width).step_by(16) {
            for u in (0..units).step_by(16) {
                let height = rows.saturating_sub(r).min(16);
                let written = (width - r).min(16);
                // SAFETY: `isa` says that AVX-512 was detected; the assertion above covers the tile's source and
                // destination.
                unsafe {
                    let from = from.as_ptr().wrapping_add(r * stride + u * P::PER);
                    let there = (cols - u * P::PER).min(16 * P::PER);
                    tile16::<P>(from, stride, [height, there], to.as_mut_ptr().add(u * width + r), width, written);
                }
            }
        }
        return;
    }
    let _ = isa;
    for (u, to) in to.chunks_mut(width).take(units).enumerate() {
        let there = (cols - u * P::PER).min(P::PER);
        for (r, to) in to.iter_mut().enumerate() {
            let at = r * stride + u * P::PER;
            *to = if r < rows { P::unit([from[at], from[at + there - 1]], there) } else { 0.0 };
        }
    }
}

/// Tiles that are asked for before their turn.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4;

/// Transposes up to 16 × 16 units; each of the output rows gets `written` numbers.
///
/// # Safety
/// The CPU has AVX-512 F, BW and VL; `from` holds `there` elements of each of `rows` rows, `stride` apart, and `to`
/// room for `written` numbers of each unit of them, `ld` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile16<P: Packing>(
    from: *const P::Item,
    stride: usize,
    [rows, there]: [usize; 2],
    to: *mut f32,
    ld: usize,
    written: usize,
) {
    let mut x = [_mm512_setzero_ps(); 16];
    if rows == 16 && there == 16 * P::PER {
        for (r, x) in x.iter_mut().enumerate() {
            let row = from.wrapping_add(r * stride);
            prefetch::<L1, _>(row.wrapping_add(AHEAD * 16 * P::PER), 16 * P::PER);
            // SAFETY: the caller's tile.
            *x = unsafe { P::load16(row, 16 * P::PER) };
        }
    } else {
        for (r, x) in x.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's tile.
            *x = unsafe { P::load16(from.wrapping_add(r * stride), there) };
        }
    }
    let x = transpose16(x);
    let write = first(written) as u16;
    let units = there.div_ceil(P::PER);
    if units == 16 {
        for (u, x) in x.iter().enumerate() {
            // SAFETY: the caller's tile.
            unsafe { _mm512_mask_storeu_ps(to.add(u * ld), write, *x) };
        }
    } else {
        for (u, x) in x.iter().enumerate().take(units) {
            // SAFETY: the caller's tile.
            unsafe { _mm512_mask_storeu_ps(to.add(u * ld), write, *x) };
        }
    }
}

/// The 16 × 16 transpose in registers: pairs, quads, then 128-bit blocks twice.
///
/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose16(x: [__m512; 16]) -> [__m512; 16] {
    let zero = _mm512_setzero_ps();
    let mut t = [zero; 16];
    let mut u = [zero; 16];
    let mut v = [zero; 16];
    let mut w = [zero; 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    // u[4g + j]: 128-bit block b holds column 4b + j of rows 4g..4g+4.
    for g in 0..4 {
        for j in 0..2 {
            let low = _mm512_castps_pd(t[4 * g + j]);
            let high = _mm512_castps_pd(t[4 * g + 2 + j]);
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

/// Copies `rows` × `cols` into panels of `width` columns, one every `panel` numbers, padding with 0: a row of a panel
/// is of units, and a unit is of [`Packing::PER`] rows.
pub(crate) fn copy_rows<P: Packing>(
    isa: Isa,
    from: &[P::Item],
    stride: usize,
    shape: [usize; 2],
    to: &mut [f32],
    width: usize,
    panel: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.is_avx512() {
        /// # Safety
        /// The CPU has AVX-512 F, BW and VL.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn avx512<P: Packing>(
            from: &[P::Item],
            stride: usize,
            shape: [usize; 2],
            to: &mut [f32],
            width: usize,
            panel: usize,
        ) {
            copy_rows_plainly::<P>(from, stride, shape, to, width, panel);
        }
        // SAFETY: `isa` says that AVX-512 was detected.
        return unsafe { avx512::<P>(from, stride, shape, to, width, panel) };
    }
    let _ = isa;
    copy_rows_plainly::<P>(from, stride, shape, to, width, panel);
}

#[inline(always)]
fn copy_rows_plainly<P: Packing>(
    from: &[P::Item],
    stride: usize,
    [rows, cols]: [usize; 2],
    to: &mut [f32],
    width: usize,
    panel: usize,
) {
    for u in 0..rows.div_ceil(P::PER) {
        let there = (rows - u * P::PER).min(P::PER);
        let low = &from[u * P::PER * stride..][..cols];
        let high = &from[(u * P::PER + there - 1) * stride..][..cols];
        for row in 0..P::PER {
            prefetch::<L1, _>(from.as_ptr().wrapping_add(((u + 4) * P::PER + row) * stride), cols);
        }
        for ((low, high), to) in low.chunks(width).zip(high.chunks(width)).zip(to.chunks_mut(panel)) {
            let (filled, padding) = to[u * width..][..width].split_at_mut(low.len());
            if there == P::PER {
                // Of a fixed length, so that a row of a panel is a few vectors and no call.
                let (filled, filled_rest) = filled.as_chunks_mut::<NR>();
                let (low, low_rest) = low.as_chunks::<NR>();
                let (high, high_rest) = high.as_chunks::<NR>();
                for (to, (low, high)) in filled.iter_mut().zip(low.iter().zip(high)) {
                    (0..NR).for_each(|i| to[i] = P::unit([low[i], high[i]], P::PER));
                }
                let rest = filled_rest.iter_mut().zip(low_rest.iter().zip(high_rest));
                rest.for_each(|(to, (low, high))| *to = P::unit([*low, *high], P::PER));
            } else {
                filled.iter_mut().zip(low).for_each(|(to, low)| *to = P::unit([*low, *low], there));
            }
            padding.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::cpu::simd::tests::available;
    use crate::ops::linear::pack::{AsF32, Bf16x2, F32ToBf16x2};

    #[test]
    fn transposes_tiles_of_every_shape() {
        let stride = 70;
        let from: Vec<f32> = (0..70 * stride).map(|i| i as f32).collect();
        let halves: Vec<bf16> = from.iter().map(|&x| bf16::from_f32(x)).collect();
        for isa in available() {
            for (rows, cols, width) in
                [(1, 1, 14), (14, 33, 14), (13, 70, 14), (32, 64, 32), (20, 17, 32), (64, 63, 64), (40, 5, 64)]
            {
                let mut to = vec![-1.0; cols * width];
                transpose::<AsF32<f32>>(isa, &from, stride, [rows, cols], &mut to, width);
                let mut to_half = vec![-1.0; cols * width];
                transpose::<AsF32<bf16>>(isa, &halves, stride, [rows, cols], &mut to_half, width);
                let mut pairs = vec![-1.0; cols.div_ceil(2) * width];
                let mut rounded = vec![-1.0; cols.div_ceil(2) * width];
                transpose::<Bf16x2>(isa, &halves, stride, [rows, cols], &mut pairs, width);
                transpose::<F32ToBf16x2>(isa, &from, stride, [rows, cols], &mut rounded, width);
                let bits = |units: &[f32]| units.iter().map(|unit| unit.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&pairs), bits(&rounded), "{isa:?} {rows}x{cols}");
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
