//! Rotary position embedding in HF's layout: channel `c` turns with channel `c + head_dim/2`.
//!
//! `y₁ = x₁·cos − x₂·sin`, `y₂ = x₂·cos + x₁·sin`; the backward pass turns the other way. Angles as
//! HF computes them: f32 inverse frequency × f32 position.
#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
mod cuda;

use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::Tensor;
use rayon::prelude::*;

use super::Indices;
use super::cpu::par_for::ParFor;
use super::cpu::simd::vectorised;
use super::cpu::slice::{View, init_with, tensor};
use super::linear::array;
use crate::error::{Error, Result};

/// How inverse frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a smooth passage between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Context length of the pre-training.
        original_max_position_embeddings: usize,
    },
}

/// The rotation's parameters, as in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// `rope_theta`.
    pub theta: f64,
    /// `rope_scaling`.
    pub scaling: RopeScaling,
}

/// A rotation for one head dimension; keeps a table of the cosines and sines used so far.
#[derive(Debug, Clone)]
pub struct Rope {
    inv_freq: Arc<Vec<f32>>,
    table: Arc<RwLock<Arc<Vec<f32>>>>,
    #[cfg(feature = "cuda")]
    on_device: cuda::OnDevice,
}

impl Rope {
    /// A rotation of `head_dim` channels.
    pub fn new(parameters: RopeParameters, head_dim: usize) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::model(format!("head_dim {head_dim} is not a positive even number")));
        }
        let inv_freq: Vec<f32> = (0..head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head_dim as f32;
                scaled(1.0 / parameters.theta.powf(f64::from(exponent)) as f32, parameters.scaling)
            })
            .collect();
        if !(parameters.theta > 0.0 && inv_freq.iter().all(|frequency| frequency.is_finite())) {
            return Err(Error::model("rope_theta and the rope scaling give frequencies that are no finite numbers"));
        }
        Ok(Self {
            inv_freq: Arc::new(inv_freq),
            table: Arc::default(),
            #[cfg(feature = "cuda")]
            on_device: cuda::OnDevice::default(),
        })
    }

    /// The inverse frequencies, `head_dim / 2` of them.
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// Turns `x (tokens, heads, head_dim)` by each token's position.
    pub fn forward(&self, x: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let [y] = self.turn([x], positions.into(), 1.0)?;
        Ok(y)
    }

    /// [`Rope::forward`] of the queries and the keys of the same tokens in one launch.
    pub fn forward_both<'a>(&self, q: &Tensor, k: &Tensor, positions: impl Into<Indices<'a>>) -> Result<[Tensor; 2]> {
        self.turn([q, k], positions.into(), 1.0)
    }

    /// Turns a gradient back.
    pub fn backward(&self, dx: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let [dx] = self.turn([dx], positions.into(), -1.0)?;
        Ok(dx)
    }

    /// [`Rope::backward`] of the queries' and the keys' gradients in one launch.
    pub fn backward_both(&self, dq: &Tensor, dk: &Tensor, positions: &[u32]) -> Result<[Tensor; 2]> {
        self.turn([dq, dk], positions.into(), -1.0)
    }

    fn turn<const N: usize>(&self, xs: [&Tensor; N], at: Indices<'_>, sign: f32) -> Result<[Tensor; N]> {
        let positions = at.values();
        for x in xs {
            let (tokens, _, head_dim) = x.dims3()?;
            if tokens != positions.len() || head_dim != 2 * self.inv_freq.len() {
                return Err(Error::run(format!(
                    "rope: {:?} for {} positions and {} frequencies",
                    x.dims(),
                    positions.len(),
                    self.inv_freq.len()
                )));
            }
        }
        #[cfg(feature = "cuda")]
        if xs.iter().all(|x| x.device().is_cuda()) {
            return cuda::turn(xs, at, self, sign);
        }
        let table = self.table_for(positions.iter().max().map_or(0, |&p| p as usize + 1));
        let head_dim = 2 * self.inv_freq.len();
        let held: [Tensor; N] = array(xs.iter().map(|x| Ok(x.contiguous()?)))?;
        let views: [View<'_>; N] = array(held.iter().map(View::of))?;
        let values: [&[f32]; N] = array(views.iter().map(View::f32))?;
        let widths = xs.map(|x| (x.elem_count() / positions.len().max(1)).max(1));
        let write = |ys: [&mut [MaybeUninit<f32>]; N]| {
            let mut rows = Vec::with_capacity(N * positions.len());
            for ((x, y), width) in values.into_iter().zip(ys).zip(widths) {
                rows.extend(x.chunks(width).zip(y.chunks_mut(width)).zip(positions));
            }
            let least = (1 << 13) / widths.into_iter().max().unwrap_or(1) + 1;
            rows.into_par_iter().with_min_len(least).par_for_each(|((x, y), &position)| {
                turn_row(x, &table[position as usize * head_dim..][..head_dim], sign, y);
            });
        };
        // SAFETY: `turn_row` writes its row, a whole number of heads.
        let ys = unsafe { init_with(values.map(<[f32]>::len), write) };
        array(ys.into_iter().zip(xs).map(|(y, x)| tensor(y, x.shape())))
    }

    /// A table that holds positions below `count`: row `p` is the cosines, then the sines.
    fn table_for(&self, count: usize) -> Arc<Vec<f32>> {
        let width = 2 * self.inv_freq.len();
        let held = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        if held.len() >= count * width {
            return held;
        }
        let mut rows = vec![0.0; count.next_power_of_two().max(64) * width];
        rows.par_chunks_mut(width).enumerate().for_each(|(position, row)| {
            let (cos, sin) = row.split_at_mut(width / 2);
            for (i, frequency) in self.inv_freq.iter().enumerate() {
                let angle = frequency * position as f32;
                (cos[i], sin[i]) = (angle.cos(), angle.sin());
            }
        });
        let rows = Arc::new(rows);
        let mut slot = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if slot.len() < rows.len() {
            *slot = rows.clone();
        }
        rows
    }
}

