//! RMS norm: `rstd = 1/√(mean(x²) + eps)`, `y = w ⊙ x·rstd`. Shapes: `x, y (tokens, hidden)`, `w (hidden)`,
//! `rstd (tokens)`.
#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
mod cuda;

use std::mem::MaybeUninit;

use candle_core::Tensor;
use rayon::prelude::*;

use super::add::add_assign;
use super::cpu::par_for::ParFor;
use super::cpu::simd::{sum, vectorised};
use super::cpu::slice::{View, init_with, tensor, update_f32};
use crate::error::{Error, Result};

/// `(y, rstd)`.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (m, n) = x.dims2()?;
    check(weight.dims() == [n])?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::forward(x, weight, eps);
    }
    let x = x.contiguous()?;
    let weight = weight.contiguous()?;
    let x = View::of(&x)?;
    let weight = View::of(&weight)?;
    let x = x.f32()?;
    let weight = weight.f32()?;
    let mut rstd = vec![0.0; m];
    let write = |[y]: [&mut [MaybeUninit<f32>]; 1]| {
        let rows = y.par_chunks_mut(n.max(1)).zip(x.par_chunks(n.max(1))).zip(&mut rstd).with_min_len(min_rows(n));
        rows.par_for_each(|((y, x), rstd)| *rstd = normalise(x, weight, eps as f32, y));
    };
    // SAFETY: `normalise` writes its row.
    let [y] = unsafe { init_with([m * n], write) };
    Ok((tensor(y, (m, n))?, tensor(rstd, m)?))
}

/// A residual connection and the norm after it: `(a + b, y, rstd)`, with `(y, rstd)` those of `a + b`. Nobody else may
/// hold `a`.
pub fn add_forward(a: Tensor, b: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let (m, n) = a.dims2()?;
    check(weight.dims() == [n] && a.dims() == b.dims())?;
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return cuda::add_forward(&a, b, weight, eps);
    }
    let a = a.contiguous()?;
    let b = b.contiguous()?;
    let weight = weight.contiguous()?;
    let b = View::of(&b)?;
    let weight = View::of(&weight)?;
    let b = b.f32()?;
    let weight = weight.f32()?;
    let mut y = Vec::new();
    let mut rstd = vec![0.0; m];
    update_f32(&a, |a| {
        let write = |[y]: [&mut [MaybeUninit<f32>]; 1]| {
            let rows =
                a.par_chunks_mut(n.max(1)).zip(b.par_chunks(n.max(1))).zip(y.par_chunks_mut(n.max(1))).zip(&mut rstd);
            rows.with_min_len(min_rows(n)).par_for_each(|(((a, b), y), rstd)| {
                add_assign(a, b);
                *rstd = normalise(a, weight, eps as f32, y);
            });
        };
        // SAFETY: `normalise` writes its row.
        [y] = unsafe { init_with([m * n], write) };
        Ok(())
    })?;
    Ok((a, tensor(y, (m, n))?, tensor(rstd, m)?))
}

/// `dx = rstd·(w⊙dy − x̂·mean(w⊙dy⊙x̂))` with `x̂ = x·rstd`.
pub fn backward(x: &Tensor, weight: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    backward_beside(x, weight, rstd, dy, None)
}

/// [`backward`] plus `residual`, the gradient that goes past the norm.
pub fn backward_add(x: &Tensor, weight: &Tensor, rstd: &Tensor, dy: &Tensor, residual: &Tensor) -> Result<Tensor> {
    check(residual.dims() == x.dims())?;
    backward_beside(x, weight, rstd, dy, Some(residual))
}

fn backward_beside(
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    check(weight.dims() == [n] && rstd.dims() == [m] && dy.dims() == [m, n])?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::backward(x, weight, rstd, dy, residual);
    }
    let residual = residual.map(|residual| residual.contiguous()).transpose()?;
    let residual = residual.as_ref().map(View::of).transpose()?;
    let residual = residual.as_ref().map(View::f32).transpose()?;
    let x = x.contiguous()?;
    let weight = weight.contiguous()?;
    let rstd = rstd.contiguous()?;
    let dy = dy.contiguous()?;
    let x = View::of(&x)?;
    let weight = View::of(&weight)?;
    let rstd = View::of(&rstd)?;
    let dy = View::of(&dy)?;
    let x = x.f32()?;
    let weight = weight.f32()?;
    let rstd = rstd.f32()?;
    let dy = dy.f32()?;
    let write = |[dx]: [&mut [MaybeUninit<f32>]; 1]| {
        dx.par_chunks_mut(n.max(1)).enumerate().with_min_len(min_rows(n)).par_for_each(|(i, dx)| {
            let row = i * n..(i + 1) * n;
            differentiate(
                &x[row.clone()],
                weight,
                rstd[i],
                &dy[row.clone()],
                residual.map(|residual| &residual[row]),
                dx,
            );
        });
    };
    // SAFETY: `differentiate` writes its row.
    let [dx] = unsafe { init_with([m * n], write) };
    tensor(dx, (m, n))
}

/// `dw (hidden) = Σ_rows dy ⊙ x·rstd`.
pub fn backward_weight(x: &Tensor, rstd: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n) = x.dims2()?;
    check(rstd.dims() == [m] && dy.dims() == [m, n])?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::backward_weight(x, rstd, dy);
    }
    let x = x.contiguous()?;
    let rstd = rstd.contiguous()?;
    let dy = dy.contiguous()?;
    let x = View::of(&x)?;
    let rstd = View::of(&rstd)?;
    let dy = View::of(&dy)?;
    let x = x.f32()?;
    let rstd = rstd.f32()?;
    let dy = dy.f32()?;
    let mut dw = vec![0.0f32; n];
    // Threads share out the channels, so each channel's sum runs over the rows in order.
    dw.par_chunks_mut(COLUMNS).enumerate().par_for_each(|(block, dw)| {
        let columns = block * COLUMNS..block * COLUMNS + dw.len();
        for ((x, dy), rstd) in x.chunks(n.max(1)).zip(dy.chunks(n.max(1))).zip(rstd) {
            add_row(&x[columns.clone()], &dy[columns.clone()], *rstd, dw);
        }
    });
    tensor(dw, n)
}

