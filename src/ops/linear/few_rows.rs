//! `y (m, n) = x (m, k) · w (n, k)ᵀ` for the few rows of a decoding step, where reading `w` is the cost.
//!
//! Threads share out the rows of `w`, 32 at a time; a tile of up to four of them and four rows of `x` adds up in 16 lanes
//! each. For more than two rows, `k` is walked in runs short enough that a run of `x` and of `w` stays in L1 while they
//! meet, so `w` is read from memory once whatever `m`. An element is always the same dot product: 16 lanes over `k` in
//! order, folded in one order. So it does not matter what it is computed beside.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use rayon::prelude::*;

use super::cpu::rounded;
use super::pack::Element;
use crate::ops::simd::{Isa, LANES, isa, sum_lanes, vectorised};
use crate::ops::slice::Weight;

/// Rows of `w` a task takes.
const BLOCK: usize = 32;
/// Steps of `k` in a run, a multiple of the lanes.
const RUN: usize = 256;

type Lanes = [f32; LANES];

/// `y (m, n) = x (m, k) · w (n, k)ᵀ`; every element of `y` is written.
pub(crate) fn x_wt(x: &[f32], w: Weight<'_>, sizes: [usize; 3], y: &mut [f32]) {
    match w {
        Weight::F32(w) => product(x, w, sizes, y),
        Weight::Bf16(w) => product(&rounded(x), w, sizes, y),
    }
}

fn product<T: Element>(x: &[f32], w: &[T], [m, k, n]: [usize; 3], y: &mut [f32]) {
    assert!(x.len() == m * k && w.len() == k * n && y.len() == m * n, "operands of the wrong size");
    if y.is_empty() || k == 0 {
        return y.fill(0.0);
    }
    let (isa, parallel) = (isa(), m * n * k > 1 << 16);
    let step = if m <= 2 { k } else { RUN };
    let x = runs(x, [m, k], step);
    let run = |w: &[T]| block(isa, &x, w, [m, k], step);
    // A task's outputs, (its rows of w, m), are set in place at the end: they lie apart in `y`.
    let blocks: Vec<Vec<f32>> = if parallel { w.par_chunks(BLOCK * k).map(run).collect() } else { w.chunks(BLOCK * k).map(run).collect() };
    for (index, block) in blocks.iter().enumerate() {
        for (j, sums) in block.chunks(m).enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                y[i * n + index * BLOCK + j] = *sum;
            }
        }
    }
}

/// `x` run by run, each run's rows side by side: rows a power of two apart would fight for the same sets of L1.
fn runs(x: &[f32], [m, k]: [usize; 2], step: usize) -> Vec<f32> {
    let mut to = Vec::with_capacity(x.len());
    for start in (0..k).step_by(step) {
        for i in 0..m {
            to.extend_from_slice(&x[i * k + start..i * k + (start + step).min(k)]);
        }
    }
    to
}

/// `(rows of w, m)` dot products; `x` as [`runs`] lays it out.
fn block<T: Element>(isa: Isa, x: &[f32], w: &[T], [m, k]: [usize; 2], step: usize) -> Vec<f32> {
    let rows = w.len() / k;
    let mut sums = vec![[0.0; LANES]; rows * m];
    for start in (0..k).step_by(step) {
        let steps = step.min(k - start);
        let x = &x[start * m..][..steps * m];
        let mut j = 0;
        while j < rows {
            let height = if j + 4 <= rows { 4 } else { 1 };
            for i in (0..m).step_by(4) {
                let (x, w, sums) = (&x[i * steps..], &w[j * k + start..], &mut sums[j * m + i..]);
                let tile = Tile { k, steps, m, ahead: m > 2 && i == 0 };
                match (4.min(m - i), height) {
                    (4, 4) => tile.run::<T, 4, 4>(isa, x, w, sums),
                    (3, 4) => tile.run::<T, 3, 4>(isa, x, w, sums),
                    (2, 4) => tile.run::<T, 2, 4>(isa, x, w, sums),
                    (1, 4) => tile.run::<T, 1, 4>(isa, x, w, sums),
                    (4, _) => tile.run::<T, 4, 1>(isa, x, w, sums),
                    (3, _) => tile.run::<T, 3, 1>(isa, x, w, sums),
                    (2, _) => tile.run::<T, 2, 1>(isa, x, w, sums),
                    _ => tile.run::<T, 1, 1>(isa, x, w, sums),
                }
            }
            j += height;
        }
    }
    let mut y = vec![0.0; rows * m];
    fold(&sums, &mut y);
    y
}

