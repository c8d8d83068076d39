//! Convolution over time and its maximum, with a gradient that touches the winning windows alone.
//!
//! `y[b, f] = max_t ⟨W[f], x[b, t .. t+k]⟩` with `x[b] (L, D)`, `W (F, k·D)`. A window of k rows is contiguous in x, so the
//! value at its winner is a plain dot product, and `∂y[b, f]/∂W[f]` is that window itself. The search for winners needs no graph:
//! one product `x · (W cut into k taps)ᵀ`, then shifted sums. What would be a dense backward product of the same size as
//! the forward one is F·k·D multiplications a record.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{error::Result, ops::linear};

/// Rows of x that are multiplied at once: bounds the memory of one product.
const ROWS: usize = 2048;

/// Documents of one batch, embedded: rows of width D one after another.
pub(super) struct Batch {
    /// `(sum of lengths, D)`.
    pub rows: Vec<f32>,
    /// Rows of each document.
    pub lengths: Vec<usize>,
    /// D.
    pub width: usize,
}

/// `W (F, k·D)` → `(documents, F)`.
pub(super) fn max_over_time(batch: &std::sync::Arc<Batch>, weight: &Tensor, kernel: usize) -> Result<Tensor> {
    let winners = winners(batch, weight, kernel)?;
    Ok(weight.apply_op1(Windows { batch: batch.clone(), winners, span: kernel * batch.width })?)
}

/// The row of x at which each filter's winning window begins, `(documents · F)`; the first one of equals.
fn winners(batch: &Batch, weight: &Tensor, kernel: usize) -> Result<Vec<usize>> {
    let (filters, width) = (weight.dim(0)?, batch.width);
    // (F, k, D) → (k·F, D): row j·F + f is tap j of filter f.
    let taps = weight.detach().reshape((filters, kernel, width))?.transpose(0, 1)?.contiguous()?.reshape((kernel * filters, width))?;
    let mut winners = Vec::with_capacity(batch.lengths.len() * filters);
    let (mut document, mut start) = (0, 0);
    while document < batch.lengths.len() {
        let mut group = Vec::new();
        let mut rows = 0;
        while let Some(&length) = batch.lengths.get(document).filter(|&&length| group.is_empty() || rows + length <= ROWS) {
            group.push((rows, length));
            (rows, document) = (rows + length, document + 1);
        }
        let x = Tensor::from_slice(&batch.rows[start * width..(start + rows) * width], (rows, width), weight.device())?;
        let products: Vec<f32> = linear::forward(&x, &taps, None)?.flatten_all()?.to_vec1()?;
        let found: Vec<Vec<usize>> = group.par_iter().map(|&(at, length)| first_maximum(&products, at, length, kernel, filters)).collect();
        winners.extend(found.into_iter().flatten().map(|row| start + row));
        start += rows;
    }
    Ok(winners)
}

/// For one document of `length` rows from row `at` of `products (rows, k·F)`: each filter's first row of the highest sum.
fn first_maximum(products: &[f32], at: usize, length: usize, kernel: usize, filters: usize) -> Vec<usize> {
    let mut best = vec![(f32::NEG_INFINITY, at); filters];
    let mut sums = vec![0.0f32; filters];
    for t in at..=at + length - kernel {
        sums.fill(0.0);
        for j in 0..kernel {
            let tap = &products[(t + j) * kernel * filters + j * filters..][..filters];
            sums.iter_mut().zip(tap).for_each(|(sum, product)| *sum += product);
        }
        for (best, &sum) in best.iter_mut().zip(&sums) {
            if sum > best.0 {
                *best = (sum, t);
            }
        }
    }
    best.into_iter().map(|(_, row)| row).collect()
}

/// Dot products of each filter with its winning window, as a function of the filters.
struct Windows {
    batch: std::sync::Arc<Batch>,
    winners: Vec<usize>,
    /// k·D.
    span: usize,
}

impl Windows {
    fn window(&self, index: usize) -> &[f32] {
        let start = self.winners[index] * self.batch.width;
        &self.batch.rows[start..start + self.span]
    }
}

