//! Products of bf16 in AMX tiles: 32 × 32 sums a tile, 32 steps of `k` an instruction group.
//!
//! ```text
//! left   (rows by 32s, k by 32s): rounded to bf16 on the way, 32 rows × 64 bytes side by side
//! right  (columns by 32s): pairs of steps, 128 bytes a pair: two tiles of 16 columns
//! tile   c (32 × 32 f32, four registers) += 2 left registers × 2 right registers, 32 steps at a time
//! ```
//!
//! A sum runs over pairs of steps in order, whatever the other rows are and however the output is tiled. Registers are
//! set up and given back within one tile of the output, so no thread carries tile state through the scheduler.
#![allow(unsafe_code)]

use std::arch::{asm, x86_64::*};
use std::cell::{Cell, RefCell};

use half::bf16;
use rayon::prelude::*;

use super::kernel::NR;
use super::operand::{Operand, pack_right};
use super::output::{Output, SharedOutput};
use super::output_tiles::{OutputTile, output_tiles};
use super::pack::{Bf16x2, Line, floats_mut};
use crate::ops::cpu::par_for::ParFor;
use crate::ops::cpu::simd::{has_bf16_tiles, isa};

/// Rows of a tile.
const ROWS: usize = 32;
/// Steps of `k` an instruction takes.
const DEPTH: usize = 32;
/// Steps of `k` packed at a time: a right panel (KC × 32, 64 KB) stays in L2, a block of the left streams by.
const KC: usize = 1024;
/// Four-byte units in `DEPTH` steps of 32 rows, or of 32 columns.
const GROUP: usize = ROWS * DEPTH / 2;

thread_local! {
    static LEFT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static RIGHT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `y (m, n) = a (m, k) · b (k, n)`, or `+=` with `add`, `a` rounded to bf16.
pub(super) fn product(a: &[f32], b: Operand<'_, bf16>, [m, k, n]: [usize; 3], y: Output<'_>, add: bool) {
    let (Operand::Plain(b_all) | Operand::Transposed(b_all)) = b;
    assert!(a.len() == m * k && b_all.len() == k * n && y.len() == m * n, "operands of the wrong size");
    assert!(has_bf16_tiles(), "tiles on a CPU that has none");
    assert!(!add || y.is_initialised(), "a sum onto an output that holds no numbers");
    if k == 0 && !add {
        return y.fill(std::iter::repeat(0.0));
    }
    if y.len() == 0 || k == 0 {
        return;
    }
    let y = y.share();
    let tiles = output_tiles(m, n, n, ROWS);
    let mut buffer = LEFT.take();
    let needed = m.div_ceil(ROWS) * k.min(KC).div_ceil(DEPTH) * GROUP / 16;
    if buffer.len() < needed {
        buffer.resize(needed, Line::default());
    }
    for start in (0..k).step_by(KC) {
        let steps = [start, (start + KC).min(k)];
        let groups = (steps[1] - start).div_ceil(DEPTH);
        let left = &mut floats_mut(&mut buffer)[..m.div_ceil(ROWS) * groups * GROUP];
        left.par_chunks_mut(groups * GROUP).with_min_len(2).enumerate().par_for_each(|(panel, to)| {
            let rows = &a[panel * ROWS * k..];
            // SAFETY: AMX comes with AVX-512 and its bf16 conversions.
            unsafe { pack_left(rows, k, ROWS.min(m - panel * ROWS), steps, to) }
        });
        tiles.par_iter().with_max_len(1).par_for_each(|output_tile| {
            // SAFETY: the tiles are disjoint and lie within (m, n), the size of `y`.
            unsafe { tile_task(left, b, [k, n], output_tile, steps, add || start > 0, y) }
        });
    }
    LEFT.set(buffer);
}

/// `rows` ≤ 32 rows, `stride` apart, as groups of (32 rows, 32 steps) of bf16; what is missing is 0.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and BF16; `a` holds the elements `steps` of `rows` rows, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_left(a: &[f32], stride: usize, rows: usize, steps: [usize; 2], to: &mut [f32]) {
    for (group, to) in to.chunks_exact_mut(GROUP).enumerate() {
        let first = steps[0] + group * DEPTH;
        let there = DEPTH.min(steps[1] - first);
        let low = mask(there);
        let high = mask(there.saturating_sub(16));
        for (row, to) in to.chunks_exact_mut(DEPTH / 2).enumerate() {
            // SAFETY: the masks leave out what lies beyond the row; `to` is one row of the group, 64 bytes.
            unsafe {
                let packed = if row < rows {
                    let from = a.as_ptr().wrapping_add(row * stride + first);
                    let halves = [_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(16))];
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(halves[1], halves[0]))
                } else {
                    _mm512_setzero_si512()
                };
                _mm512_storeu_si512(to.as_mut_ptr().cast(), packed);
            }
        }
    }
}

fn mask(there: usize) -> u16 {
    if there >= 16 { u16::MAX } else { (1 << there) - 1 }
}

