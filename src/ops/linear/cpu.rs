//! Matrix products on slices: packed, blocked, parallel over tiles of the output.
//!
//! ```text
//! for each block of KC steps of k:
//!     pack the left operand's rows by 14s, once, shared by all threads
//!     in parallel over (chunk of columns × chunk of rows) of the output:
//!         pack the right operand's columns by 32s (this thread's, stays in its L2)
//!         for each 14 rows (stay in L1), for each 32 columns: kernel::tile
//! ```
//!
//! An output element is the sum over blocks of KC steps, in order, of sums over the steps, in order: nothing in that
//! depends on the other rows, on how the output is tiled, or on threads.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};

use half::bf16;
use rayon::prelude::*;

use super::Rhs;
use super::kernel::{MR, NR, tile};
use super::operand::{Operand, pack_right};
use super::output::{Output, SharedOutput};
use super::output_tiles::{OutputTile, output_tiles};
use super::pack::{AsF32, Bf16x2, F32ToBf16x2, Line, Packing, floats_mut};
use super::rearrange::{copy_rows, transpose};
use crate::ops::cast::rounded;
use crate::ops::cpu::par_for::ParFor;
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::simd::has_bf16_tiles;
use crate::ops::cpu::simd::{Isa, has_bf16_products, isa};
use crate::ops::cpu::slice::Weight;

/// Steps of `k` summed before the sum is added to the output: fixed, since it decides the bits.
const KC: usize = 512;
/// Columns up to which a product is done as its transpose.
const NARROW: usize = MR;
/// Below this many multiply-adds, one thread does it all.
const SMALL: usize = 1 << 17;