impl CustomOp1 for Windows {
    fn name(&self) -> &'static str {
        "max-over-time"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let weight = storage.as_slice::<f32>()?;
        let (start, end) = layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "max-over-time" }.bt())?;
        let weight = &weight[start..end];
        let filters = layout.dims()[0];
        let values: Vec<f32> = (0..self.winners.len())
            .into_par_iter()
            .map(|i| self.window(i).iter().zip(&weight[i % filters * self.span..][..self.span]).map(|(x, w)| x * w).sum())
            .collect();
        Ok((CpuStorage::F32(values), (self.winners.len() / filters, filters).into()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let filters = arg.dim(0)?;
        let dy: Vec<f32> = grad_res.contiguous()?.flatten_all()?.to_vec1()?;
        let mut gradient = vec![0.0f32; filters * self.span];
        gradient.par_chunks_mut(self.span).enumerate().for_each(|(f, gradient)| {
            for i in (f..dy.len()).step_by(filters) {
                gradient.iter_mut().zip(self.window(i)).for_each(|(g, x)| *g += dy[i] * x);
            }
        });
        Tensor::from_vec(gradient, arg.shape(), arg.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{Device, Var};

    use super::*;

    /// Against the definition written out, and its gradient against finite differences.
    #[test]
    fn value_and_gradient_are_those_of_the_definition() {
        let (width, kernel, filters) = (3, 2, 4);
        let noise = |n: usize, step: u64| -> Vec<f32> {
            let rng = crate::rng::Rng::new(5, crate::rng::streams::MODEL_INIT);
            (0..n).map(|i| rng.normal(step, i as u64)).collect()
        };
        let batch = Arc::new(Batch { rows: noise(9 * width, 1), lengths: vec![2, 4, 3], width });
        let values = noise(filters * kernel * width, 2);
        let define = |weight: &[f32]| -> Vec<f32> {
            let mut y = Vec::new();
            let mut start = 0;
            for &length in &batch.lengths {
                for f in 0..filters {
                    let dot = |t: usize| -> f32 {
                        (0..kernel * width).map(|i| weight[f * kernel * width + i] * batch.rows[(start + t) * width + i]).sum()
                    };
                    y.push((0..=length - kernel).map(dot).fold(f32::NEG_INFINITY, f32::max));
                }
                start += length;
            }
            y
        };
        let weight = Var::from_tensor(&Tensor::from_vec(values.clone(), (filters, kernel * width), &Device::Cpu).unwrap()).unwrap();
        let y = max_over_time(&batch, weight.as_tensor(), kernel).unwrap();
        for (ours, expected) in y.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(define(&values)) {
            assert!((ours - expected).abs() < 1e-5);
        }
        let gradient = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient: Vec<f32> = gradient.get(&weight).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for i in 0..values.len() {
            let shifted = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                define(&values).iter().map(|y| f64::from(*y).powi(2)).sum::<f64>()
            };
            let expected = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            assert!((f64::from(gradient[i]) - expected).abs() < 2e-2 * expected.abs().max(1.0), "{i}: {} {expected}", gradient[i]);
        }
    }

    #[test]
    fn a_batch_larger_than_one_product_is_cut_and_gives_the_same() {
        let width = 2;
        let rows: Vec<f32> = (0..5000 * width).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect();
        let weight = Tensor::from_vec(vec![0.3f32, -0.2, 0.5, 0.1], (1, 4), &Device::Cpu).unwrap();
        let whole = Arc::new(Batch { rows: rows.clone(), lengths: vec![1500, 1500, 2000], width });
        let y = max_over_time(&whole, &weight, 2).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, (start, length)) in [(0, 1500), (1500, 1500), (3000, 2000)].into_iter().enumerate() {
            let one = Arc::new(Batch { rows: rows[start * width..(start + length) * width].to_vec(), lengths: vec![length], width });
            assert_eq!(max_over_time(&one, &weight, 2).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0], y[i]);
        }
    }
}
