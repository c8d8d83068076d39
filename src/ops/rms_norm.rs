//! RMS norm: `rstd = 1/√(mean(x²) + eps)`, `y = w ⊙ x·rstd`. Shapes: `x, y (tokens, hidden)`, `w (hidden)`, `rstd (tokens)`.

use candle_core::Tensor;
use rayon::prelude::*;

use super::slice::{View, tensor};
use crate::error::Result;

/// `(y, rstd)`.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (m, n) = x.dims2()?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let (x, weight) = (View::of(&x)?, View::of(&weight)?);
    let (x, weight) = (x.f32()?, weight.f32()?);
    let (mut y, mut rstd) = (vec![0.0; m * n], vec![0.0; m]);
    y.par_chunks_mut(n).zip(x.par_chunks(n)).zip(&mut rstd).for_each(|((y, x), rstd)| {
        let square: f32 = x.iter().map(|x| x * x).sum();
        *rstd = 1.0 / (square / n as f32 + eps as f32).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = w * (x * *rstd);
        }
    });
    Ok((tensor(y, (m, n))?, tensor(rstd, m)?))
}

/// `dx = rstd·(w⊙dy − x̂·mean(w⊙dy⊙x̂))` with `x̂ = x·rstd`.
pub fn backward(x: &Tensor, weight: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    let (x, weight, rstd, dy) = (x.contiguous()?, weight.contiguous()?, rstd.contiguous()?, dy.contiguous()?);
    let (x, weight, rstd, dy) = (View::of(&x)?, View::of(&weight)?, View::of(&rstd)?, View::of(&dy)?);
    let (x, weight, rstd, dy) = (x.f32()?, weight.f32()?, rstd.f32()?, dy.f32()?);
    let mut dx = vec![0.0; m * n];
    dx.par_chunks_mut(n).enumerate().for_each(|(i, dx)| {
        let (x, dy, rstd) = (&x[i * n..(i + 1) * n], &dy[i * n..(i + 1) * n], rstd[i]);
        let dot: f32 = (0..n).map(|c| weight[c] * dy[c] * x[c]).sum();
        let mean = dot * rstd * rstd / n as f32;
        for c in 0..n {
            dx[c] = rstd * (weight[c] * dy[c] - x[c] * mean);
        }
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
    for ((x, dy), rstd) in x.chunks(n).zip(dy.chunks(n)).zip(rstd) {
        for c in 0..n {
            dw[c] += dy[c] * (x[c] * rstd);
        }
    }
    tensor(dw, n)
}
