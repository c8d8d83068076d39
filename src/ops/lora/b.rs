//! The B half of low-rank adapters of one input, and its gradients.
//!
//! ```text
//! y (tokens, out)   u (tokens, rank)   B (out, rank)   y += u Bᵀ   du = scaling · dy B   dB += dyᵀ u
//! ```

use candle_core::Tensor;

use super::LoraB;
use crate::error::Result;
use crate::ops::Offsets;
use crate::ops::linear::{self, array};

/// Adds `u Bᵀ` to each `y` that has an adapter, given as its `u` and `B`. Every handle that shares a `y`'s storage
/// sees the change.
pub fn add_forward_each<const N: usize>(
    ys: [Tensor; N],
    adapters: [Option<(&Tensor, &Tensor)>; N],
) -> Result<[Tensor; N]> {
    #[cfg(feature = "cuda")]
    {
        let each = ys.iter().zip(adapters).filter_map(|(y, adapter)| adapter.map(|(u, b)| [y, u, b]));
        let each: Vec<[&Tensor; 3]> = each.collect();
        if super::cuda::fuses_forward(&each) {
            super::cuda::add_forward(&each)?;
            return Ok(ys);
        }
    }
    array(ys.into_iter().zip(adapters).map(|(y, adapter)| match adapter {
        Some((u, b)) => linear::add_forward(y, u, b),
        None => Ok(y),
    }))
}

/// `du = scaling · dy B (tokens, rank)` of each adapter.
pub fn backward_u_each(outputs: &[LoraB<'_>]) -> Result<Vec<Tensor>> {
    #[cfg(feature = "cuda")]
    if super::cuda::fuses_backward_u(outputs) {
        return super::cuda::backward_u(outputs);
    }
    outputs.iter().map(|output| linear::scaled_backward_input(output.dy, output.b, output.scaling)).collect()
}

/// Adds B's gradient to each sum, `(out, rank)`, a sequence at a time; `each` has the `dy` and the `u` of one.
pub fn add_b_gradients(
    sums: Vec<Option<Tensor>>,
    each: &[(&Tensor, &Tensor)],
    offsets: &Offsets,
) -> Result<Vec<Option<Tensor>>> {
    #[cfg(feature = "cuda")]
    if super::cuda::fuses_b_gradients(each) {
        return super::cuda::b_gradients(sums, each, offsets);
    }
    sums.into_iter().zip(each).map(|(sum, (dy, u))| linear::add_backward_weight(sum, dy, u, offsets)).collect()
}
