//! Projections without dropout, nothing kept for backward: prefill and decode.

use candle_core::Tensor;

use super::{Adapter, Projection};
use crate::{
    error::Result,
    ops::{
        linear::{Kernel, array},
        lora,
    },
};

impl Projection {
    /// `W x + b` and what the adapter adds.
    pub fn infer(&self, x: &Tensor, kernel: Kernel) -> Result<Tensor> {
        let [y] = Self::infer_each([self], x, kernel)?;
        Ok(y)
    }

    /// [`Projection::infer`] of projections of one input.
    pub fn infer_each<const N: usize>(each: [&Self; N], x: &Tensor, kernel: Kernel) -> Result<[Tensor; N]> {
        let ys = Self::base_each(each, x, kernel)?;
        let lora_as = each.map(|projection| projection.adapter.as_ref().map(Adapter::lora_a));
        let us = lora::reduce_each(lora_as.each_ref().map(Option::as_ref), x, kernel)?;
        array(each.into_iter().zip(ys).zip(us).map(|((projection, y), u)| match (&projection.adapter, u) {
            (Some(adapter), Some(u)) => kernel.add(y, &u, &adapter.b),
            _ => Ok(y),
        }))
    }
}
