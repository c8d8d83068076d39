//! Adapters in bf16, as CUDA's products take them; they are trained in f32. Cast one by one they cost two launches an
//! adapter in a forward pass and two in its backward (in decoding, 14 of the 40 launches of a layer). Here one launch
//! casts all of them, for a pass or, where nothing trains them, once; the bits are the same.

use candle_core::{DType, Tensor};

use super::{Llama, adapter::Adapter, layer::DecoderLayer};
use crate::{error::Result, ops::cast};

impl Llama {
    fn adapters(&self) -> impl Iterator<Item = &Adapter> {
        self.layers.iter().flat_map(DecoderLayer::projections).filter_map(|projection| projection.adapter.as_ref())
    }

    fn rounds(&self) -> bool {
        let in_f32 = self.adapters().next().is_some_and(|adapter| adapter.a.dtype() == DType::F32);
        self.device.is_cuda() && self.dtype() == DType::BF16 && in_f32
    }

    /// Bytes that a pass takes for them.
    pub fn rounded_bytes(&self) -> u64 {
        let elements: usize = self.adapters().map(|adapter| adapter.a.elem_count() + adapter.b.elem_count()).sum();
        if self.rounds() { (elements * DType::BF16.size_in_bytes()) as u64 } else { 0 }
    }

    /// Layers whose adapters are rounded to bf16, A of one input one below the other; `None` where they are taken as
    /// they are: on a CPU, by f32 products, or rounded already.
    pub(super) fn rounded_layers(&self) -> Result<Option<Vec<DecoderLayer>>> {
        if !self.rounds() {
            return Ok(None);
        }
        let mut layers = self.layers.clone();
        let mut groups: Vec<Vec<&mut Adapter>> = layers
            .iter_mut()
            .flat_map(DecoderLayer::by_input_mut)
            .map(|group| group.into_iter().filter_map(|projection| projection.adapter.as_mut()).collect())
            .filter(|group: &Vec<_>| !group.is_empty())
            .collect();
        let mut tensors: Vec<Vec<&Tensor>> = Vec::new();
        for group in &groups {
            tensors.push(group.iter().map(|adapter| &adapter.a).collect());
            tensors.extend(group.iter().map(|adapter| vec![&adapter.b]));
        }
        let mut rounded = cast::to_bf16_stacked(&tensors)?.into_iter();
        for group in &mut groups {
            let stacked = rounded.next();
            let mut rank = 0;
            for (adapter, b) in group.iter_mut().zip(rounded.by_ref()) {
                let (own, _) = adapter.a.dims2()?;
                if let Some(stacked) = &stacked {
                    adapter.a = stacked.narrow(0, rank, own)?;
                }
                adapter.b = b;
                rank += own;
            }
            group[0].stacked_a = stacked;
        }
        Ok(Some(layers))
    }

    /// For a model that is asked and not trained: rounds its adapters once. They cannot be trained any more.
    pub fn prepare_inference(&mut self) -> Result<()> {
        if let Some(layers) = self.rounded_layers()? {
            self.layers = layers;
        }
        Ok(())
    }
}
