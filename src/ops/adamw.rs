//! AdamW in place, in the order of arithmetic of `torch.optim.AdamW`, and the global norm of gradients.
//!
//! ```text
//! p ← p·(1 − lr·wd);  m ← m + (1−β₁)(g − m);  v ← v·β₂ + (1−β₂)·g·g
//! p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps)
//! ```

use candle_core::Tensor;
use rayon::prelude::*;

use super::simd::vectorised;
use super::slice::{View, update_f32};
use crate::error::{Error, Result};

const BLOCK: usize = 4096;

/// Settings of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, counted from 1.
    pub step: u64,
}

/// The scalars of a step as f32: computed in f64 and rounded once, as PyTorch does.
#[derive(Clone, Copy)]
struct Scalars {
    decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    root2: f32,
    eps: f32,
    step_size: f32,
}

/// Updates `param`, `m` and `v` in place from `grad`; all f32 of one shape, four separate tensors.
pub fn step(param: &Tensor, grad: &Tensor, m: &Tensor, v: &Tensor, settings: &AdamW) -> Result<()> {
    if [grad, m, v].iter().any(|t| t.dims() != param.dims()) {
        return Err(Error::run(format!(
            "adamw: parameter {:?}, gradient {:?}, moments {:?} {:?}",
            param.dims(),
            grad.dims(),
            m.dims(),
            v.dims()
        )));
    }
    let exponent = settings.step as f64;
    let scalars = Scalars {
        decay: (1.0 - settings.lr * settings.weight_decay) as f32,
        one_minus_beta1: (1.0 - settings.beta1) as f32,
        beta2: settings.beta2 as f32,
        one_minus_beta2: (1.0 - settings.beta2) as f32,
        root2: (1.0 - settings.beta2.powf(exponent)).sqrt() as f32,
        eps: settings.eps as f32,
        step_size: (settings.lr / (1.0 - settings.beta1.powf(exponent))) as f32,
    };
    let grad = grad.contiguous()?;
    let grad = View::of(&grad)?;
    let grad = grad.f32()?;
    update_f32(param, |param| {
        update_f32(m, |m| {
            update_f32(v, |v| {
                param
                    .par_chunks_mut(BLOCK)
                    .zip(m.par_chunks_mut(BLOCK))
                    .zip(v.par_chunks_mut(BLOCK))
                    .zip(grad.par_chunks(BLOCK))
                    .for_each(|(((param, m), v), grad)| update(param, m, v, grad, scalars));
                Ok(())
            })
        })
    })
}

vectorised! {
    fn update(param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], s: Scalars) {
        for (((p, m), v), g) in param.iter_mut().zip(m).zip(v).zip(grad) {
            *p *= s.decay;
            *m += s.one_minus_beta1 * (g - *m);
            *v = *v * s.beta2 + s.one_minus_beta2 * g * g;
            *p -= s.step_size * *m / (v.sqrt() / s.root2 + s.eps);
        }
    }

    fn square_sum(block: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        for chunk in block.chunks(16) {
            lanes.iter_mut().zip(chunk).for_each(|(lane, &x)| *lane += f64::from(x) * f64::from(x));
        }
        lanes.iter().sum()
    }
}

/// Global L2 norm of f32 tensors, in f64: blocks of fixed size, then tensors in the order given.
pub fn grad_norm<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let mut total = 0.0;
    for tensor in tensors {
        let tensor = tensor.contiguous()?;
        let view = View::of(&tensor)?;
        let blocks: Vec<f64> = view.f32()?.par_chunks(BLOCK).map(square_sum).collect();
        total += blocks.iter().sum::<f64>();
    }
    Ok(total.sqrt())
}
