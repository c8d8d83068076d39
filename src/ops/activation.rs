//! Activation functions of the classification (CLS) head: exact (erf) GELU, ReLU, tanh.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use candle_core::cpu::erf::erf_f64;

use super::cpu::slice::{View, tensor};
pub use crate::config::Activation;
use crate::error::{Error, Result};

/// Applies the activation elementwise; the output has the shape of `x`.
pub fn forward(kind: Activation, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::forward(kind, x);
    }
    zip_map(x, x, |x, _| match kind {
        Activation::Gelu => x * normal_cdf(x),
        // Not `max`, which would turn NaN into 0.
        Activation::Relu if x > 0.0 || x.is_nan() => x,
        Activation::Relu => 0.0,
        Activation::Tanh => x.tanh(),
    })
}

/// `dx = dy·f′(x)`; `x` is the forward pass's input, not its output.
pub fn backward(kind: Activation, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    same_shape(x, dy)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::backward(kind, x, dy);
    }
    zip_map(x, dy, |x, dy| match kind {
        Activation::Gelu => dy * (normal_cdf(x) + x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()),
        Activation::Relu if x > 0.0 => dy,
        Activation::Relu => 0.0,
        Activation::Tanh => dy * (1.0 - x.tanh() * x.tanh()),
    })
}

/// The standard normal cumulative distribution function Φ.
fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + erf_f64(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(Error::run(format!("activation: shapes {:?} and {:?} differ", a.dims(), b.dims())))
}

/// Elementwise in f64, rounded to f32 once. The head runs on one hidden state per record, so the extra precision costs
/// next to nothing.
fn zip_map(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
    let shape = a.shape().clone();
    let a = a.contiguous()?;
    let b = b.contiguous()?;
    let a = View::of(&a)?;
    let b = View::of(&b)?;
    let values = a.f32()?.iter().zip(b.f32()?).map(|(&a, &b)| f(f64::from(a), f64::from(b)) as f32).collect();
    tensor(values, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{assert_close, random_tensor, values};

    #[test]
    fn gelu_equals_pytorch() {
        let x = Tensor::from_vec(vec![0.0f32, 1.0, -2.0, 3.0, 0.5, 0.25], (2, 3), &candle_core::Device::Cpu).unwrap();
        let torch = [
            0.0,
            0.841_344_714_164_733_9,
            -0.045_500_278_472_900_39,
            2.995_949_745_178_222_7,
            0.345_731_228_590_011_6,
            0.149_676_576_256_752,
        ];
        assert_close(&values(&forward(Activation::Gelu, &x).unwrap()), &torch, 2e-7, "gelu");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let x = Tensor::from_vec(vec![f32::NAN, f32::INFINITY, -1.0], 3, &candle_core::Device::Cpu).unwrap();
        for kind in [Activation::Gelu, Activation::Relu, Activation::Tanh] {
            assert!(values(&forward(kind, &x).unwrap())[0].is_nan(), "{kind:?}");
        }
        assert_eq!(values(&forward(Activation::Relu, &x).unwrap())[1..], [f32::INFINITY, 0.0]);
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let x = random_tensor(1, &[5, 13]);
        let dy = random_tensor(2, &[5, 13]);
        for kind in [Activation::Gelu, Activation::Relu, Activation::Tanh] {
            let shifted = |by: f64| values(&forward(kind, &(&x + by).unwrap()).unwrap());
            let up = shifted(1.0 / 64.0);
            let down = shifted(-1.0 / 64.0);
            let dx = values(&backward(kind, &x, &dy).unwrap());
            for (i, (x, dy)) in values(&x).iter().zip(values(&dy)).enumerate() {
                if kind == Activation::Relu && x.abs() < 0.02 {
                    continue;
                }
                let slope = (up[i] - down[i]) * 32.0 * dy;
                assert!((dx[i] - slope).abs() < 5e-4, "{kind:?} at {x}: {} and {slope}", dx[i]);
            }
        }
    }
}
