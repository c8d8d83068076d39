//! `y (m, n) = x (m, k) · w (n, k)ᵀ` for the few rows of a decoding step, where reading `w` is the cost.
//!
//! Threads share out the rows of `w`, 32 at a time; a tile of up to four of them and four rows of `x` adds up in 16
//! lanes each, and asks for the next four rows of `w` meanwhile. For more than two rows, `k` is walked in runs short
//! enough that a run of `x` stays in L1 with the `w` that it meets, so `w` is read from memory once whatever `m`. An
//! element is always the same dot product: 16 lanes over `k` in order, folded in one order. So it does not matter what
//! it is computed beside.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::cell::RefCell;

use half::bf16;

use super::Rhs;
use super::output::SharedOutput;
use super::pack::{AsF32, Bf16x2, Element, Packing};
use crate::ops::cast::rounded;
use crate::ops::cpu::horizontal_sum::horizontal_sums;
use crate::ops::cpu::simd::{Isa, LANES, has_bf16_products, isa, vectorised};
use crate::ops::cpu::slice::Weight;
use crate::ops::cpu::thread_team::for_each;

/// Rows of `w` a task takes.
const BLOCK: usize = 32;
/// Runs of `k` are multiples of so many steps, itself one of the lanes.
const RUN: usize = 256;
/// Bytes of `x` that stay in L1.
const ROOM: usize = 16 << 10;

type Lanes = [f32; LANES];

thread_local! {
    /// A task's sums before folding.
    static SUMS: RefCell<Vec<Lanes>> = const { RefCell::new(Vec::new()) };
}

/// `y (m, n) = x (m, k) · w (n, k)ᵀ` for each part; every element of `y` is written.
pub(crate) fn x_wt<'w, 'y>(x: &[f32], [m, k]: [usize; 2], each: impl IntoIterator<Item = Rhs<'y, Weight<'w>>>) {
    let mut wide = Vec::new();
    let mut halves = Vec::new();
    for Rhs { w, n, y } in each {
        match w {
            Weight::F32(w) => wide.push(Rhs { w, n, y }),
            Weight::Bf16(w) => halves.push(Rhs { w, n, y }),
        }
    }
    products::<AsF32<f32>, AsF32<f32>>(x, [m, k], wide);
    if halves.is_empty() {
        return;
    }
    let x = rounded(x);
    if has_bf16_products() {
        products::<Bf16x2, Bf16x2>(&x, [m, k], halves);
    } else {
        products::<AsF32<bf16>, AsF32<bf16>>(&x, [m, k], halves);
    }
}

/// `x` times each weight: the rows of all of them are shared out together.
fn products<X: Packing, W: Packing>(x: &[X::Item], [m, k]: [usize; 2], each: Vec<Rhs<'_, &[W::Item]>>)
where
    X::Item: Element,
    W::Item: Element,
{
    let mut tasks = Vec::new();
    let mut outputs = 0;
    for Rhs { w, n, y } in each {
        assert!(x.len() == m * k && w.len() == k * n && y.len() == m * n, "operands of the wrong size");
        outputs += y.len();
        if k == 0 {
            y.fill(std::iter::repeat(0.0));
        } else if m > 0 {
            let y = y.share();
            tasks.extend(w.chunks(BLOCK * k).enumerate().map(|(i, w)| Task { w, y, first: i * BLOCK, n }));
        }
    }
    let step = if m <= 2 { k } else { (ROOM / size_of::<X::Item>() / m / RUN).max(1) * RUN };
    let x = runs(x, [m, k], step);
    let isa = isa();
    let run = |i: usize| block::<X, W>(isa, &x, &tasks[i], [m, k], step);
    if outputs * k > 1 << 16 { for_each(tasks.len(), run) } else { (0..tasks.len()).for_each(run) }
}

/// Rows `first..` of a weight, up to [`BLOCK`] of them, and the output `y (m, n)` that they are columns of.
struct Task<'a, T> {
    w: &'a [T],
    y: SharedOutput<'a>,
    first: usize,
    n: usize,
}

/// `x` run by run, each run's rows side by side: rows a power of two apart would fight for the same sets of L1.
fn runs<T: Copy>(x: &[T], [m, k]: [usize; 2], step: usize) -> Vec<T> {
    let mut to = Vec::with_capacity(x.len());
    for start in (0..k).step_by(step) {
        for i in 0..m {
            to.extend_from_slice(&x[i * k + start..i * k + (start + step).min(k)]);
        }
    }
    to
}

