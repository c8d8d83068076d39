//! Inverted dropout whose mask is a function of (seed, sequence, position, channel) alone.
//!
//! Element `(t, c)` of sequence `s` is kept where `uniform(steps[s], t·width + c) ≥ p`, and scaled by `1/(1−p)`. So a
//! record's mask does not depend on what shares its batch, and backward is the same call on the gradient.

use candle_core::Tensor;
use rayon::prelude::*;

use super::Offsets;
use super::slice::{View, tensor};
use crate::error::{Error, Result};
use crate::rng::{Rng, to_unit};

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
    let rows: Vec<(u64, usize)> =
        offsets.ranges().zip(&key.steps).flat_map(|(range, &step)| (0..range.len()).map(move |t| (step, t))).collect();
    let x = x.contiguous()?;
    let x = View::of(&x)?;
    let mut y = x.f32()?.to_vec();
    let scale = 1.0 / (1.0 - key.p);
    y.par_chunks_mut(width.max(1)).zip(rows).for_each(|(y, (step, t))| {
        let first = (t * width) as u64;
        let mut words = key.rng.block(step, first / 4);
        for (c, y) in y.iter_mut().enumerate() {
            let index = first + c as u64;
            if index.is_multiple_of(4) {
                words = key.rng.block(step, index / 4);
            }
            *y = if to_unit(words[(index % 4) as usize]) >= key.p { *y * scale } else { 0.0 };
        }
    });
    tensor(y, (m, width))
}