thread_local! {
    /// The packed left operand: taken by a product for its duration, so that one that is stolen in between has its own.
    static LEFT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// The packed right operand of the chunk at hand.
    static RIGHT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `y (m, n) = x (m, k) · w (n, k)ᵀ` for each part, every element of `y` written, or `y +=` with `add`.
pub(crate) fn x_wt<'w, 'y>(
    x: &[f32],
    [m, k]: [usize; 2],
    each: impl IntoIterator<Item = Rhs<'y, Weight<'w>>>,
    add: bool,
) {
    let mut wide = Vec::new();
    let mut halves = Vec::new();
    for Rhs { w, n, y } in each {
        match w {
            Weight::F32(w) => wide.push(Rhs { w: Operand::Transposed(w), n, y }),
            Weight::Bf16(w) => halves.push(Rhs { w: Operand::Transposed(w), n, y }),
        }
    }
    products::<AsF32<f32>, AsF32<f32>>(Operand::Plain(x), [m, k], wide, add);
    with_bf16(x, [m, k], halves, add);
}

/// `y (m, n) = dy (m, k) · w (k, n)`, or `+=` with `add`.
pub(crate) fn dy_w(dy: &[f32], w: Weight<'_>, [m, k, n]: [usize; 3], y: Output<'_>, add: bool) {
    match w {
        Weight::F32(w) => products::<AsF32<f32>, AsF32<f32>>(
            Operand::Plain(dy),
            [m, k],
            vec![Rhs { w: Operand::Plain(w), n, y }],
            add,
        ),
        Weight::Bf16(w) => with_bf16(dy, [m, k], vec![Rhs { w: Operand::Plain(w), n, y }], add),
    }
}

/// `y (m, n) = dy (k, m)ᵀ · x (k, n)`.
pub(crate) fn dyt_x(dy: &[f32], x: &[f32], [m, k, n]: [usize; 3], y: Output<'_>) {
    products::<AsF32<f32>, AsF32<f32>>(
        Operand::Transposed(dy),
        [m, k],
        vec![Rhs { w: Operand::Plain(x), n, y }],
        false,
    );
}

/// `a·b` with `a` rounded to bf16: in tiles or two steps at a time where the CPU can, else widened.
fn with_bf16(a: &[f32], [m, k]: [usize; 2], rights: Vec<Rhs<'_, Operand<'_, bf16>>>, add: bool) {
    if rights.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if has_bf16_tiles() {
        return rights.into_iter().for_each(|Rhs { w, n, y }| super::amx::product(a, w, [m, k, n], y, add));
    }
    if has_bf16_products() {
        products::<F32ToBf16x2, Bf16x2>(Operand::Plain(a), [m, k], rights, add);
    } else {
        products::<AsF32<bf16>, AsF32<bf16>>(Operand::Plain(&rounded(a)), [m, k], rights, add);
    }
}

/// `y = a·b` for each `b`, or `y += a·b` with `add`: `a` is packed once, and the outputs are shared out together.
fn products<A: Packing, B: Packing>(
    a: Operand<'_, A::Item>,
    [m, k]: [usize; 2],
    rights: Vec<Rhs<'_, Operand<'_, B::Item>>>,
    add: bool,
) {
    let whole = |x: Operand<'_, A::Item>| matches!(x, Operand::Plain(x) | Operand::Transposed(x) if x.len() == m * k);
    let mut outputs = Vec::with_capacity(rights.len());
    for Rhs { w: b, n, y } in rights {
        let (Operand::Plain(all) | Operand::Transposed(all)) = b;
        assert!(whole(a) && all.len() == k * n && y.len() == m * n, "operands of the wrong size");
        assert!(!add || y.is_initialised(), "a sum onto an output that holds no numbers");
        if n <= NARROW && m > NR && !add {
            narrow::<A, B>(a, b, [m, k, n], y);
        } else if k == 0 && !add {
            y.fill(std::iter::repeat(0.0));
        } else if y.len() > 0 {
            outputs.push((b, n, y.share()));
        }
    }
    let columns = outputs.iter().map(|(_, n, _)| n).sum();
    let isa = isa();
    let parallel = m * columns * k > SMALL;
    let tiles_of =
        |n| if parallel { output_tiles(m, n, columns, MR) } else { vec![OutputTile { rows: 0..m, columns: 0..n }] };
    let tasks: Vec<_> = outputs
        .into_iter()
        .flat_map(|(b, n, y)| tiles_of(n).into_iter().map(move |output_tile| (b, n, y, output_tile)))
        .collect();
    if tasks.is_empty() {
        return;
    }
    let mut buffer = LEFT.take();
    let needed = (m.div_ceil(MR) * MR * k.min(KC)).div_ceil(16);
    if buffer.len() < needed {
        buffer.resize(needed, Line::default());
    }
    for start in (0..k).step_by(KC * A::PER) {
        let steps = [start, (start + KC * A::PER).min(k)];
        let length = (steps[1] - start).div_ceil(A::PER) * MR;
        let pack = |(panel, to): (usize, &mut [f32])| pack_left::<A>(isa, a, [m, k], panel * MR, steps, to);
        let left = &mut floats_mut(&mut buffer)[..m.div_ceil(MR) * length];
        if parallel {
            left.par_chunks_mut(length).with_min_len(8).enumerate().par_for_each(pack);
        } else {
            left.chunks_mut(length).enumerate().for_each(pack);
        }
        let run = |&(b, n, output, ref output_tile): &(_, _, _, OutputTile)| {
            // SAFETY: an output's tiles are disjoint and lie within (m, n), its size.
            unsafe { tile_task::<B>(isa, left, b, [k, n], output_tile, steps, add || start > 0, output) }
        };
        if parallel {
            tasks.par_iter().with_max_len(1).par_for_each(run);
        } else {
            tasks.iter().for_each(run);
        }
    }
    LEFT.set(buffer);
}

/// A product with few columns (a LoRA rank) as the transposed one with few rows, which wastes no part of a tile; each
/// element is the same sum.
fn narrow<A: Packing, B: Packing>(
    a: Operand<'_, A::Item>,
    b: Operand<'_, B::Item>,
    [m, k, n]: [usize; 3],
    y: Output<'_>,
) {
    let mut transposed = vec![0.0; m * n];
    products::<B, A>(
        b.flipped(),
        [n, k],
        vec![Rhs { w: a.flipped(), n: m, y: Output::initialised(&mut transposed) }],
        false,
    );
    y.fill((0..m).flat_map(|i| transposed[i..].iter().step_by(m).copied()));
}

/// Rows `first..first + 14` of the left operand as `(units, 14)`.
fn pack_left<A: Packing>(
    isa: Isa,
    a: Operand<'_, A::Item>,
    [m, k]: [usize; 2],
    first: usize,
    steps: [usize; 2],
    to: &mut [f32],
) {
    let rows = MR.min(m - first);
    let length = steps[1] - steps[0];
    match a {
        Operand::Plain(a) => transpose::<A>(isa, &a[first * k + steps[0]..], k, [rows, length], to, MR),
        Operand::Transposed(a) => {
            copy_rows::<A>(isa, &a[steps[0] * m + first..], m, [length, rows], to, MR, usize::MAX)
        }
    }
}

/// One chunk of the output.
///
/// # Safety
/// The chunk lies within the `(m, n)` output, and no other thread touches it.
#[allow(clippy::too_many_arguments)]
unsafe fn tile_task<B: Packing>(
    isa: Isa,
    left: &[f32],
    b: Operand<'_, B::Item>,
    [k, n]: [usize; 2],
    OutputTile { rows, columns }: &OutputTile,
    steps: [usize; 2],
    add: bool,
    output: SharedOutput<'_>,
) {
    let length = (steps[1] - steps[0]).div_ceil(B::PER);
    RIGHT.with_borrow_mut(|right| {
        let used = columns.len().div_ceil(NR) * NR * length;
        if right.len() * 16 < used {
            right.resize(used.div_ceil(16), Line::default());
        }
        let right = &mut floats_mut(right)[..used];
        pack_right::<B>(isa, b, [k, n], columns, steps, right, length);
        for first in rows.clone().step_by(MR) {
            let rows = MR.min(rows.end - first);
            let a = &left[first / MR * MR * length..][..MR * length];
            for (panel, b) in right.chunks(length * NR).enumerate() {
                let column = columns.start + panel * NR;
                let c = output.at(first * n + column);
                let width = NR.min(columns.end - column);
                // SAFETY: packed panels hold (length, 14) and (length, 32); `c` is this chunk's, by the caller's
                // promise.
                unsafe {
                    if width == NR {
                        packed_tile::<B>(isa, rows, length, a, b, c, n, add);
                    } else {
                        edge::<B>(isa, [rows, width], length, a, b, c, n, add);
                    }
                }
            }
        }
    });
}

/// A whole tile of packed operands.
///
/// # Safety
/// As for [`tile`]; a packing of pairs was chosen because the CPU multiplies them.
#[allow(clippy::too_many_arguments)]
#[inline]
unsafe fn packed_tile<B: Packing>(
    isa: Isa,
    rows: usize,
    length: usize,
    a: &[f32],
    b: &[f32],
    c: *mut f32,
    n: usize,
    add: bool,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match B::PER {
            1 => tile::<false, 1, MR>(isa, rows, length, a.as_ptr(), b.as_ptr(), NR, c, n, add),
            _ => tile::<true, 1, MR>(isa, rows, length, a.as_ptr(), b.as_ptr(), NR, c, n, add),
        }
    }
}

/// A tile with fewer than 32 columns left, by way of a whole one.
///
/// # Safety
/// `c` is valid for `rows` rows of `columns` numbers, `n` apart, which nothing else touches.
#[allow(clippy::too_many_arguments)]
unsafe fn edge<B: Packing>(
    isa: Isa,
    [rows, columns]: [usize; 2],
    length: usize,
    a: &[f32],
    b: &[f32],
    c: *mut f32,
    n: usize,
    add: bool,
) {
    let mut whole = [0.0; MR * NR];
    // SAFETY: as in `tile_task`, with a whole tile of our own as the output.
    unsafe { packed_tile::<B>(isa, rows, length, a, b, whole.as_mut_ptr(), NR, false) };
    for (r, sums) in whole.chunks(NR).take(rows).enumerate() {
        for (j, sum) in sums.iter().enumerate().take(columns) {
            let c = c.wrapping_add(r * n + j);
            // SAFETY: in row `r` of the caller's `c`.
            unsafe { c.write(if add { c.read() + sum } else { *sum }) };
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
