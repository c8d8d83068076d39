//! `a + b` written over `a`: residual streams and sums of gradients, without another buffer.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::par_for::ParFor;
use super::cpu::simd::vectorised;
use super::cpu::slice::{View, update_f32};
use crate::error::{Error, Result};

const BLOCK: usize = 16_384;

/// `a + b`, f32 (on CUDA bf16 too), of one shape. `a` must be a tensor nobody else holds: its elements are overwritten.
pub fn add(a: Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        return Err(Error::run(format!("add: {:?} and {:?}", a.dims(), b.dims())));
    }
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return cuda::add(a, b);
    }
    if !a.is_contiguous() {
        return Ok((a + b)?);
    }
    let b = b.contiguous()?;
    let view = View::of(&b)?;
    let b = view.f32()?;
    update_f32(&a, |a| {
        a.par_chunks_mut(BLOCK).zip(b.par_chunks(BLOCK)).par_for_each(|(a, b)| add_assign(a, b));
        Ok(())
    })?;
    Ok(a)
}

vectorised! {
    pub(in crate::ops) fn add_assign(a: &mut [f32], b: &[f32]) {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    }
}

#[cfg(feature = "cuda")]
pub(in crate::ops) use cuda::add_bias;

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_sum_is_written_over_the_first() {
        let values = |k: f32| (0..40_000).map(|i| i as f32 * k).collect::<Vec<_>>();
        let a = Tensor::new(values(0.5), &Device::Cpu).unwrap();
        let b = Tensor::new(values(0.25), &Device::Cpu).unwrap();
        let handle = a.clone();
        let sum = add(a, &b).unwrap();
        assert_eq!(sum.to_vec1::<f32>().unwrap(), values(0.75));
        assert_eq!(handle.to_vec1::<f32>().unwrap(), values(0.75));
        assert!(add(sum, &b.narrow(0, 0, 3).unwrap()).is_err());
    }
}
