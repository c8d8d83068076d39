//! The network's weights and its forward pass.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};

use super::{
    Document, Embeddings,
    max_over_time::{Batch, max_over_time},
};
use crate::{
    config,
    error::{Error, Result},
    rng::{Rng, hash_name, streams},
};

/// Kernel sizes of Table 6.
pub const KERNELS: [usize; 4] = [2, 3, 4, 5];

/// Where in training a forward pass is: decides its dropout masks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step, counted from 1.
    pub step: usize,
    /// Dropout probability.
    pub dropout: f64,
}

/// The trained tensors, f32: `conv<k>.weight (F, k·D)`, `conv<k>.bias (F)`, `projection.weight (P, 4F)`, `projection.bias (P)`,
/// `out.weight (2, P)`, `out.bias (2)`.
#[derive(Debug)]
pub struct Network {
    variables: BTreeMap<String, Var>,
}

impl Network {
    /// PyTorch's initial distributions, U(±1/√fan_in), from stream `BASELINE` of `seed`.
    pub fn new(width: usize, cnn: &config::Cnn, seed: u64) -> Result<Self> {
        let rng = Rng::new(seed, streams::BASELINE);
        let mut tensors = BTreeMap::new();
        let mut add = |layer: &str, out: usize, fan_in: usize| -> Result<()> {
            for (name, shape) in [(format!("{layer}.weight"), vec![out, fan_in]), (format!("{layer}.bias"), vec![out])] {
                let bound = 1.0 / (fan_in as f32).sqrt();
                let mut values = vec![0.0; shape.iter().product()];
                rng.fill_uniform(hash_name(&name), 0, &mut values);
                values.iter_mut().for_each(|value| *value = (2.0 * *value - 1.0) * bound);
                tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
            }
            Ok(())
        };
        for kernel in KERNELS {
            add(&format!("conv{kernel}"), cnn.filters, kernel * width)?;
        }
        add("projection", cnn.projection, KERNELS.len() * cnn.filters)?;
        add("out", 2, cnn.projection)?;
        Self::from_tensors(tensors)
    }

    /// A network of these tensors.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let variables = tensors.into_iter().map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?))).collect::<Result<_>>()?;
        Ok(Self { variables })
    }

    /// The trained variables by name.
    pub(super) fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let found = self.variables.get(name).map(|variable| variable.as_tensor().clone());
        found.ok_or_else(|| Error::model(format!("the CNN has no tensor {name}")))
    }

    fn linear(&self, layer: &str) -> Result<Linear> {
        Ok(Linear::new(self.tensor(&format!("{layer}.weight"))?, Some(self.tensor(&format!("{layer}.bias"))?)))
    }

    /// Two logits a document, `(documents, 2)`, without dropout.
    pub fn logits(&self, embeddings: &Embeddings, documents: &[&Document]) -> Result<Tensor> {
        self.forward(embeddings, documents, None)
    }

    pub(super) fn forward(&self, embeddings: &Embeddings, documents: &[&Document], place: Option<Place>) -> Result<Tensor> {
        let mut batch = Batch { rows: Vec::new(), lengths: Vec::new(), width: embeddings.width };
        let longest = KERNELS[KERNELS.len() - 1];
        for document in documents {
            batch.lengths.push(embeddings.extend(&document.ids, longest, &mut batch.rows));
        }
        let batch = Arc::new(batch);
        let pooled = KERNELS.map(|kernel| -> Result<Tensor> {
            let pooled = max_over_time(&batch, &self.tensor(&format!("conv{kernel}.weight"))?, kernel)?;
            // A bias shifts every window alike, and ReLU keeps their order: both may follow the maximum.
            Ok(pooled.broadcast_add(&self.tensor(&format!("conv{kernel}.bias"))?)?.relu()?)
        });
        let pooled: Vec<Tensor> = pooled.into_iter().collect::<Result<_>>()?;
        let features = dropout(&Tensor::cat(&pooled, 1)?, place, 0)?;
        let projected = self.linear("projection")?.forward(&features)?.relu()?;
        Ok(self.linear("out")?.forward(&dropout(&projected, place, 1)?)?)
    }
}

/// Inverted dropout with a mask that is a function of (seed, step, layer).
fn dropout(x: &Tensor, place: Option<Place>, layer: u64) -> Result<Tensor> {
    let Some(Place { seed, step, dropout }) = place.filter(|place| place.dropout > 0.0) else { return Ok(x.clone()) };
    let mut mask = vec![0.0; x.elem_count()];
    Rng::new(seed, streams::BASELINE).fill_uniform(2 * step as u64 + layer, 0, &mut mask);
    let keep = 1.0 / (1.0 - dropout) as f32;
    mask.iter_mut().for_each(|value| *value = if f64::from(*value) < dropout { 0.0 } else { keep });
    Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?)?)
}