/// One chunk of the output.
///
/// # Safety
/// The chunk lies within the `(m, n)` output, and no other thread touches it.
#[allow(clippy::too_many_arguments)]
unsafe fn tile_task(
    left: &[f32],
    b: Operand<'_, bf16>,
    [k, n]: [usize; 2],
    OutputTile { rows, columns }: &OutputTile,
    steps: [usize; 2],
    add: bool,
    output: SharedOutput<'_>,
) {
    let groups = (steps[1] - steps[0]).div_ceil(DEPTH);
    RIGHT.with_borrow_mut(|right| {
        let used = columns.len().div_ceil(NR) * groups * GROUP;
        if right.len() * 16 < used {
            right.resize(used.div_ceil(16), Line::default());
        }
        let right = &mut floats_mut(right)[..used];
        pack_right::<Bf16x2>(isa(), b, [k, n], columns, steps, right, groups * DEPTH / 2);
        let tiles = Tiles::configure();
        for (panel, b) in right.chunks_exact(groups * GROUP).enumerate() {
            let column = columns.start + panel * NR;
            let width = NR.min(columns.end - column);
            for first in rows.clone().step_by(ROWS) {
                let height = ROWS.min(rows.end - first);
                let a = &left[first / ROWS * groups * GROUP..][..groups * GROUP];
                let c = output.at(first * n + column);
                // SAFETY: `c` is this chunk's, by the caller's promise.
                unsafe {
                    if [height, width] == [ROWS, NR] {
                        tiles.accumulate(a, b, c, n, add);
                    } else {
                        edge(&tiles, a, b, c, n, [height, width], add);
                    }
                }
            }
        }
    });
}

/// A tile with rows or columns missing, by way of a whole one.
///
/// # Safety
/// `c` is valid for `height` rows of `width` numbers, `n` apart, which nothing else touches.
unsafe fn edge(tiles: &Tiles, a: &[f32], b: &[f32], c: *mut f32, n: usize, [height, width]: [usize; 2], add: bool) {
    let mut whole = [0.0; ROWS * NR];
    // SAFETY: the rows of the caller's `c`.
    let row = |r: usize| unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(r * n), width) };
    if add {
        whole.chunks_mut(NR).take(height).enumerate().for_each(|(r, sums)| sums[..width].copy_from_slice(row(r)));
    }
    // SAFETY: the output is a whole tile of our own.
    unsafe { tiles.accumulate(a, b, whole.as_mut_ptr(), NR, add) };
    whole.chunks(NR).take(height).enumerate().for_each(|(r, sums)| row(r).copy_from_slice(&sums[..width]));
}

/// This thread's tile registers, eight of 16 rows of 64 bytes, until dropped.
struct Tiles;

impl Tiles {
    fn configure() -> Self {
        let mut config = Line::default();
        // SAFETY: 64 plain bytes.
        let bytes = unsafe { &mut *(&raw mut config).cast::<[u8; 64]>() };
        bytes[0] = 1; // palette
        for register in 0..8 {
            bytes[16 + 2 * register] = 64; // bytes a row
            bytes[48 + register] = 16; // rows
        }
        // SAFETY: the permission was granted (`has_bf16_tiles`); the operand is a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self
    }

    /// `c (32, 32) (+)= a·b`: `a` and `b` packed, the same whole number of groups of each, `c` with row stride `ldc`.
    ///
    /// # Safety
    /// `c` is valid for 32 rows of 32 numbers, which nothing else touches.
    #[inline]
    unsafe fn accumulate(&self, a: &[f32], b: &[f32], c: *mut f32, ldc: usize, add: bool) {
        // The loop counts groups down to none.
        assert!(a.len() == b.len() && !a.is_empty() && a.len().is_multiple_of(GROUP));
        let stride = 4 * ldc;
        let below = c.wrapping_add(16 * ldc);
        // SAFETY: `a` and `b` hold a whole number of groups of 2048 bytes, read in turn; `c` is the caller's; only tile
        // registers change, which Rust code never uses.
        unsafe {
            asm!(
                "test {add}, {add}",
                "jz 3f",
                "tileloadd tmm0, [{c} + {stride}*1]",
                "tileloadd tmm1, [{c} + {stride}*1 + 64]",
                "tileloadd tmm2, [{below} + {stride}*1]",
                "tileloadd tmm3, [{below} + {stride}*1 + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {narrow}*1]",
                "tileloadd tmm6, [{b} + {wide}*1]",
                "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                "tileloadd tmm5, [{a} + {narrow}*1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {groups}",
                "jnz 2b",
                "tilestored [{c} + {stride}*1], tmm0",
                "tilestored [{c} + {stride}*1 + 64], tmm1",
                "tilestored [{below} + {stride}*1], tmm2",
                "tilestored [{below} + {stride}*1 + 64], tmm3",
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                c = in(reg) c,
                below = in(reg) below,
                stride = in(reg) stride,
                narrow = in(reg) 64usize,
                wide = in(reg) 128usize,
                groups = inout(reg) a.len() / GROUP => _,
                add = in(reg) u64::from(add),
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: nothing else on this thread uses tile registers.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}
