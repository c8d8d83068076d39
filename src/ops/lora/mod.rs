//! Low-rank adapters of one input: the A half, `u = scaling · A dropout(x)`, and its gradients; `b.rs` has the other.
//!
//! ```text
//! x (tokens, in)   A (rank, in)   u, du (tokens, rank)   dx += dropout'(du A)   dA += duᵀ dropout(x)
//! ```
//!
//! Projections that share x (q, k, v) have a mask each, those of [`dropout`]. On CUDA `CLSGEN_LORA=fused`, which has
//! not yet run on a card, asks for `forward.cu` and `backward.cu`: they read x once for all of them and keep no dropped
//! copy; and for B's kernels, one launch for all of them and all sequences. Else, and on a CPU, dropped copies are made
//! and multiplied.

mod b;
#[cfg(feature = "cuda")]
mod cuda;

pub use b::{add_b_gradients, add_forward_each, backward_u_each};
use candle_core::Tensor;

use super::Offsets;
use super::add;
use super::dropout::{self, DropoutKey};
use super::linear::{self, Kernel, array};
use crate::error::Result;

/// One adapter of an input.
#[derive(Debug, Clone)]
pub struct LoraA<'a> {
    /// `(rank, in)`, f32, or of a pass on CUDA rounded to bf16.
    pub a: &'a Tensor,
    /// A of this adapter and of the following ones of the same input, stacked: `(sum of their ranks, in)`. `None`: not
    /// stacked yet; a product on CUDA then stacks them itself.
    pub stacked_a: Option<&'a Tensor>,
    /// Factor of `A x`.
    pub scaling: f64,
    /// Dropout on x.
    pub dropout: Option<DropoutKey>,
}

/// What an adapter's B takes of the backward pass.
#[derive(Debug, Clone, Copy)]
pub struct LoraB<'a> {
    /// `(tokens, out)`.
    pub dy: &'a Tensor,
    /// `(out, rank)`, f32, or of a pass on CUDA rounded to bf16.
    pub b: &'a Tensor,
    /// Factor of `A x`.
    pub scaling: f64,
}

/// The sequences of x, and the position of each one's first row; `None`: 0.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Where the sequences lie.
    pub offsets: &'a Offsets,
    /// Positions, as [`dropout::forward_each`] takes them.
    pub first: Option<&'a [usize]>,
}

/// What one adapter brings to the backward pass, and takes from it.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The adapter.
    pub lora_a: LoraA<'a>,
    /// `(tokens, rank)`: `scaling` times the gradient of `B u`'s input.
    pub du: Tensor,
    /// Forward's `u`, which B's gradient needs; `None`: computed again.
    pub u: Option<Tensor>,
    /// The sum of A's gradients so far, to which this one's is added a sequence at a time.
    pub da: Option<Tensor>,
}

/// A of all of these, where it lies one below the other.
fn stacked<'a>(lora_as: &[&LoraA<'a>]) -> Option<&'a Tensor> {
    let ranks: usize = lora_as.iter().map(|lora_a| lora_a.rank()).sum();
    lora_as.first()?.stacked_a.filter(|stacked| stacked.dims()[0] == ranks)
}

impl LoraA<'_> {
    fn rank(&self) -> usize {
        self.a.dims()[0]
    }

    /// `u` of x after dropout.
    fn reduce(&self, dropped: &Tensor) -> Result<Tensor> {
        let [u] = linear::scaled_forward_each(dropped, [self.a], self.scaling)?;
        Ok(u)
    }

    /// Dropout of x, or (the same function) of its gradient.
    fn dropped<const N: usize>(&self, xs: [&Tensor; N], rows: Rows<'_>) -> Result<[Tensor; N]> {
        match &self.dropout {
            Some(key) => dropout::forward_each(xs, key, rows.offsets, rows.first),
            None => Ok(xs.map(Tensor::clone)),
        }
    }

    fn drops(&self) -> bool {
        self.dropout.as_ref().is_some_and(|key| key.p > 0.0)
    }
}

