//! Activations of the CLS head: exact (erf) GELU, ReLU, tanh.

use candle_core::Tensor;
use candle_core::cpu::erf::erf_f64;

use super::slice::{View, tensor};
pub use crate::config::Activation;
use crate::error::Result;

/// `f(x)`.
pub fn forward(kind: Activation, x: &Tensor) -> Result<Tensor> {
    map2(x, x, |x, _| match kind {
        Activation::Gelu => x * phi(x),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    })
}

/// `dx = dy·f′(x)`.
pub fn backward(kind: Activation, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    map2(x, dy, |x, dy| match kind {
        Activation::Gelu => dy * (phi(x) + x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()),
        Activation::Relu if x > 0.0 => dy,
        Activation::Relu => 0.0,
        Activation::Tanh => dy * (1.0 - x.tanh() * x.tanh()),
    })
}

/// The standard normal distribution function.
fn phi(x: f64) -> f64 {
    0.5 * (1.0 + erf_f64(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// Elementwise in f64, rounded once: the head sees one row a record, so exactness is free.
fn map2(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
    let shape = a.shape().clone();
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let (a, b) = (View::of(&a)?, View::of(&b)?);
    let values = a.f32()?.iter().zip(b.f32()?).map(|(&a, &b)| f(f64::from(a), f64::from(b)) as f32).collect();
    tensor(values, shape)
}
