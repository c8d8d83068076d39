//! Inverted dropout whose mask is a function of (seed, sequence, position, channel) alone.
//!
//! Element `(t, c)` of sequence `s` is kept where `uniform(steps[s], t·width + c) ≥ p`, and scaled by `1/(1−p)`. So a
//! record's mask does not depend on what shares its batch, and backward is the same call on the gradient.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use rayon::prelude::*;

use super::Offsets;
use super::share::Share;
use super::simd::vectorised;
use super::slice::{View, tensor};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// What decides a mask: the rate, the stream, and one step a sequence.
#[derive(Debug, Clone)]
pub struct DropoutKey {
    /// Probability of dropping an element.
    pub p: f32,
    /// Stream the mask is drawn from.
    pub rng: Rng,
    /// The stream's step for each sequence.
    pub steps: Vec<u64>,
}

/// Drops elements of `x (tokens, width)`; also the backward pass, applied to the gradient.
pub fn forward(x: &Tensor, key: &DropoutKey, offsets: &Offsets) -> Result<Tensor> {
    if key.p <= 0.0 {
        return Ok(x.clone());
    }
    let (m, width) = x.dims2()?;
    if key.steps.len() != offsets.count() || offsets.total() != m {
        return Err(Error::run(format!(
            "dropout: {} steps and {} rows of offsets for {} sequences of {m} rows",
            key.steps.len(),
            offsets.total(),
            offsets.count()
        )));
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::forward(x, key, offsets);
    }
    let rows: Vec<(u64, usize)> =
        offsets.ranges().zip(&key.steps).flat_map(|(range, &step)| (0..range.len()).map(move |t| (step, t))).collect();
    let x = x.contiguous()?;
    let x = View::of(&x)?;
    let mut y = x.f32()?.to_vec();
    let scale = 1.0 / (1.0 - key.p);
    y.par_chunks_mut(width.max(1)).zip(rows).share(|(y, (step, t))| {
        drop_row(y, key.rng, step, (t * width) as u64, key.p, scale);
    });
    tensor(y, (m, width))
}

vectorised! {
    fn drop_row(y: &mut [f32], rng: Rng, step: u64, first: u64, p: f32, scale: f32) {
        let mut draws = [0.0; 256];
        for (chunk, y) in y.chunks_mut(draws.len()).enumerate() {
            let draws = &mut draws[..y.len()];
            rng.fill_uniform(step, first + (chunk * 256) as u64, draws);
            for (y, draw) in y.iter_mut().zip(draws) {
                *y = if *draw >= p { *y * scale } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{random_tensor, values};
    use crate::rng::streams;

    fn key(steps: &[u64]) -> DropoutKey {
        DropoutKey { p: 0.3, rng: Rng::new(5, streams::LORA_DROPOUT), steps: steps.to_vec() }
    }

    #[test]
    fn an_element_is_kept_as_its_own_draw_says() {
        for width in [1, 7, 64, 65] {
            let (offsets, key) = (Offsets::from_lengths(&[3, 0, 5]), key(&[11, 12, 13]));
            let x = random_tensor(1, &[8, width]);
            let y = values(&forward(&x, &key, &offsets).unwrap());
            for (i, (x, y)) in values(&x).iter().zip(&y).enumerate() {
                let (row, c) = (i / width, i % width);
                let (step, t) = if row < 3 { (11, row) } else { (13, row - 3) };
                let kept = key.rng.uniform(step, (t * width + c) as u64) >= 0.3;
                assert_eq!(*y, if kept { x * (1.0 / (1.0 - 0.3f32)) } else { 0.0 });
            }
        }
    }

    #[test]
    fn a_mask_does_not_depend_on_the_batch_and_keeps_the_share_it_should() {
        let ones = Tensor::ones((300, 64), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let both = values(&forward(&ones, &key(&[1, 2]), &Offsets::from_lengths(&[100, 200])).unwrap());
        let alone = values(&forward(&ones.narrow(0, 0, 200).unwrap(), &key(&[2]), &Offsets::from_lengths(&[200])).unwrap());
        assert_eq!(both[100 * 64..], alone);
        let kept = both.iter().filter(|&&y| y > 0.0).count() as f64 / both.len() as f64;
        assert!((kept - 0.7).abs() < 0.02, "{kept}");
    }

    #[test]
    fn rate_zero_is_the_identity_and_wrong_offsets_are_refused() {
        let (x, offsets) = (random_tensor(1, &[4, 3]), Offsets::from_lengths(&[4]));
        let none = DropoutKey { p: 0.0, ..key(&[]) };
        assert_eq!(values(&forward(&x, &none, &offsets).unwrap()), values(&x));
        assert!(forward(&x, &key(&[1, 2]), &offsets).is_err());
        assert!(forward(&x, &key(&[1]), &Offsets::from_lengths(&[3])).is_err());
    }
}