/// A task's dot products; `x` as [`runs`] lays it out.
fn block<X: Packing, W: Packing>(isa: Isa, x: &[X::Item], task: &Task<'_, W::Item>, [m, k]: [usize; 2], step: usize)
where
    X::Item: Element,
    W::Item: Element,
{
    assert!(X::PER == 1 || has_bf16_products(), "pairs on a CPU that does not multiply them");
    let &Task { w, y, first, n } = task;
    let rows = w.len() / k;
    SUMS.with_borrow_mut(|sums| {
        if sums.len() < rows * m {
            sums.resize(rows * m, [0.0; LANES]);
        }
        let sums = &mut sums[..rows * m];
        for start in (0..k).step_by(step) {
            let steps = step.min(k - start);
            let x = &x[start * m..][..steps * m];
            let mut j = 0;
            while j < rows {
                let height = if j + 4 <= rows { 4 } else { 1 };
                for i in (0..m).step_by(4) {
                    let x = &x[i * steps..];
                    let w = &w[j * k + start..];
                    let sums = &mut sums[i * rows + j..];
                    let tile = Tile { k, steps, rows, first: start == 0, ahead: i == 0 };
                    // SAFETY: pairs are multiplied, as asserted above.
                    unsafe {
                        match (4.min(m - i), height) {
                            (4, 4) => tile.run::<X, W, 4, 4>(isa, x, w, sums),
                            (3, 4) => tile.run::<X, W, 3, 4>(isa, x, w, sums),
                            (2, 4) => tile.run::<X, W, 2, 4>(isa, x, w, sums),
                            (1, 4) => tile.run::<X, W, 1, 4>(isa, x, w, sums),
                            (4, _) => tile.run::<X, W, 4, 1>(isa, x, w, sums),
                            (3, _) => tile.run::<X, W, 3, 1>(isa, x, w, sums),
                            (2, _) => tile.run::<X, W, 2, 1>(isa, x, w, sums),
                            _ => tile.run::<X, W, 1, 1>(isa, x, w, sums),
                        }
                    }
                }
                j += height;
            }
        }
        for (i, sums) in sums.chunks(rows).enumerate() {
            // SAFETY: `products` checked that `y` has `m` rows of `n`, and gave these columns to this task alone.
            horizontal_sums(sums, unsafe { std::slice::from_raw_parts_mut(y.at(i * n + first).cast(), rows) });
        }
    });
}

vectorised! {
    fn lanes_f32(x: &[f32], w: &[f32], sums: &mut Lanes) {
        add_lanes(x, w, sums);
    }
}

/// Where the operands of a tile lie: rows of `w` are `k` apart, rows of `x` `steps`, the steps to walk; sums of one row
/// of `x` lie side by side, those of the next `rows` on.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    steps: usize,
    rows: usize,
    /// Sums begin here; what lies in their place is an earlier product's.
    first: bool,
    /// Asks for the next rows of `w` while these are at work: their runs are too short for the hardware to foresee.
    ahead: bool,
}

impl Tile {
    /// `sums[i·rows + j] (+)= x[i] ⊙ w[j]`, lane by lane, for `I` rows of `x` and `J` of `w`.
    ///
    /// # Safety
    /// Where a unit is a pair of bf16 ([`Packing::PER`]), the CPU multiplies such pairs.
    #[inline]
    unsafe fn run<X: Packing, W: Packing, const I: usize, const J: usize>(
        self,
        isa: Isa,
        x: &[X::Item],
        w: &[W::Item],
        sums: &mut [Lanes],
    ) where
        X::Item: Element,
        W::Item: Element,
    {
        let Tile { k, steps, rows, first, .. } = self;
        assert!(x.len() >= I * steps && w.len() >= (J - 1) * k + steps && sums.len() >= (I - 1) * rows + J);
        #[cfg(target_arch = "x86_64")]
        if isa.is_avx512() {
            let x = x.as_ptr();
            let w = w.as_ptr();
            let sums = sums.as_mut_ptr();
            // SAFETY: `isa` says that AVX-512 was detected, the caller that BF16 was; the assertion covers every
            // element touched.
            unsafe {
                match X::PER {
                    1 => one_by_one::<X, W, I, J>(self, x, w, sums),
                    _ => pair_by_pair::<X, W, I, J>(self, x, w, sums),
                }
            }
            return;
        }
        let _ = isa;
        let mut wide_x = [0.0; RUN];
        let mut wide_w = [0.0; RUN];
        for j in 0..J {
            if first {
                (0..I).for_each(|i| sums[i * rows + j] = [0.0; LANES]);
            }
            for start in (0..steps).step_by(RUN) {
                let run = RUN.min(steps - start);
                widen(&w[j * k + start..][..run], &mut wide_w);
                for i in 0..I {
                    widen(&x[i * steps + start..][..run], &mut wide_x);
                    lanes_f32(&wide_x[..run], &wide_w[..run], &mut sums[i * rows + j]);
                }
            }
        }
    }
}

