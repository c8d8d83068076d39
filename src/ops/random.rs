//! Normal numbers of the counter-based generator ([`crate::rng`]), drawn where they are wanted.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Element `i` is `deviation · rng.normal(step, i)`, f32 or rounded to bf16, and never held in a wider type: a model
/// of any size is drawn in the memory it takes. On CUDA a number may differ in its last bit where the two libraries'
/// logarithms do.
pub fn normal(
    rng: Rng,
    step: u64,
    deviation: f32,
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let shape = shape.into();
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return cuda::normal(rng, step, deviation, shape, dtype, device);
    }
    let draw = |i: usize| deviation * rng.normal(step, i as u64);
    let indices = (0..shape.elem_count()).into_par_iter();
    Ok(match dtype {
        DType::F32 => Tensor::from_vec(indices.map(draw).collect::<Vec<f32>>(), shape, device)?,
        DType::BF16 => {
            Tensor::from_vec(indices.map(|i| bf16::from_f32(draw(i))).collect::<Vec<bf16>>(), shape, device)?
        }
        _ => return Err(Error::run(format!("random numbers are f32 or bf16, not {dtype:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::values;
    use crate::rng::streams;

    #[test]
    fn numbers_are_those_of_the_generator_rounded_once() {
        let rng = Rng::new(7, streams::MODEL_INIT);
        let drawn = |dtype| normal(rng, 5, 0.02, (3, 11), dtype, &Device::Cpu).unwrap();
        let expected: Vec<f32> = (0..33).map(|i| 0.02 * rng.normal(5, i)).collect();
        assert_eq!(values(&drawn(DType::F32)), expected);
        let rounded: Vec<f32> = expected.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        assert_eq!(values(&drawn(DType::BF16).to_dtype(DType::F32).unwrap()), rounded);
        assert!(normal(rng, 5, 0.02, 3, DType::U8, &Device::Cpu).is_err());
    }
}
