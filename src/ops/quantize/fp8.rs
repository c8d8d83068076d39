//! Products of e4m3 codes with one scale a channel (an output of W) and one a token, summed in f32.
//!
//! ```text
//! q(x): each row over its scale, as e4m3; the scale is the row's largest magnitude over 448
//! y  = (q(x) q(W)ᵀ) · sx · sw + b      x (tokens, in)   W (out, in)   sx (tokens)   sw (out)
//! dx = (q(dy · sw) q(W)) · sdy         dy (tokens, out)               sdy (tokens)
//! ```
//!
//! In backward W's scales lie along what is summed over: they are folded into dy before that is quantised, so that both
//! products have q(W) itself. The gradient is that of W as it is held, with x's and dy's rounding passed over.
//!
//! A CPU is the reference: the operands have the same codes as on CUDA. Its sums are in f32 throughout, where Hopper's
//! tensor cores add with fewer bits, so that products agree but for that.

use candle_core::{Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::{Quantized, e4m3};
use crate::{
    error::Result,
    ops::{
        add,
        cpu::{
            par_for::ParFor,
            slice::{View, tensor, update_f32},
        },
        linear::{self, Kernel, array},
    },
};

#[cfg(feature = "cuda")]
#[path = "fp8_cuda.rs"]
mod cuda;
#[cfg(feature = "cuda")]
#[path = "fp8_matmul.rs"]
mod matmul;

#[cfg(feature = "cuda")]
pub(super) use cuda::{Transposed, to_cuda};

/// A matrix in fp8 and its bias `(out)`, f32.
pub type Affine<'a> = (&'a Quantized, Option<&'a Tensor>);

/// The scale of a row whose largest magnitude is this; 1 where that is so small that f32 has no normal number for it:
/// the row's codes are then 0.
pub(super) fn scale(largest: f32) -> f32 {
    let scale = largest / e4m3::LARGEST;
    if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
}

/// Fails (exit 2) where `device` is a GPU without these products.
pub fn check(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return cuda::check(device);
    }
    let _ = device;
    Ok(())
}

/// cuBLAS scales a product's rows and columns on Hopper only.
#[cfg(any(feature = "cuda", test))]
fn check_capability((major, minor): (i32, i32)) -> Result<()> {
    if major == 9 {
        return Ok(());
    }
    Err(crate::error::Error::usage(format!(
        "model.quantize = \"fp8\" needs a GPU of compute capability 9.0 (H100, H200); this one has {major}.{minor}"
    ))
    .hint("\"int8\" and \"nf4\" run on every GPU; --device cpu computes fp8 as a reference"))
}

/// `x (tokens, in)` → `y (tokens, out)`.
pub fn forward(x: &Tensor, weight: &Quantized, bias: Option<&Tensor>) -> Result<Tensor> {
    let [y] = forward_each(x, [(weight, bias)], Kernel::Forward)?;
    Ok(y)
}

/// [`forward`] of each matrix, with this kernel on a CPU.
pub(crate) fn forward_each<const N: usize>(
    x: &Tensor,
    weights: [Affine<'_>; N],
    kernel: Kernel,
) -> Result<[Tensor; N]> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::forward_each(x, weights);
    }
    let (values, scales) = quantize_rows(x, None)?;
    let matrices: [Tensor; N] = array(weights.iter().map(|(weight, _)| weight.values()))?;
    let ys = kernel.apply_each(&values, matrices.each_ref().map(|matrix| (matrix, None)))?;
    for (y, (weight, bias)) in ys.iter().zip(weights) {
        let channels = View::of(&weight.scales)?;
        let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
        multiply(y, &scales, Some(channels.f32()?), bias.as_deref())?;
    }
    Ok(ys)
}

/// `dy (tokens, out)` → `dx (tokens, in)`.
pub fn backward_input(dy: &Tensor, weight: &Quantized) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return cuda::backward_input(dy, weight);
    }
    let channels = View::of(&weight.scales)?;
    let (values, scales) = quantize_rows(dy, Some(channels.f32()?))?;
    let dx = linear::backward_input(&values, &weight.values()?)?;
    multiply(&dx, &scales, None, None)?;
    Ok(dx)
}

/// As [`backward_input`], added to `dx`, which nobody else may hold.
pub fn add_backward_input(dx: Tensor, dy: &Tensor, weight: &Quantized) -> Result<Tensor> {
    add(dx, &backward_input(dy, weight)?)
}