fn widen<T: Element>(from: &[T], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
}

/// `sums[l] += Σ x[p]·w[p]` over the `p` with `p % 16 = l`, in order, fused.
#[inline(always)]
fn add_lanes(x: &[f32], w: &[f32], sums: &mut Lanes) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (w, w_rest) = w.as_chunks::<LANES>();
    let mut lanes = *sums;
    for (x, w) in x.iter().zip(w) {
        for l in 0..LANES {
            lanes[l] = x[l].mul_add(w[l], lanes[l]);
        }
    }
    for (lane, (x, w)) in lanes.iter_mut().zip(x_rest.iter().zip(w_rest)) {
        *lane = x.mul_add(*w, *lane);
    }
    *sums = lanes;
}

/// A tile's kernel: `$add(sums, x, w)` is what becomes of sixteen units.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $step:ident, $features:literal, $add:expr) => {
        /// # Safety
        /// The CPU has the features; `x` holds `I` rows, `steps` apart, `w` `J` rows, `k` apart, of `steps` elements
        /// each, and `sums` the sums of each pair, those of one row of `x` side by side and the next row's `rows` on.
        #[target_feature(enable = $features)]
        unsafe fn $name<X: Packing, W: Packing, const I: usize, const J: usize>(
            tile: Tile,
            x: *const X::Item,
            w: *const W::Item,
            sums: *mut Lanes,
        ) {
            let Tile { k, steps, rows, first, ahead } = tile;
            let mut acc = [[_mm512_setzero_ps(); J]; I];
            // SAFETY: the caller checked that I rows of x, J of w and their sums are there; the last load is masked.
            unsafe {
                if !first {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        for (j, acc) in acc.iter_mut().enumerate() {
                            *acc = _mm512_loadu_ps(sums.add(i * rows + j).cast());
                        }
                    }
                }
                let whole = LANES * X::PER;
                for p in (0..steps).step_by(whole) {
                    let rest = steps - p;
                    if ahead {
                        for j in J..2 * J {
                            _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(j * k + p).cast());
                        }
                    }
                    // A constant where all lanes are there, so that the loads need no mask.
                    let x = x.add(p);
                    let w = w.add(p);
                    acc = if rest >= whole {
                        $step::<X, W, I, J>(acc, [steps, k], x, w, whole)
                    } else {
                        $step::<X, W, I, J>(acc, [steps, k], x, w, rest)
                    };
                }
                for (i, acc) in acc.iter().enumerate() {
                    for (j, acc) in acc.iter().enumerate() {
                        _mm512_storeu_ps(sums.add(i * rows + j).cast(), *acc);
                    }
                }
            }
        }

        /// # Safety
        /// The CPU has the features; `there` elements of each row of `x` and `w` are readable.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $step<X: Packing, W: Packing, const I: usize, const J: usize>(
            mut acc: [[__m512; J]; I],
            [x_stride, w_stride]: [usize; 2],
            x: *const X::Item,
            w: *const W::Item,
            there: usize,
        ) -> [[__m512; J]; I] {
            let mut lanes = [_mm512_setzero_ps(); J];
            // SAFETY: the caller's tile, in which so many elements are there.
            unsafe {
                for (j, lanes) in lanes.iter_mut().enumerate() {
                    *lanes = W::load16(w.add(j * w_stride), there);
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = X::load16(x.add(i * x_stride), there);
                    for (acc, w) in acc.iter_mut().zip(lanes) {
                        *acc = $add(*acc, x, w);
                    }
                }
            }
            acc
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(one_by_one, step, "avx512f,avx512bw,avx512vl", |sums, x, w| _mm512_fmadd_ps(x, w, sums));
#[cfg(target_arch = "x86_64")]
kernel!(pair_by_pair, step_of_pairs, "avx512f,avx512bw,avx512vl,avx512bf16", |sums, x, w| {
    let pairs = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
    _mm512_dpbf16_ps(sums, pairs(x), pairs(w))
});
