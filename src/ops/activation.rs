//! Activations of the CLS head: exact (erf) GELU, ReLU, tanh.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use candle_core::cpu::erf::erf_f64;

use super::cpu::slice::{View, tensor};
pub use crate::config::Activation;
use crate::error::{Error, Result};

/// `f(x)`.
pub fn forward(kind: Activation, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::forward(kind, x);
    }
    map2(x, x, |x, _| match kind {
        Activation::Gelu => x * phi(x),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    })
}

/// `dx = dy·f′(x)`.
pub fn backward(kind: Activation, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    same_shape(x, dy)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::backward(kind, x, dy);
    }
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

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(Error::run(format!("activation: shapes {:?} and {:?} differ", a.dims(), b.dims())))
}

/// Elementwise in f64, rounded once: the head sees one row a record, so exactness is free.
fn map2(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
    let shape = a.shape().clone();
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let (a, b) = (View::of(&a)?, View::of(&b)?);
    let values = a.f32()?.iter().zip(b.f32()?).map(|(&a, &b)| f(f64::from(a), f64::from(b)) as f32).collect();
    tensor(values, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random_tensor, values};

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
    fn backward_is_the_slope_of_forward() {
        let (x, dy) = (random_tensor(1, &[5, 13]), random_tensor(2, &[5, 13]));
        for kind in [Activation::Gelu, Activation::Relu, Activation::Tanh] {
            let shifted = |by: f64| values(&forward(kind, &(&x + by).unwrap()).unwrap());
            let (up, down) = (shifted(1.0 / 64.0), shifted(-1.0 / 64.0));
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