vectorised! {
    fn fold(sums: &[Lanes], y: &mut [f32]) {
        y.iter_mut().zip(sums).for_each(|(y, sums)| *y = sum_lanes(*sums));
    }
    fn lanes_f32(x: &[f32], w: &[f32], sums: &mut Lanes) {
        add_lanes(x, w, sums);
    }
}

/// Where the operands of a tile lie: rows of `w` are `k` apart, rows of `x` `steps`, the steps to walk; `m` sums a row of `w`.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    steps: usize,
    m: usize,
    /// Asks for the next rows of `w` while these are at work: their runs are too short for the hardware to foresee.
    ahead: bool,
}

impl Tile {
    /// `sums[j·m + i] += x[i] ⊙ w[j]`, lane by lane, for `I` rows of `x` and `J` of `w`.
    #[inline]
    fn run<T: Element, const I: usize, const J: usize>(self, isa: Isa, x: &[f32], w: &[T], sums: &mut [Lanes]) {
        let Tile { k, steps, m, .. } = self;
        assert!(x.len() >= I * steps && w.len() >= (J - 1) * k + steps && sums.len() >= (J - 1) * m + I);
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            // SAFETY: AVX-512 was detected and the assertion covers every element touched.
            unsafe { avx512::<T, I, J>(self, x.as_ptr(), w.as_ptr(), sums.as_mut_ptr()) };
            return;
        }
        let _ = isa;
        let mut wide = [0.0; RUN];
        for j in 0..J {
            for start in (0..steps).step_by(RUN) {
                let run = RUN.min(steps - start);
                wide.iter_mut().zip(&w[j * k + start..][..run]).for_each(|(wide, w)| *wide = w.widen());
                for i in 0..I {
                    lanes_f32(&x[i * steps + start..][..run], &wide[..run], &mut sums[j * m + i]);
                }
            }
        }
    }
}

/// `sums[l] += Σ x[p]·w[p]` over the `p` with `p % 16 = l`, in order, fused.
#[inline(always)]
fn add_lanes(x: &[f32], w: &[f32], sums: &mut Lanes) {
    let ((x, x_rest), (w, w_rest)) = (x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn avx512<T: Element, const I: usize, const J: usize>(tile: Tile, x: *const f32, w: *const T, sums: *mut Lanes) {
    let Tile { k, steps, m, ahead } = tile;
    let mut acc = [[_mm512_setzero_ps(); J]; I];
    // SAFETY: the caller checked that I rows of x, J of w and their sums are there; the last load is masked.
    unsafe {
        for (i, acc) in acc.iter_mut().enumerate() {
            for (j, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_loadu_ps(sums.add(j * m + i).cast());
            }
        }
        for p in (0..steps).step_by(LANES) {
            let rest = steps - p;
            if ahead {
                for j in J..2 * J {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(j * k + p).cast());
                }
            }
            // A constant mask where all lanes are there, so that the loads need none.
            if rest >= LANES {
                acc = step(acc, [steps, k], x.add(p), w.add(p), u16::MAX);
            } else {
                acc = step(acc, [steps, k], x.add(p), w.add(p), (1 << rest) - 1);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(sums.add(j * m + i).cast(), *acc);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn step<T: Element, const I: usize, const J: usize>(
    mut acc: [[__m512; J]; I],
    [x_stride, w_stride]: [usize; 2],
    x: *const f32,
    w: *const T,
    mask: u16,
) -> [[__m512; J]; I] {
    let mut lanes = [_mm512_setzero_ps(); J];
    // SAFETY: the caller's tile, in which the mask's lanes are there.
    unsafe {
        for (j, lanes) in lanes.iter_mut().enumerate() {
            *lanes = T::load16(w.add(j * w_stride), mask);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let x = f32::load16(x.add(i * x_stride), mask);
            for (acc, w) in acc.iter_mut().zip(lanes) {
                *acc = _mm512_fmadd_ps(x, w, *acc);
            }
        }
    }
    acc
}
