//! RMS norm: `rstd = 1/√(mean(x²) + eps)`, `y = w ⊙ x·rstd`. Shapes: `x, y (tokens, hidden)`, `w (hidden)`, `rstd (tokens)`.

use candle_core::Tensor;
use rayon::prelude::*;

use super::simd::{sum, vectorised};
use super::slice::{View, tensor};
use crate::error::Result;

/// `(y, rstd)`.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (m, n) = x.dims2()?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let (x, weight) = (View::of(&x)?, View::of(&weight)?);
    let (x, weight) = (x.f32()?, weight.f32()?);
    let (mut y, mut rstd) = (vec![0.0; m * n], vec![0.0; m]);
    let rows = y.par_chunks_mut(n.max(1)).zip(x.par_chunks(n.max(1))).zip(&mut rstd).with_min_len(min_rows(n));
    rows.for_each(|((y, x), rstd)| *rstd = normalise(x, weight, eps as f32, y));
    Ok((tensor(y, (m, n))?, tensor(rstd, m)?))
}

/// `dx = rstd·(w⊙dy − x̂·mean(w⊙dy⊙x̂))` with `x̂ = x·rstd`.
pub fn backward(x: &Tensor, weight: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    let (x, weight, rstd, dy) = (x.contiguous()?, weight.contiguous()?, rstd.contiguous()?, dy.contiguous()?);
    let (x, weight, rstd, dy) = (View::of(&x)?, View::of(&weight)?, View::of(&rstd)?, View::of(&dy)?);
    let (x, weight, rstd, dy) = (x.f32()?, weight.f32()?, rstd.f32()?, dy.f32()?);
    let mut dx = vec![0.0; m * n];
    dx.par_chunks_mut(n.max(1)).enumerate().with_min_len(min_rows(n)).for_each(|(i, dx)| {
        let row = i * n..(i + 1) * n;
        differentiate(&x[row.clone()], weight, rstd[i], &dy[row], dx);
    });
    tensor(dx, (m, n))
}

/// `dw (hidden) = Σ_rows dy ⊙ x·rstd`.
pub fn backward_weight(x: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (_, n) = x.dims2()?;
    let (x, rstd, dy) = (x.contiguous()?, rstd.contiguous()?, dy.contiguous()?);
    let (x, rstd, dy) = (View::of(&x)?, View::of(&rstd)?, View::of(&dy)?);
    let (x, rstd, dy) = (x.f32()?, rstd.f32()?, dy.f32()?);
    let mut dw = vec![0.0f32; n];
    // Threads share out the channels, so each channel's sum runs over the rows in order.
    dw.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, dw)| {
        let columns = block * COLUMNS..block * COLUMNS + dw.len();
        for ((x, dy), rstd) in x.chunks(n).zip(dy.chunks(n)).zip(rstd) {
            add_row(&x[columns.clone()], &dy[columns.clone()], *rstd, dw);
        }
    });
    tensor(dw, n)
}

/// Channels a task of [`backward_weight`] sums.
const COLUMNS: usize = 256;

/// Rows below which a task is not worth a thread.
fn min_rows(n: usize) -> usize {
    (1 << 13) / n.max(1) + 1
}

vectorised! {
    fn normalise(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) -> f32 {
        let rstd = 1.0 / (sum(x.len(), |i| x[i] * x[i]) / x.len() as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = w * (x * rstd);
        }
        rstd
    }

    fn differentiate(x: &[f32], weight: &[f32], rstd: f32, dy: &[f32], dx: &mut [f32]) {
        let n = x.len().min(weight.len()).min(dy.len());
        let (x, weight, dy) = (&x[..n], &weight[..n], &dy[..n]);
        let mean = sum(n, |c| weight[c] * dy[c] * x[c]) * rstd * rstd / n as f32;
        for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(weight).zip(dy) {
            *dx = rstd * (w * dy - x * mean);
        }
    }

    fn add_row(x: &[f32], dy: &[f32], rstd: f32, dw: &mut [f32]) {
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw += dy * (x * rstd);
        }
    }
}