vectorised! {
    /// Turns every head of a row by `angles` = cosines, then sines.
    fn turn_row(row: &[f32], angles: &[f32], sign: f32, turned: &mut [MaybeUninit<f32>]) {
        let (cos, sin) = angles.split_at(angles.len() / 2);
        for (head, turned) in row.chunks_exact(angles.len()).zip(turned.chunks_exact_mut(angles.len())) {
            let (x, y) = head.split_at(cos.len());
            let (a, b) = turned.split_at_mut(cos.len());
            for (((x, y), (a, b)), (cos, sin)) in x.iter().zip(y).zip(a.iter_mut().zip(b)).zip(cos.iter().zip(sin)) {
                let sin = sign * sin;
                a.write(x * cos - y * sin);
                b.write(y * cos + x * sin);
            }
        }
    }
}

/// One inverse frequency, stretched; f32 arithmetic in HF's order.
fn scaled(inv_freq: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => inv_freq,
        RopeScaling::Linear { factor } => inv_freq / factor as f32,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let original = original_max_position_embeddings as f64;
            let wavelength = std::f32::consts::TAU / inv_freq;
            if wavelength > (original / low_freq_factor) as f32 {
                inv_freq / factor as f32
            } else if wavelength < (original / high_freq_factor) as f32 {
                inv_freq
            } else {
                let smooth = (original as f32 / wavelength - low_freq_factor as f32)
                    / (high_freq_factor - low_freq_factor) as f32;
                (1.0 - smooth) * inv_freq / factor as f32 + smooth * inv_freq
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;
    use crate::ops::tests::{assert_close, on_threads, random_tensor, values};

    fn rope(scaling: RopeScaling, head_dim: usize) -> Rope {
        Rope::new(RopeParameters { theta: 500_000.0, scaling }, head_dim).unwrap()
    }

    #[test]
    fn a_pair_turns_by_position_times_frequency() {
        for (heads, d) in [(1, 2), (3, 64), (2, 10)] {
            let positions = [0, 1, 63, 64, 65, 5000];
            let rope = rope(RopeScaling::None, d);
            let x = random_tensor(1, &[positions.len(), heads, d]);
            let x_values = values(&x);
            let mut expected = vec![0.0; x_values.len()];
            for (i, _) in x_values.iter().enumerate() {
                let row = i / d * d;
                let c = i % d;
                let angle = f64::from(rope.inv_freq()[c % (d / 2)] * positions[i / (heads * d)] as f32);
                let a = f64::from(x_values[row + c % (d / 2)]);
                let b = f64::from(x_values[row + c % (d / 2) + d / 2]);
                expected[i] =
                    if c < d / 2 { a * angle.cos() - b * angle.sin() } else { b * angle.cos() + a * angle.sin() };
            }
            let run = || values(&rope.forward(&x, &positions).unwrap());
            let y = same_on_every_isa(run);
            assert_close(&y, &expected, 1e-6, "rope");
            assert_eq!(on_threads(2, run), y);
            let back = rope.backward(&rope.forward(&x, &positions).unwrap(), &positions).unwrap();
            assert_close(
                &values(&back),
                &x_values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
                1e-6,
                "turned back",
            );
            let alone = rope.forward(&x.narrow(0, 5, 1).unwrap(), &positions[5..]).unwrap();
            assert_eq!(values(&alone), y[5 * heads * d..]);
            let k = random_tensor(2, &[positions.len(), heads + 2, d]);
            let [q, k_turned] = rope.forward_both(&x, &k, &positions).unwrap();
            assert_eq!((values(&q), values(&k_turned)), (y, values(&rope.forward(&k, &positions).unwrap())));
            let [dq, dk] = rope.backward_both(&x, &k, &positions).unwrap();
            let alone = [&x, &k].map(|x| values(&rope.backward(x, &positions).unwrap()));
            assert_eq!([values(&dq), values(&dk)], alone);
        }
    }

    /// `ROPE_INIT_FUNCTIONS` of transformers 5, head_dim 32, theta 500,000.
    #[test]
    fn scaled_frequencies_equal_transformers() {
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let expected = [
            1.0f64,
            0.440366626,
            0.193922758,
            0.0853971019,
            0.0376060307,
            0.0165604409,
            0.00729266508,
            0.00321144611,
            0.000524846022,
            7.78465546e-05,
            3.42810235e-05,
            1.50962178e-05,
            6.64786967e-06,
            2.92749974e-06,
            1.28917316e-06,
            5.6770881e-07,
        ];
        for (ours, hf) in rope(llama3, 32).inv_freq().iter().zip(expected) {
            assert!((f64::from(*ours) - hf).abs() <= 1.5e-7 * hf, "{ours} and {hf}");
        }
        let linear = rope(RopeScaling::Linear { factor: 2.0 }, 32);
        assert!((linear.inv_freq()[1] - 0.220_183_31).abs() < 3e-8 && linear.inv_freq()[0] == 0.5);
    }

    #[test]
    fn odd_dimensions_and_wrong_positions_are_refused() {
        assert!(Rope::new(RopeParameters { theta: 1e4, scaling: RopeScaling::None }, 7).is_err());
        let x = random_tensor(1, &[2, 1, 4]);
        assert!(rope(RopeScaling::None, 4).forward(&x, &[0]).is_err());
        assert!(rope(RopeScaling::None, 6).forward(&x, &[0, 1]).is_err());
        let short = x.narrow(0, 0, 1).unwrap();
        assert!(rope(RopeScaling::None, 4).forward_both(&x, &short, &[0, 1]).is_err());
    }
}
