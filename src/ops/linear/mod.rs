//! `y = x·Wᵀ + b`, its gradients, and the skinny product of a decoding step.
//!
//! Shapes: `x (tokens, in)`, `weight (out, in)` f32 or bf16, `bias (out)`, `y (tokens, out)`. With a bf16 weight,
//! the other operand is rounded to bf16 too and the products are summed in f32.
//! Every output element is summed in one fixed order, so its bits depend neither on the number of rows nor on threads.
#![allow(unsafe_code)]

mod adapter;
#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub(crate) mod kernel;
mod operand;
mod output;
mod output_tiles;
pub(crate) mod pack;
pub(crate) mod rearrange;
mod skinny_gemm;
mod variant;

use std::mem::MaybeUninit;

pub use adapter::{decode_add, scaled_backward_input, scaled_decode_each, scaled_forward_each};
use candle_core::Tensor;
#[cfg(feature = "cuda")]
pub(in crate::ops) use cuda::stacked;
pub(crate) use output::Output;
pub(crate) use variant::Kernel;

use super::Offsets;
use super::cpu::slice::{View, Weight, init_with, tensor, update_f32};
use crate::error::{Error, Result};

/// A weight `(out, in)` and its bias `(out)`, f32.
pub type Affine<'a> = (&'a Tensor, Option<&'a Tensor>);

/// `x (m, in)`, `weight (out, in)`, `bias (out)` → `(m, out)`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let [y] = forward_each(x, [(weight, bias)])?;
    Ok(y)
}

