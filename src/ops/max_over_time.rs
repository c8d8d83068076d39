//! Convolution over time and its maximum, with a gradient that touches the winning windows alone. On a CPU only.
//!
//! ```text
//! y[b, f] = max_t ⟨W[f], x[b, t .. t+k]⟩        dW[f] = Σ_b dy[b, f] · x[b, t* .. t*+k]
//! ```
//!
//! `x (tokens, D)`, documents one after another, `W (F, k·D)`; t* is the first of the highest. A window of k rows is
//! contiguous in x, so one product `x · (W cut into k taps)ᵀ` and its shifted sums are the convolution, and the
//! gradient needs no second product of that size. x is not trained: its gradient is not computed.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::{
    Offsets,
    cpu::{
        par_for::ParFor,
        simd::vectorised,
        slice::{View, tensor},
    },
    linear,
};
use crate::error::{Error, Result};

/// Rows of x that are multiplied at once: bounds the memory of one product.
const ROWS: usize = 2048;

/// The row of x at which each filter's winning window begins, `(documents · F)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Winners(Vec<usize>);

/// `x (tokens, D)`, `weight (F, k·D)` → `(documents, F)` and the winners. Each document has k rows or more.
pub fn forward(x: &Tensor, weight: &Tensor, offsets: &Offsets) -> Result<(Tensor, Winners)> {
    let ((tokens, width), (filters, span)) = (x.dims2()?, weight.dims2()?);
    let kernel = kernel(width, span)?;
    if offsets.total() != tokens || offsets.ranges().any(|range| range.len() < kernel) {
        return Err(Error::run(format!(
            "max_over_time: {tokens} rows, or a document of them too short for windows of {kernel}"
        )));
    }
    // (F, k, D) → (k·F, D): row j·F + f is tap j of filter f.
    let taps =
        weight.reshape((filters, kernel, width))?.transpose(0, 1)?.contiguous()?.reshape((kernel * filters, width))?;
    let mut highest = Vec::with_capacity(offsets.count() * filters);
    for group in groups(offsets) {
        let (first, end) = (offsets.range(group.start).start, offsets.range(group.end - 1).end);
        let products = linear::forward(&x.narrow(0, first, end - first)?, &taps, None)?;
        let products = View::of(&products)?;
        let products = products.f32()?;
        let found = group.into_par_iter().par_map(|document| {
            let range = offsets.range(document);
            let products = &products[(range.start - first) * kernel * filters..(range.end - first) * kernel * filters];
            let mut best = vec![(0.0, 0); filters];
            windows(products, range.len() + 1 - kernel, kernel, &mut best);
            best.into_iter().map(|(value, t)| (value, range.start + t)).collect::<Vec<_>>()
        });
        highest.extend(found.into_iter().flatten());
    }
    let (values, winners) = highest.into_iter().unzip();
    Ok((tensor(values, (offsets.count(), filters))?, Winners(winners)))
}

/// `dy (documents, F)`, `x` and the winners of [`forward`] → `dW (F, k·D)`, where k·D is `span`.
pub fn backward_weight(dy: &Tensor, x: &Tensor, winners: &Winners, span: usize) -> Result<Tensor> {
    let ((documents, filters), (tokens, width)) = (dy.dims2()?, x.dims2()?);
    let kernel = kernel(width, span)?;
    if winners.0.len() != documents * filters || winners.0.iter().any(|row| row + kernel > tokens) {
        return Err(Error::run("max_over_time::backward_weight: the winners are another batch's"));
    }
    let (dy, x) = (dy.contiguous()?, x.contiguous()?);
    let (dy, x) = (View::of(&dy)?, View::of(&x)?);
    let (dy, x) = (dy.f32()?, x.f32()?);
    let mut dw = vec![0.0; filters * span];
    dw.par_chunks_mut(span.max(1)).enumerate().par_for_each(|(f, dw)| {
        for (dy, row) in dy.iter().zip(&winners.0).skip(f).step_by(filters) {
            // Dropout and ReLU leave a quarter of them, or fewer.
            if *dy != 0.0 {
                add_scaled(dw, &x[row * width..][..span], *dy);
            }
        }
    });
    tensor(dw, (filters, span))
}

/// k, of rows of `width` numbers and windows of `span`.
fn kernel(width: usize, span: usize) -> Result<usize> {
    match span.checked_div(width) {
        Some(kernel) if kernel > 0 && kernel * width == span => Ok(kernel),
        _ => Err(Error::run(format!("max_over_time: windows of {span} numbers over rows of {width}"))),
    }
}

