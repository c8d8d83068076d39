//! `y (m, n) = x (m, k) · w (n, k)ᵀ` for the few rows of a decoding step, where reading `w` is the cost.
//!
//! Threads share out the rows of `w`; four of them at a time meet four, two or one rows of `x` in 16 lanes each. The
//! four stay in L1 while all rows of `x` pass, so `w` is read from memory once. An element is always the same dot
//! product: 16 lanes over `k` in order, folded in one order. So it does not matter what it is computed beside.
#![allow(unsafe_code)]

use std::borrow::Cow;

use half::bf16;
use rayon::prelude::*;

use super::cpu::rounded;
use super::pack::Element;
use crate::ops::simd::{LANES, sum_lanes, vectorised};
use crate::ops::slice::Weight;

/// Rows of `w` a task takes.
const BLOCK: usize = 32;

/// `y (m, n) = x (m, k) · w (n, k)ᵀ`; every element of `y` is written.
pub(crate) fn x_wt(x: &[f32], w: Weight<'_>, [m, k, n]: [usize; 3], y: &mut [f32]) {
    let x = match w {
        Weight::F32(_) => Cow::Borrowed(x),
        Weight::Bf16(_) => rounded(x),
    };
    let tasks = (0..n).into_par_iter().step_by(BLOCK).with_min_len(if m * n * k > 1 << 16 { 1 } else { n });
    // A task's outputs, (its rows of w, m), are set in place at the end: they lie apart in `y`.
    let blocks: Vec<Vec<f32>> = tasks
        .map(|first| {
            let rows = first * k..(first + BLOCK).min(n) * k;
            let mut block = vec![0.0; (BLOCK.min(n - first)) * m];
            match w {
                Weight::F32(w) => block_f32(&x, &w[rows], k, m, &mut block),
                Weight::Bf16(w) => block_bf16(&x, &w[rows], k, m, &mut block),
            }
            block
        })
        .collect();
    for (index, block) in blocks.iter().enumerate() {
        for (j, sums) in block.chunks(m.max(1)).enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                y[i * n + index * BLOCK + j] = *sum;
            }
        }
    }
}

vectorised! {
    fn block_f32(x: &[f32], w: &[f32], k: usize, m: usize, y: &mut [f32]) {
        block(x, w, k, m, y);
    }
    fn block_bf16(x: &[f32], w: &[bf16], k: usize, m: usize, y: &mut [f32]) {
        block(x, w, k, m, y);
    }
}

/// `y[j·m + i]` = row `i` of `x` · row `j` of `w`.
#[inline(always)]
fn block<T: Element>(x: &[f32], w: &[T], k: usize, m: usize, y: &mut [f32]) {
    if k == 0 {
        return;
    }
    let mut w = w.chunks_exact(4 * k);
    let mut y = y.chunks_mut(4 * m);
    for (w, y) in w.by_ref().zip(y.by_ref()) {
        rows::<T, 4>(x, w, k, m, y);
    }
    if let Some(y) = y.next() {
        for (w, y) in w.remainder().chunks(k).zip(y.chunks_mut(m)) {
            rows::<T, 1>(x, w, k, m, y);
        }
    }
}

#[inline(always)]
fn rows<T: Element, const J: usize>(x: &[f32], w: &[T], k: usize, m: usize, y: &mut [f32]) {
    let mut i = 0;
    while i + 4 <= m {
        dots::<T, 4, J>(&x[i * k..], w, k, m, &mut y[i..]);
        i += 4;
    }
    if i + 2 <= m {
        dots::<T, 2, J>(&x[i * k..], w, k, m, &mut y[i..]);
        i += 2;
    }
    if i < m {
        dots::<T, 1, J>(&x[i * k..], w, k, m, &mut y[i..]);
    }
}

/// `I` rows of `x` against `J` rows of `w`.
#[inline(always)]
fn dots<T: Element, const I: usize, const J: usize>(x: &[f32], w: &[T], k: usize, m: usize, y: &mut [f32]) {
    let mut sums = [[[0.0f32; LANES]; J]; I];
    let x: [&[f32]; I] = std::array::from_fn(|i| &x[i * k..][..k]);
    let w: [&[T]; J] = std::array::from_fn(|j| &w[j * k..][..k]);
    for p in (0..k / LANES * LANES).step_by(LANES) {
        let w: [[f32; LANES]; J] = std::array::from_fn(|j| lanes(&w[j][p..p + LANES]));
        step(&x.map(|x| lanes(&x[p..p + LANES])), &w, &mut sums);
    }
    let p = k / LANES * LANES;
    if p < k {
        step(&x.map(|x| lanes(&x[p..])), &w.map(|w| lanes(&w[p..])), &mut sums);
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, lanes) in sums.iter().enumerate() {
            y[j * m + i] = sum_lanes(*lanes);
        }
    }
}

#[inline(always)]
fn step<const I: usize, const J: usize>(x: &[[f32; LANES]; I], w: &[[f32; LANES]; J], sums: &mut [[[f32; LANES]; J]; I]) {
    for i in 0..I {
        for j in 0..J {
            for l in 0..LANES {
                sums[i][j][l] = x[i][l].mul_add(w[j][l], sums[i][j][l]);
            }
        }
    }
}

/// Up to sixteen elements, widened, the rest 0.
#[inline(always)]
fn lanes<T: Element>(from: &[T]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.iter_mut().zip(from).for_each(|(lane, x)| *lane = x.widen());
    lanes
}
