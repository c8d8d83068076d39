//! AdamW in place, in the order of arithmetic of `torch.optim.AdamW`, behind clipping by the global norm of gradients.
//!
//! ```text
//! g ← clip·g;  p ← p·(1 − lr·wd);  m ← m + (1−β₁)(g − m);  v ← v·β₂ + (1−β₂)·g·g
//! p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps)
//! ```

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::par_for::ParFor;
use super::cpu::simd::vectorised;
use super::cpu::slice::{View, update_f32};
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
    clip: f32,
    decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    root2: f32,
    eps: f32,
    step_size: f32,
}

/// A tensor of a step, its gradient and its moments: f32, of one shape, four separate tensors.
#[derive(Debug, Clone, Copy)]
pub struct ParamState<'a> {
    /// Trained.
    pub param: &'a Tensor,
    /// Read only.
    pub gradient: &'a Tensor,
    /// First moment.
    pub m: &'a Tensor,
    /// Second moment.
    pub v: &'a Tensor,
}

/// Clips the gradients together to `max_norm` (0: not at all) and updates every `param`, `m` and `v` in place; gives
/// their norm before clipping. A norm that is not finite changes nothing.
///
/// `clip = min(1, max_norm / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`.
pub fn step(parts: &[ParamState<'_>], max_norm: f64, settings: &AdamW) -> Result<f64> {
    for ParamState { param, gradient, m, v } in parts {
        if [gradient, m, v].iter().any(|t| t.dims() != param.dims()) {
            let dims = [param, gradient, m, v].map(|t| t.dims());
            return Err(Error::run(format!("adamw: parameter, gradient and moments have shapes {dims:?}")));
        }
    }
    let exponent = settings.step as f64;
    let scalars = Scalars {
        clip: 1.0,
        decay: (1.0 - settings.lr * settings.weight_decay) as f32,
        one_minus_beta1: (1.0 - settings.beta1) as f32,
        beta2: settings.beta2 as f32,
        one_minus_beta2: (1.0 - settings.beta2) as f32,
        root2: (1.0 - settings.beta2.powf(exponent)).sqrt() as f32,
        eps: settings.eps as f32,
        step_size: (settings.lr / (1.0 - settings.beta1.powf(exponent))) as f32,
    };
    #[cfg(feature = "cuda")]
    if parts.first().is_some_and(|part| part.param.device().is_cuda()) {
        return cuda::step(parts, max_norm, scalars);
    }
    let norm = grad_norm(parts.iter().map(|part| part.gradient))?;
    if norm.is_finite() {
        let clip = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
        parts.iter().try_for_each(|part| update_tensor(part, Scalars { clip, ..scalars }))?;
    }
    Ok(norm)
}

fn update_tensor(part: &ParamState<'_>, scalars: Scalars) -> Result<()> {
    let grad = part.gradient.contiguous()?;
    let grad = View::of(&grad)?;
    let grad = grad.f32()?;
    update_f32(part.param, |param| {
        update_f32(part.m, |m| {
            update_f32(part.v, |v| {
                param
                    .par_chunks_mut(BLOCK)
                    .zip(m.par_chunks_mut(BLOCK))
                    .zip(v.par_chunks_mut(BLOCK))
                    .zip(grad.par_chunks(BLOCK))
                    .par_for_each(|(((param, m), v), grad)| update(param, m, v, grad, scalars));
                Ok(())
            })
        })
    })
}

vectorised! {
    fn update(param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], s: Scalars) {
        for (((p, m), v), g) in param.iter_mut().zip(m).zip(v).zip(grad) {
            let g = g * s.clip;
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
    let tensors: Vec<Tensor> = tensors.into_iter().cloned().collect();
    #[cfg(feature = "cuda")]
    if tensors.first().is_some_and(|tensor| tensor.device().is_cuda()) {
        return cuda::norm(&tensors);
    }
    let mut total = 0.0;
    for tensor in tensors {
        let tensor = tensor.contiguous()?;
        let view = View::of(&tensor)?;
        let blocks: Vec<f64> = view.f32()?.par_chunks(BLOCK).par_map(square_sum);
        total += blocks.iter().sum::<f64>();
    }
    Ok(total.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;
    use crate::ops::tests::{on_threads, random_tensor, values};

    fn settings(step: u64) -> AdamW {
        AdamW { lr: 2e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step }
    }

    fn update(param: &Tensor, gradient: &Tensor, m: &Tensor, v: &Tensor, settings: &AdamW) -> Result<f64> {
        step(&[ParamState { param, gradient, m, v }], 0.0, settings)
    }

    fn vector(values: &[f32]) -> Tensor {
        Tensor::new(values, &candle_core::Device::Cpu).unwrap()
    }

    /// `torch.optim.AdamW(lr=2e-2, weight_decay=0.1)`, PyTorch 2, three steps.
    #[test]
    fn three_steps_equal_pytorch() {
        let p = vector(&[0.5, -1.25, 3.0, 1e-3, -0.0625, 7.5, -2.0]);
        let m = p.zeros_like().unwrap();
        let v = p.zeros_like().unwrap();
        for s in 1..4 {
            let grad: Vec<f32> = (0..7).map(|i| ((i * 7 + s * 3) % 11 - 5) as f32 / 8.0 + i as f32 / 64.0).collect();
            update(&p, &vector(&grad), &m, &v, &settings(s as u64)).unwrap();
        }
        let torch = [
            [0.513_095_56f32, -1.270_502_6, 2.941_699_5, 0.027_328_752, -0.083_468_08, 7.419_617, -1.953_307_2],
            [0.041, 0.021_109_372, 0.013_593_754, 0.019_828_124, -6.249_93e-5, -0.007_578_121_5, -0.001_343_751_1],
            [3.279_844_5e-4, 5.388_454e-4, 5.260_362e-4, 2.876_244e-4, 5.108_948_7e-4, 5.102_805_4e-4, 2.838_488e-4],
        ];
        for (ours, torch) in [p, m, v].iter().zip(torch) {
            for (ours, torch) in values(ours).iter().zip(torch) {
                assert!((ours - torch).abs() <= 3e-7 * torch.abs().max(1e-2), "{ours} and {torch}");
            }
        }
    }

    #[test]
    fn a_step_has_the_same_bits_on_any_number_of_threads() {
        let run = || {
            let p = random_tensor(1, &[3, 5001]);
            let m = random_tensor(2, &[3, 5001]);
            let grad = random_tensor(3, &[3, 5001]);
            let v = m.sqr().unwrap();
            update(&p, &grad, &m, &v, &settings(7)).unwrap();
            ([p, m, v].map(|t| values(&t)), grad_norm([&grad]).unwrap())
        };
        let one = same_on_every_isa(run);
        assert_eq!(on_threads(2, run), one);
        let exact: f64 = values(&random_tensor(3, &[3, 5001])).iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((one.1 - exact.sqrt()).abs() < 1e-9 * exact);
    }

    #[test]
    fn shapes_are_checked_and_the_norm_spans_tensors() {
        let a = vector(&[3.0]);
        let b = vector(&[0.0, 4.0]);
        assert!(update(&a, &b, &a, &a, &settings(1)).is_err());
        assert_eq!(grad_norm([&a, &b]).unwrap(), 5.0);
    }

    /// Clipping in the pass gives the bits of clipping before it, and a norm that is not finite changes nothing.
    #[test]
    fn gradients_are_clipped_together() {
        let [p, m, v, r, s, t] = [(); 6].map(|()| vector(&[0.0, 0.0]));
        let [q, n, w] = [(); 3].map(|()| vector(&[0.0]));
        let gradient = vector(&[3.0, -0.5]);
        let both = |other: f32| {
            let other = vector(&[other]);
            let parts = [
                ParamState { param: &p, gradient: &gradient, m: &m, v: &v },
                ParamState { param: &q, gradient: &other, m: &n, v: &w },
            ];
            step(&parts, 0.5, &settings(1)).unwrap()
        };
        let norm = both(4.0);
        assert!((norm - 25.25f64.sqrt()).abs() < 1e-12, "{norm}");
        let clip = (0.5 / (norm + 1e-6)) as f32;
        update(&r, &vector(&[3.0 * clip, -0.5 * clip]), &s, &t, &settings(1)).unwrap();
        let expected = [&r, &s, &t].map(values);
        assert_eq!([&p, &m, &v].map(values), expected);
        assert!(both(f32::INFINITY).is_infinite() && both(f32::NAN).is_nan());
        assert_eq!([&p, &m, &v].map(values), expected);
    }
}