/// Runs of documents of no more than [`ROWS`] rows together, or of one.
fn groups(offsets: &Offsets) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (document, range) in offsets.ranges().enumerate() {
        match groups.last_mut() {
            Some(group) if range.end - offsets.range(group.start).start <= ROWS => group.end = document + 1,
            _ => groups.push(document..document + 1),
        }
    }
    groups
}

vectorised! {
    /// Of one document's `products (length, k·F)`: each filter's highest of `count` sums of k taps, and the first row
    /// of such a window.
    fn windows(products: &[f32], count: usize, kernel: usize, best: &mut [(f32, usize)]) {
        let filters = best.len();
        let mut sums = vec![0.0f32; filters];
        for t in 0..count {
            sums.fill(0.0);
            for j in 0..kernel {
                let tap = &products[(t + j) * kernel * filters + j * filters..][..filters];
                sums.iter_mut().zip(tap).for_each(|(sum, product)| *sum += product);
            }
            for (best, &sum) in best.iter_mut().zip(&sums) {
                // What is not a number stays one: nothing is higher.
                if t == 0 || sum > best.0 {
                    *best = (sum, t);
                }
            }
        }
    }

    fn add_scaled(dw: &mut [f32], window: &[f32], dy: f32) {
        dw.iter_mut().zip(window).for_each(|(dw, x)| *dw += dy * x);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::tests::{assert_close, random_tensor, values};

    /// Against the definition written out, and its gradient against finite differences of Σ y².
    #[test]
    fn value_and_gradient_are_those_of_the_definition() {
        let (width, kernel, filters) = (3, 2, 4);
        let offsets = Offsets::from_lengths(&[2, 4, 3]);
        let x = random_tensor(1, &[9, width]);
        let weight = random_tensor(2, &[filters, kernel * width]);
        let (rows, start) = (values(&x), values(&weight));
        let define = |weight: &[f32]| -> Vec<f64> {
            let of = |range: Range<usize>, f: usize| {
                let dot = |t: usize| -> f64 {
                    (0..kernel * width)
                        .map(|i| f64::from(weight[f * kernel * width + i]) * f64::from(rows[t * width + i]))
                        .sum()
                };
                (range.start..=range.end - kernel).map(dot).fold(f64::NEG_INFINITY, f64::max)
            };
            offsets
                .ranges()
                .flat_map(|range| (0..filters).map(move |f| (range.clone(), f)))
                .map(|(range, f)| of(range, f))
                .collect()
        };
        let (y, winners) = forward(&x, &weight, &offsets).unwrap();
        assert_close(&values(&y), &define(&start), 1e-6, "y");
        let gradient = values(&backward_weight(&(&y * 2.0).unwrap(), &x, &winners, kernel * width).unwrap());
        for i in 0..start.len() {
            let shifted = |by: f32| {
                let mut weight = start.clone();
                weight[i] += by;
                define(&weight).iter().map(|y| y.powi(2)).sum::<f64>()
            };
            let expected = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            assert!(
                (f64::from(gradient[i]) - expected).abs() < 2e-2 * expected.abs().max(1.0),
                "{i}: {} {expected}",
                gradient[i]
            );
        }
    }

    #[test]
    fn a_batch_larger_than_one_product_is_cut_and_gives_the_same() {
        let rows: Vec<f32> = (0..10_000).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect();
        let x = Tensor::from_vec(rows, (5000, 2), &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(vec![0.3f32, -0.2, 0.5, 0.1], (1, 4), &Device::Cpu).unwrap();
        let (y, winners) = forward(&x, &weight, &Offsets::from_lengths(&[1500, 1500, 2000])).unwrap();
        for (i, (first, length)) in [(0, 1500), (1500, 1500), (3000, 2000)].into_iter().enumerate() {
            let (alone, at) =
                forward(&x.narrow(0, first, length).unwrap(), &weight, &Offsets::from_lengths(&[length])).unwrap();
            assert_eq!((values(&alone)[0], at.0[0] + first), (values(&y)[i], winners.0[i]));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, weight) = (random_tensor(1, &[5, 3]), random_tensor(2, &[2, 6]));
        let offsets = Offsets::from_lengths(&[2, 3]);
        assert!(forward(&x, &weight, &Offsets::from_lengths(&[1, 4])).is_err(), "a document shorter than a window");
        assert!(forward(&x, &weight, &Offsets::from_lengths(&[2, 2])).is_err());
        assert!(forward(&x, &random_tensor(2, &[2, 7]), &offsets).is_err());
        let (y, winners) = forward(&x, &weight, &offsets).unwrap();
        assert!(backward_weight(&y.narrow(0, 0, 1).unwrap(), &x, &winners, 6).is_err());
        assert!(backward_weight(&y, &x.narrow(0, 0, 3).unwrap(), &winners, 6).is_err());
    }
}
