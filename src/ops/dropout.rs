//! Inverted dropout whose mask is a function of (seed, sequence, position, channel) alone.
//!
//! Element `(t, c)` of sequence `s` is kept where `uniform(steps[s], t·width + c) ≥ p`, and scaled by `1/(1−p)`.
//! So a record's mask does not depend on what shares its batch or on which of its rows are there, and backward is the
//! same call on the gradient.

#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
mod cuda;

use std::mem::MaybeUninit;

use candle_core::Tensor;
use rayon::prelude::*;

use super::Offsets;
use super::cpu::par_for::ParFor;
use super::cpu::simd::vectorised;
use super::cpu::slice::{View, init_with, tensor};
use super::linear::array;
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
    let [y] = forward_each([x], key, offsets, None)?;
    Ok(y)
}

/// [`forward`] of tensors of one shape: on a CPU their mask is drawn once. Each sequence's first row is at its position
/// in `first`, where given (a CPU alone), else at 0.
pub fn forward_each<const N: usize>(
    xs: [&Tensor; N],
    key: &DropoutKey,
    offsets: &Offsets,
    first: Option<&[usize]>,
) -> Result<[Tensor; N]> {
    if key.p <= 0.0 {
        return Ok(xs.map(Tensor::clone));
    }
    let (m, width) = xs.first().map_or(Ok((0, 0)), |x| x.dims2())?;
    let first = match first {
        Some(first) => first.to_vec(),
        None => vec![0; offsets.count()],
    };
    let counts = [key.steps.len(), first.len()];
    if counts != [offsets.count(); 2] || offsets.total() != m || xs.iter().any(|x| x.dims() != [m, width]) {
        return Err(Error::run(format!(
            "dropout: {} steps and {} rows of offsets for {} sequences of {m} rows",
            key.steps.len(),
            offsets.total(),
            offsets.count()
        )));
    }
    #[cfg(feature = "cuda")]
    if xs.iter().all(|x| x.device().is_cuda()) {
        if first.iter().any(|&first| first > 0) {
            return Err(Error::run("dropout: rows from a later position on are for a CPU"));
        }
        return array(xs.into_iter().map(|x| cuda::forward(x, key, offsets)));
    }
    let held: [Tensor; N] = array(xs.iter().map(|x| Ok(x.contiguous()?)))?;
    let views: [View<'_>; N] = array(held.iter().map(View::of))?;
    let values: [&[f32]; N] = array(views.iter().map(View::f32))?;
    let scale = 1.0 / (1.0 - key.p);
    let write = |ys: [&mut [MaybeUninit<f32>]; N]| {
        let mut xs = values.map(|x| x.chunks(width.max(1)));
        let mut ys = ys.map(|y| y.chunks_mut(width.max(1)));
        let sequences = offsets.ranges().zip(&key.steps).zip(&first);
        let places =
            sequences.flat_map(|((range, &step), &first)| (first..first + range.len()).map(move |t| (step, t)));
        let mut row = |i: usize| (xs[i].next().unwrap_or_default(), ys[i].next().unwrap_or_default());
        let rows: Vec<((u64, usize), [Row<'_>; N])> =
            places.map(|place| (place, std::array::from_fn(&mut row))).collect();
        rows.into_par_iter().par_for_each(|((step, t), mut rows)| {
            drop_rows(&mut rows, key.rng, step, (t * width) as u64, key.p, scale);
        });
    };
    // SAFETY: `drop_rows` writes each row whole, and there is one for each of the sequences' rows.
    let ys = unsafe { init_with([m * width; N], write) };
    array(ys.into_iter().map(|y| tensor(y, (m, width))))
}

/// A row, and what it becomes.
type Row<'a> = (&'a [f32], &'a mut [MaybeUninit<f32>]);

vectorised! {
    /// Drops the same elements of each row; `first` is the index of the first of them.
    fn drop_rows(rows: &mut [Row<'_>], rng: Rng, step: u64, first: u64, p: f32, scale: f32) {
        let width = rows.first().map_or(0, |(x, _)| x.len());
        let mut done = 0;
        while done < width {
            // A row of a width that is no multiple of 4 begins within a block.
            let block = (first + done as u64) / 4;
            let skip = ((first + done as u64) % 4) as usize;
            let words = rng.sixteen_blocks(step, block);
            for (x, y) in rows.iter_mut() {
                let x = &x[done..];
                let y = &mut y[done..];
                match (x.first_chunk::<64>(), y.first_chunk_mut::<64>()) {
                    // Of a fixed length, so that the loop is vectors alone.
                    (Some(x), Some(y)) if skip == 0 => drop_some(x, y, &words, p, scale),
                    _ => drop_some(x, y, &words[skip..], p, scale),
                }
            }
            done += words.len() - skip;
        }
    }
}

/// As many as there are words for.
#[inline(always)]
fn drop_some(x: &[f32], y: &mut [MaybeUninit<f32>], words: &[u32], p: f32, scale: f32) {
    for ((x, y), word) in x.iter().zip(y).zip(words) {
        y.write(if to_unit(*word) >= p { x * scale } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{random_tensor, values};
    use crate::rng::streams;

    fn key(steps: &[u64]) -> DropoutKey {
        DropoutKey { p: 0.3, rng: Rng::new(5, streams::LORA_DROPOUT), steps: steps.to_vec() }
    }

    #[test]
    fn an_element_is_kept_as_its_own_draw_says() {
        for width in [1, 7, 64, 65, 192] {
            let offsets = Offsets::from_lengths(&[3, 0, 5]);
            let key = key(&[11, 12, 13]);
            let x = random_tensor(1, &[8, width]);
            let two = [&x, &(&x * 2.0).unwrap()];
            let [y, of_other] = forward_each(two, &key, &offsets, None).unwrap().map(|y| values(&y));
            assert_eq!(of_other, y.iter().map(|y| 2.0 * y).collect::<Vec<_>>());
            assert_eq!(values(&forward(&x, &key, &offsets).unwrap()), y);
            for (i, (x, y)) in values(&x).iter().zip(&y).enumerate() {
                let row = i / width;
                let c = i % width;
                let (step, t) = if row < 3 { (11, row) } else { (13, row - 3) };
                let kept = key.rng.uniform(step, (t * width + c) as u64) >= 0.3;
                assert_eq!(*y, if kept { x * (1.0 / (1.0 - 0.3f32)) } else { 0.0 });
            }
            // Some rows of a sequence keep what they keep among all.
            let later = Offsets::from_lengths(&[1, 0, 2]);
            let rows = Tensor::cat(&[x.narrow(0, 2, 1).unwrap(), x.narrow(0, 4, 2).unwrap()], 0).unwrap();
            let [some] = forward_each([&rows], &key, &later, Some(&[2, 0, 1])).unwrap().map(|y| values(&y));
            assert_eq!(some, [&y[2 * width..3 * width], &y[4 * width..6 * width]].concat());
        }
    }

    #[test]
    fn a_mask_does_not_depend_on_the_batch_and_keeps_the_share_it_should() {
        let ones = Tensor::ones((300, 64), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let both = values(&forward(&ones, &key(&[1, 2]), &Offsets::from_lengths(&[100, 200])).unwrap());
        let alone =
            values(&forward(&ones.narrow(0, 0, 200).unwrap(), &key(&[2]), &Offsets::from_lengths(&[200])).unwrap());
        assert_eq!(both[100 * 64..], alone);
        let kept = both.iter().filter(|&&y| y > 0.0).count() as f64 / both.len() as f64;
        assert!((kept - 0.7).abs() < 0.02, "{kept}");
    }

    #[test]
    fn rate_zero_is_the_identity_and_wrong_offsets_are_refused() {
        let x = random_tensor(1, &[4, 3]);
        let offsets = Offsets::from_lengths(&[4]);
        let none = DropoutKey { p: 0.0, ..key(&[]) };
        assert_eq!(values(&forward(&x, &none, &offsets).unwrap()), values(&x));
        assert!(forward(&x, &key(&[1, 2]), &offsets).is_err());
        assert!(forward(&x, &key(&[1]), &Offsets::from_lengths(&[3])).is_err());
    }
}