impl Quantized {
    /// What the codes stand for without the scales, in bf16, which holds every e4m3 number.
    fn values(&self) -> Result<Tensor> {
        let table: [bf16; 256] = std::array::from_fn(|code| bf16::from_f32(e4m3::decode(code as u8)));
        let codes = View::of(&self.codes)?;
        let values = codes.u8()?.par_iter().with_min_len(1 << 14).par_map(|&code| table[usize::from(code)]);
        Ok(Tensor::from_vec(values, self.shape, &Device::Cpu)?)
    }
}

/// What the codes of each row stand for without its scale, in f32, and the scales. `factors (columns)`: by which each
/// number is multiplied before.
fn quantize_rows(x: &Tensor, factors: Option<&[f32]>) -> Result<(Tensor, Vec<f32>)> {
    let (rows, columns) = x.dims2()?;
    let x = x.contiguous()?;
    let view = View::of(&x)?;
    let mut values = view.f32()?.to_vec();
    let mut scales = vec![1.0; rows];
    let all = values.par_chunks_mut(columns.max(1)).zip(scales.par_iter_mut());
    all.par_for_each(|(row, of_row)| {
        if let Some(factors) = factors {
            row.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
        }
        *of_row = scale(row.iter().fold(0.0, |largest, x| x.abs().max(largest)));
        row.iter_mut().for_each(|x| *x = e4m3::decode(e4m3::encode(*x / *of_row)));
    });
    Ok((tensor(values, (rows, columns))?, scales))
}

/// `y · rows · columns + bias` over `y`.
fn multiply(y: &Tensor, rows: &[f32], columns: Option<&[f32]>, bias: Option<&[f32]>) -> Result<()> {
    let width = y.dims2()?.1.max(1);
    update_f32(y, |y| {
        y.par_chunks_mut(width).zip(rows.par_iter()).par_for_each(|(y, row)| {
            y.iter_mut().for_each(|y| *y *= row);
            if let Some(columns) = columns {
                y.iter_mut().zip(columns).for_each(|(y, column)| *y *= column);
            }
            if let Some(bias) = bias {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{
        quantize::Format,
        tests::{random, values},
    };

    #[test]
    fn cards_other_than_hopper_are_refused() {
        assert!(check_capability((9, 0)).is_ok());
        for (major, minor) in [(8, 0), (8, 9), (10, 0), (12, 0)] {
            let error = check_capability((major, minor)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(&format!("this one has {major}.{minor}")), "{error}");
            assert!(error.hint_text().unwrap().contains("nf4"));
        }
        assert!(check(&Device::Cpu).is_ok());
    }

    #[test]
    fn a_row_of_nothing_and_one_below_f32s_precision_have_scale_1() {
        assert_eq!([0.0, 1e-40, 448.0 * 1e-38].map(scale), [1.0; 3]);
        assert_eq!([448.0, 1.0].map(scale), [1.0, 1.0 / 448.0]);
        assert!(scale(f32::INFINITY).is_infinite());
    }

    /// A token's outputs do not depend on what else is in the batch, and what is no number stays none.
    #[test]
    fn rows_are_computed_each_for_itself() {
        let matrix = |seed, rows, columns| {
            Tensor::from_vec(random(seed, rows * columns), (rows, columns), &Device::Cpu).unwrap()
        };
        let weight = Quantized::new(&matrix(1, 24, 40), Format::Fp8).unwrap();
        let x = matrix(2, 5, 40);
        for kernel in [Kernel::Forward, Kernel::Decode] {
            let [all] = forward_each(&x, [(&weight, None)], kernel).unwrap();
            let [one] = forward_each(&x.narrow(0, 3, 1).unwrap(), [(&weight, None)], kernel).unwrap();
            assert_eq!(values(&one), values(&all.narrow(0, 3, 1).unwrap()));
            let mut broken = values(&x);
            broken[45] = f32::INFINITY;
            let broken = Tensor::from_vec(broken, (5, 40), &Device::Cpu).unwrap();
            let [broken] = forward_each(&broken, [(&weight, None)], kernel).unwrap();
            assert!(values(&broken)[24..48].iter().all(|y| !y.is_finite()));
            assert_eq!(values(&broken)[..24], values(&all)[..24]);
        }
        let dy = matrix(3, 5, 24);
        let dx = values(&backward_input(&dy, &weight).unwrap());
        let twice = add_backward_input(backward_input(&dy, &weight).unwrap(), &dy, &weight).unwrap();
        assert_eq!(values(&twice), dx.iter().map(|dx| 2.0 * dx).collect::<Vec<_>>());
    }
}
