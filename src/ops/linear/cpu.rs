//! Products of row-major f32 matrices on slices.

use half::bf16;
use rayon::prelude::*;

use crate::ops::slice::Weight;

/// `y (m, n) = x (m, k) · w (n, k)ᵀ`.
pub(crate) fn x_wt(x: &[f32], w: Weight<'_>, [m, k, n]: [usize; 3], y: &mut [f32]) {
    let (x, w) = (rounded(x, w), widened(w));
    debug_assert_eq!(x.len(), m * k);
    y.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, y)| {
        let x = &x[i * k..(i + 1) * k];
        for (j, y) in y.iter_mut().enumerate() {
            *y = x.iter().zip(&w[j * k..(j + 1) * k]).map(|(x, w)| x * w).sum();
        }
    });
}

/// `y (m, n) = dy (m, k) · w (k, n)`.
pub(crate) fn dy_w(dy: &[f32], w: Weight<'_>, [_, k, n]: [usize; 3], y: &mut [f32]) {
    let (dy, w) = (rounded(dy, w), widened(w));
    y.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, y)| {
        for p in 0..k {
            let a = dy[i * k + p];
            y.iter_mut().zip(&w[p * n..(p + 1) * n]).for_each(|(y, w)| *y += a * w);
        }
    });
}

/// `y (m, n) = dy (k, m)ᵀ · x (k, n)`.
pub(crate) fn dyt_x(dy: &[f32], x: &[f32], [m, k, n]: [usize; 3], y: &mut [f32]) {
    y.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, y)| {
        for p in 0..k {
            let a = dy[p * m + i];
            y.iter_mut().zip(&x[p * n..(p + 1) * n]).for_each(|(y, w)| *y += a * w);
        }
    });
}

fn widened(w: Weight<'_>) -> Vec<f32> {
    match w {
        Weight::F32(w) => w.to_vec(),
        Weight::Bf16(w) => w.iter().map(|w| w.to_f32()).collect(),
    }
}

fn rounded(x: &[f32], w: Weight<'_>) -> Vec<f32> {
    match w {
        Weight::F32(_) => x.to_vec(),
        Weight::Bf16(_) => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
    }
}