/// Whether adapters of `x` are fused: [`backward_each`] is one pass for all of them.
pub fn fuses(x: &Tensor, lora_as: &[&LoraA<'_>], rows: Rows<'_>) -> bool {
    #[cfg(feature = "cuda")]
    return cuda::fuses(x, lora_as, rows);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (x, lora_as, rows);
        false
    }
}

/// `u` of every adapter of `x`; perhaps not contiguous.
pub fn forward_each<const N: usize>(
    x: &Tensor,
    lora_as: [Option<&LoraA<'_>>; N],
    rows: Rows<'_>,
) -> Result<[Option<Tensor>; N]> {
    #[cfg(feature = "cuda")]
    {
        let present: Vec<&LoraA<'_>> = lora_as.into_iter().flatten().collect();
        if fuses(x, &present, rows) {
            let mut us = cuda::forward(x, &present, rows.offsets)?.into_iter();
            return Ok(lora_as.map(|lora_a| lora_a.and_then(|_| us.next())));
        }
    }
    if !lora_as.iter().flatten().any(|lora_a| lora_a.drops()) {
        return reduce_each(lora_as, x, Kernel::Forward);
    }
    // With dropout each adapter has an input of its own.
    array(lora_as.into_iter().map(|lora_a| {
        let Some(lora_a) = lora_a else { return Ok(None) };
        let [dropped] = lora_a.dropped([x], rows)?;
        lora_a.reduce(&dropped).map(Some)
    }))
}

/// `scaling · A x` of each, without dropout: in one product where all are there and scale alike, else one by one.
pub(crate) fn reduce_each<const N: usize>(
    lora_as: [Option<&LoraA<'_>>; N],
    x: &Tensor,
    kernel: Kernel,
) -> Result<[Option<Tensor>; N]> {
    let present: Vec<&LoraA<'_>> = lora_as.into_iter().flatten().collect();
    let alike = present.iter().all(|lora_a| lora_a.scaling == present[0].scaling);
    if let (true, Some(first)) = (alike && present.len() == N, present.first()) {
        let us = match stacked(&present) {
            Some(all) => {
                let ranks = array(present.iter().map(|lora_a| Ok(lora_a.rank())))?;
                kernel.scaled_stacked(x, all, ranks, first.scaling)?
            }
            None => kernel.scaled_each(x, array(present.iter().map(|lora_a| Ok(lora_a.a)))?, first.scaling)?,
        };
        return Ok(us.map(Some));
    }
    array(lora_as.into_iter().map(|lora_a| {
        let Some(lora_a) = lora_a else { return Ok(None) };
        let [u] = kernel.scaled_each(x, [lora_a.a], lora_a.scaling)?;
        Ok(Some(u))
    }))
}

/// Adds each adapter's gradients to `dx (tokens, in)`, if given, and to its `da`; computes the `u`s that are missing.
/// `dx` may be written over.
pub fn backward_each(
    x: &Tensor,
    adapters: &mut [Backward<'_>],
    mut dx: Option<Tensor>,
    rows: Rows<'_>,
) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    {
        let lora_as: Vec<&LoraA<'_>> = adapters.iter().map(|adapter| &adapter.lora_a).collect();
        if fuses(x, &lora_as, rows) {
            for adapter in adapters.iter_mut().filter(|adapter| adapter.u.is_none()) {
                let [u] = forward_each(x, [Some(&adapter.lora_a)], rows)?;
                adapter.u = u;
            }
            return cuda::backward(x, adapters, dx, rows.offsets);
        }
    }
    for Backward { lora_a, du, u, da } in adapters {
        let dropped = match (dx.take(), &lora_a.dropout) {
            (Some(before), Some(_)) => {
                let [x, back] = lora_a.dropped([x, &linear::backward_input(du, lora_a.a)?], rows)?;
                dx = Some(add(before, &back)?);
                x
            }
            (before, _) => {
                dx = before.map(|before| linear::add_backward_input(before, du, lora_a.a)).transpose()?;
                let [x] = lora_a.dropped([x], rows)?;
                x
            }
        };
        if u.is_none() {
            *u = Some(lora_a.reduce(&dropped)?);
        }
        *da = linear::add_backward_weight(da.take(), du, &dropped, rows.offsets)?;
    }
    Ok(dx)
}