fn check(fits: bool) -> Result<()> {
    if fits { Ok(()) } else { Err(Error::run("rms_norm: operands of different shapes")) }
}

/// Channels a task of [`backward_weight`] sums.
const COLUMNS: usize = 256;

/// Rows below which a task is not worth a thread.
fn min_rows(n: usize) -> usize {
    (1 << 13) / n.max(1) + 1
}

vectorised! {
    fn normalise(x: &[f32], weight: &[f32], eps: f32, y: &mut [MaybeUninit<f32>]) -> f32 {
        let rstd = 1.0 / (sum([x], |[x]| x * x) / x.len() as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            y.write(w * (x * rstd));
        }
        rstd
    }

    fn differentiate(
        x: &[f32],
        weight: &[f32],
        rstd: f32,
        dy: &[f32],
        residual: Option<&[f32]>,
        dx: &mut [MaybeUninit<f32>],
    ) {
        let mean = sum([weight, dy, x], |[w, dy, x]| w * dy * x) * rstd * rstd / x.len() as f32;
        let terms = x.iter().zip(weight).zip(dy).map(|((x, w), dy)| rstd * (w * dy - x * mean));
        match residual {
            None => dx.iter_mut().zip(terms).for_each(|(dx, term)| *dx = MaybeUninit::new(term)),
            Some(residual) => {
                let rows = dx.iter_mut().zip(terms).zip(residual);
                rows.for_each(|((dx, term), residual)| *dx = MaybeUninit::new(term + residual));
            }
        }
    }

    fn add_row(x: &[f32], dy: &[f32], rstd: f32, dw: &mut [f32]) {
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw += dy * (x * rstd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;
    use crate::ops::tests::{assert_close, on_threads, random_tensor, values};

    /// `(y, dx, dw)` in f64.
    fn reference(x: &[f32], w: &[f32], dy: &[f32], eps: f64) -> [Vec<f64>; 3] {
        let n = w.len();
        let [mut y, mut dx, mut dw] = [vec![], vec![], vec![0.0; n]];
        for (x, dy) in x.chunks(n).zip(dy.chunks(n)) {
            let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
            let x = wide(x);
            let w = wide(w);
            let dy = wide(dy);
            let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / n as f64 + eps).sqrt();
            // d(x_j·rstd)/dx_i = δ_ij·rstd − x_i·x_j·rstd³/n, summed by the definition.
            for i in 0..n {
                y.push(w[i] * x[i] * rstd);
                dw[i] += dy[i] * x[i] * rstd;
                let cross: f64 = (0..n).map(|j| dy[j] * w[j] * x[i] * x[j] * rstd.powi(3) / n as f64).sum();
                dx.push(dy[i] * w[i] * rstd - cross);
            }
        }
        [y, dx, dw]
    }

    #[test]
    fn forward_and_backward_equal_an_f64_reference() {
        for (m, n) in [(1, 1), (3, 63), (65, 64), (2, 65), (40, 576)] {
            let x = random_tensor(1, &[m, n]);
            let dy = random_tensor(2, &[m, n]);
            let w = random_tensor(3, &[n]);
            let [y_ref, dx_ref, dw_ref] = reference(&values(&x), &values(&w), &values(&dy), 1e-5);
            let run = || {
                let (y, rstd) = forward(&x, &w, 1e-5).unwrap();
                let dx = backward(&x, &w, &rstd, &dy).unwrap();
                let dw = backward_weight(&x, &rstd, &dy).unwrap();
                [y, dx, dw].map(|t| values(&t))
            };
            let [y, dx, dw] = same_on_every_isa(run);
            assert_close(&y, &y_ref, 2e-6, "y");
            assert_close(&dx, &dx_ref, 5e-6, "dx");
            assert_close(&dw, &dw_ref, 5e-6, "dw");
            assert_eq!(on_threads(2, run), [y.clone(), dx, dw]);
            let last = forward(&x.narrow(0, m - 1, 1).unwrap(), &w, 1e-5).unwrap().0;
            assert_eq!(values(&last), y[(m - 1) * n..]);
        }
    }

    #[test]
    fn residuals_in_the_same_pass_give_the_same_bits() {
        let [a, b, dy] = [1, 2, 3].map(|seed| random_tensor(seed, &[40, 65]));
        let w = random_tensor(4, &[65]);
        let (sum, y, rstd) = add_forward(a.copy().unwrap(), &b, &w, 1e-5).unwrap();
        let expected = (&a + &b).unwrap();
        let (expected_y, expected_rstd) = forward(&expected, &w, 1e-5).unwrap();
        assert_eq!([&sum, &y, &rstd].map(values), [&expected, &expected_y, &expected_rstd].map(values));
        let dx = backward_add(&sum, &w, &rstd, &dy, &b).unwrap();
        assert_eq!(values(&dx), values(&(backward(&sum, &w, &rstd, &dy).unwrap() + &b).unwrap()));
        assert!(backward_add(&sum, &w, &rstd, &dy, &w).is_err());
    }

    #[test]
    fn shapes_are_checked() {
        let x = random_tensor(1, &[3, 4]);
        let w = random_tensor(2, &[5]);
        assert!(forward(&x, &w, 1e-5).is_err());
    }
}
