//! The network's weights, its forward pass and the gradients of all its weights.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Document, Embeddings};
use crate::{
    config::{self, Activation::Relu},
    error::{Error, Result},
    model::Gradients,
    ops::{
        Offsets, activation,
        dropout::{self, DropoutKey},
        linear,
        max_over_time::{self, Winners},
    },
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

/// The trained tensors, f32: `conv<k>.weight (F, k·D)`, `conv<k>.bias (F)`, `projection.weight (P, 4F)`,
/// `projection.bias (P)`, `out.weight (2, P)`, `out.bias (2)`.
#[derive(Debug)]
pub struct Network {
    tensors: BTreeMap<String, Tensor>,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct Saved {
    /// Embedded documents, `(tokens, D)`.
    x: Tensor,
    /// Of each kernel size.
    winners: Vec<Winners>,
    /// `(documents, 4F)` before its ReLU, and what the projection reads.
    pooled: [Tensor; 2],
    /// `(documents, P)` before its ReLU, and what the output reads.
    projected: [Tensor; 2],
    place: Option<Place>,
}

impl Network {
    /// PyTorch's initial distributions, U(±1/√fan_in), from stream `BASELINE` of `seed`.
    pub fn new(width: usize, cnn: &config::Cnn, seed: u64) -> Result<Self> {
        let rng = Rng::new(seed, streams::BASELINE);
        let mut tensors = BTreeMap::new();
        let mut add = |layer: &str, out: usize, fan_in: usize| -> Result<()> {
            for (name, shape) in [(format!("{layer}.weight"), vec![out, fan_in]), (format!("{layer}.bias"), vec![out])]
            {
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
        Ok(Self::from_tensors(tensors))
    }

    /// A network of these tensors, which it takes over.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// The trained tensors by name. They share storage with the network: an in-place optimizer step changes it.
    pub(super) fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::model(format!("the CNN has no tensor {name}")))
    }

    /// Weight and bias.
    fn layer(&self, name: &str) -> Result<(&Tensor, &Tensor)> {
        Ok((self.tensor(&format!("{name}.weight"))?, self.tensor(&format!("{name}.bias"))?))
    }

    /// Two logits a document, `(documents, 2)`, without dropout.
    pub fn logits(&self, embeddings: &Embeddings, documents: &[&Document]) -> Result<Tensor> {
        Ok(self.forward(embeddings, documents, None)?.0)
    }

    /// [`Network::logits`] with the dropout of `place`, and what [`Network::backward`] needs.
    pub(super) fn forward(
        &self,
        embeddings: &Embeddings,
        documents: &[&Document],
        place: Option<Place>,
    ) -> Result<(Tensor, Saved)> {
        let mut rows = Vec::new();
        let longest = KERNELS[KERNELS.len() - 1];
        let lengths: Vec<usize> =
            documents.iter().map(|document| embeddings.extend(&document.ids, longest, &mut rows)).collect();
        let (offsets, width) = (Offsets::from_lengths(&lengths), embeddings.width);
        let x = Tensor::from_vec(rows, (offsets.total(), width), &Device::Cpu)?;
        let (mut parts, mut winners) = (Vec::new(), Vec::new());
        for kernel in KERNELS {
            let (weight, bias) = self.layer(&format!("conv{kernel}"))?;
            let (part, won) = max_over_time::forward(&x, weight, &offsets)?;
            // A bias shifts every window alike, and ReLU keeps their order: both may follow the maximum.
            parts.push(part.broadcast_add(bias)?);
            winners.push(won);
        }
        let pooled = Tensor::cat(&parts, 1)?;
        let features = mask(&activation::forward(Relu, &pooled)?, place, 0)?;
        let (weight, bias) = self.layer("projection")?;
        let projected = linear::forward(&features, weight, Some(bias))?;
        let hidden = mask(&activation::forward(Relu, &projected)?, place, 1)?;
        let (weight, bias) = self.layer("out")?;
        let logits = linear::forward(&hidden, weight, Some(bias))?;
        Ok((logits, Saved { x, winners, pooled: [pooled, features], projected: [projected, hidden], place }))
    }

    /// `dlogits (documents, 2)` → the gradient of every tensor, by its name.
    pub(super) fn backward(&self, saved: Saved, dlogits: &Tensor) -> Result<Gradients> {
        let Saved { x, winners, pooled: [pooled, features], projected: [projected, hidden], place } = saved;
        let mut gradients = Gradients::new();
        let mut add = |layer: &str, weight: Tensor, dy: &Tensor| -> Result<()> {
            gradients.insert(format!("{layer}.weight"), weight);
            gradients.insert(format!("{layer}.bias"), dy.sum(0)?);
            Ok(())
        };
        add("out", linear::backward_weight(dlogits, &hidden)?, dlogits)?;
        let dhidden = mask(&linear::backward_input(dlogits, self.layer("out")?.0)?, place, 1)?;
        let dprojected = activation::backward(Relu, &projected, &dhidden)?;
        add("projection", linear::backward_weight(&dprojected, &features)?, &dprojected)?;
        let dfeatures = mask(&linear::backward_input(&dprojected, self.layer("projection")?.0)?, place, 0)?;
        let dpooled = activation::backward(Relu, &pooled, &dfeatures)?;
        let mut first = 0;
        for (kernel, winners) in KERNELS.iter().zip(&winners) {
            let layer = format!("conv{kernel}");
            let (filters, span) = self.layer(&layer)?.0.dims2()?;
            let dy = dpooled.narrow(1, first, filters)?;
            add(&layer, max_over_time::backward_weight(&dy, &x, winners, span)?, &dy)?;
            first += filters;
        }
        Ok(gradients)
    }
}

/// Inverted dropout with a mask that is a function of (seed, step, layer): also the backward pass, applied to the
/// gradient.
fn mask(x: &Tensor, place: Option<Place>, layer: u64) -> Result<Tensor> {
    let Some(Place { seed, step, dropout }) = place else { return Ok(x.clone()) };
    let key =
        DropoutKey { p: dropout as f32, rng: Rng::new(seed, streams::BASELINE), steps: vec![2 * step as u64 + layer] };
    dropout::forward(x, &key, &Offsets::from_lengths(&[x.dim(0)?]))
}