/// [`forward`] with several weights, to the same bits: `x` is packed once, and the tiles of all outputs form one
/// parallel loop.
pub fn forward_each<const N: usize>(x: &Tensor, weights: [Affine<'_>; N]) -> Result<[Tensor; N]> {
    products("linear::forward", x, weights, |x, sizes, each| cpu::x_wt(x, sizes, each, false))
}

/// [`forward`] for few rows (a decoding step): reads the weight from memory once whatever the number of rows. The bits
/// of a row are the same for any number of rows, but they are not those of [`forward`].
pub fn decode(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let [y] = decode_each(x, [(weight, bias)])?;
    Ok(y)
}

/// [`decode`] with several weights, to the same bits: the rows of all weights form one parallel loop.
pub fn decode_each<const N: usize>(x: &Tensor, weights: [Affine<'_>; N]) -> Result<[Tensor; N]> {
    products("linear::decode", x, weights, |x, sizes, each| skinny_gemm::x_wt(x, sizes, each))
}

/// A right-hand side `w` of a product, its number of columns `n`, and the output `y (m, n)`.
pub(crate) struct Rhs<'y, W> {
    pub w: W,
    pub n: usize,
    pub y: Output<'y>,
}

/// `x·Wᵀ + b` for each weight: on a CPU by `multiply(x, [m, k], right-hand sides)`, on CUDA by cuBLAS.
fn products<const N: usize>(
    op: &str,
    x: &Tensor,
    weights: [Affine<'_>; N],
    multiply: impl FnOnce(&[f32], [usize; 2], Vec<Rhs<'_, Weight<'_>>>),
) -> Result<[Tensor; N]> {
    let (m, k) = x.dims2()?;
    weights.iter().try_for_each(|(weight, _)| check(op, weight.dims2()?.1 == k, x, weight))?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return array(weights.into_iter().map(|(weight, bias)| cuda::forward(x, weight, bias)));
    }
    let x = x.contiguous()?;
    let held: [Tensor; N] = array(weights.iter().map(|(weight, _)| Ok(weight.contiguous()?)))?;
    let views: [View<'_>; N] = array(held.iter().map(View::of))?;
    let ws: [(Weight<'_>, usize); N] =
        array(views.iter().zip(&held).map(|(view, weight)| Ok((view.weight()?, weight.dim(0)?))))?;
    let x = View::of(&x)?;
    let x = x.f32()?;
    let multiply = |ys: [&mut [MaybeUninit<f32>]; N]| {
        let parts = ws.into_iter().zip(ys).map(|((w, n), y)| Rhs { w, n, y: Output::uninit(y) });
        multiply(x, [m, k], parts.collect());
    };
    // SAFETY: a product writes every element.
    let ys = unsafe { init_with(ws.map(|(_, n)| m * n), multiply) };
    array(weights.into_iter().zip(ys).map(|((weight, bias), mut y)| {
        let n = weight.dim(0)?;
        add_bias(&mut y, bias, n)?;
        tensor(y, (m, n))
    }))
}

/// Collects `N` results, or the first error.
pub(crate) fn array<T, const N: usize>(results: impl Iterator<Item = Result<T>>) -> Result<[T; N]> {
    let all = results.collect::<Result<Vec<T>>>()?;
    all.try_into().map_err(|all: Vec<T>| Error::run(format!("{} results where {N} belong", all.len())))
}

/// `dy (m, out)`, `weight (out, in)` → `dx (m, in) = dy·W`.
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (m, k) = dy.dims2()?;
    let (k_w, n) = weight.dims2()?;
    check("linear::backward_input", k == k_w, dy, weight)?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return cuda::backward_input(dy, weight, 1.0);
    }
    let dy = dy.contiguous()?;
    let w = weight.contiguous()?;
    let dy = View::of(&dy)?;
    let w = View::of(&w)?;
    let dy = dy.f32()?;
    let w = w.weight()?;
    // SAFETY: a product writes every element.
    let [dx] = unsafe { init_with([m * n], |[dx]| cpu::dy_w(dy, w, [m, k, n], Output::uninit(dx), false)) };
    tensor(dx, (m, n))
}

/// `y += x·Wᵀ` in place, `y (m, out)`: what a LoRA adapter adds. Every handle that shares `y`'s storage sees the
/// change.
pub fn add_forward(y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (m, k) = x.dims2()?;
    let (n, k_w) = weight.dims2()?;
    check("linear::add_forward", k == k_w && y.dims() == [m, n], x, weight)?;
    #[cfg(feature = "cuda")]
    if y.device().is_cuda() {
        return cuda::add_forward(y, x, weight);
    }
    add_product(y, x, weight, |x, w, y| cpu::x_wt(x, [m, k], [Rhs { w, n, y }], true))
}

/// `dx += dy·W` in place, `dx (m, in)`: accumulates the gradient where `x` feeds several projections. Every handle
/// that shares `dx`'s storage sees the change.
pub fn add_backward_input(dx: Tensor, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (m, k) = dy.dims2()?;
    let (k_w, n) = weight.dims2()?;
    check("linear::add_backward_input", k == k_w && dx.dims() == [m, n], dy, weight)?;
    #[cfg(feature = "cuda")]
    if dx.device().is_cuda() {
        return cuda::add_backward_input(dx, dy, weight);
    }
    add_product(dx, dy, weight, |dy, w, dx| cpu::dy_w(dy, w, [m, k, n], dx, true))
}

fn add_product(
    y: Tensor,
    x: &Tensor,
    weight: &Tensor,
    product: impl FnOnce(&[f32], Weight<'_>, Output<'_>),
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let w = weight.contiguous()?;
    let x = View::of(&x)?;
    let w = View::of(&w)?;
    let x = x.f32()?;
    let w = w.weight()?;
    update_f32(&y, |y| {
        product(x, w, Output::initialised(y));
        Ok(())
    })?;
    Ok(y)
}

/// `dy (m, out)`, `x (m, in)` → `dW (out, in) = dyᵀ·x`, in f32.
pub fn backward_weight(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (k, m) = dy.dims2()?;
    let (k_x, n) = x.dims2()?;
    check("linear::backward_weight", k == k_x, dy, x)?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return cuda::backward_weight(dy, x);
    }
    let dy = dy.contiguous()?;
    let x = x.contiguous()?;
    let dy = View::of(&dy)?;
    let x = View::of(&x)?;
    let dy = dy.f32()?;
    let x = x.f32()?;
    // SAFETY: a product writes every element.
    let [dw] = unsafe { init_with([m * n], |[dw]| cpu::dyt_x(dy, x, [m, k, n], Output::uninit(dw))) };
    tensor(dw, (m, n))
}

/// `dyᵀ·x` added to `sum` a sequence at a time, so that the sum does not depend on how records are batched.
pub fn add_backward_weight(
    mut sum: Option<Tensor>,
    dy: &Tensor,
    x: &Tensor,
    offsets: &Offsets,
) -> Result<Option<Tensor>> {
    for range in offsets.ranges().filter(|range| !range.is_empty()) {
        let dy = dy.narrow(0, range.start, range.len())?;
        let x = x.narrow(0, range.start, range.len())?;
        let dw = backward_weight(&dy, &x)?;
        sum = Some(match sum {
            Some(sum) => (sum + dw)?,
            None => dw,
        });
    }
    Ok(sum)
}

fn check(op: &str, fits: bool, a: &Tensor, b: &Tensor) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(Error::run(format!("{op}: operands of shapes {:?} and {:?} do not fit", a.dims(), b.dims())))
}

fn add_bias(y: &mut [f32], bias: Option<&Tensor>, n: usize) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    let bias = bias.contiguous()?;
    if bias.dims() != [n] {
        return Err(Error::run(format!("linear: a bias of shape {:?} for {n} outputs", bias.dims())));
    }
    let bias = View::of(&bias)?;
    let bias = bias.f32()?;
    for row in y.chunks_mut(n.max(1)) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    Ok(())
}
