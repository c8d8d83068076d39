//! The network's weights and its forward pass; the gradients are candle's.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Conv1d, Conv1dConfig, Linear, Module};

use super::{Document, Embeddings};
use crate::{
    config,
    error::{Error, Result},
    model::Gradients,
    ops::{
        Offsets,
        dropout::{self, DropoutKey},
    },
    rng::{Rng, hash_name, streams},
};

/// Kernel sizes of Table 6.
pub const KERNELS: [usize; 4] = [2, 3, 4, 5];

/// The trained variables, f32: `conv<k>.weight (F, k·D)`, `conv<k>.bias (F)`, `projection.weight (P, 4F)`,
/// `projection.bias (P)`, `out.weight (classes, P)`, `out.bias (classes)`.
#[derive(Debug)]
pub struct Network {
    tensors: BTreeMap<String, Tensor>,
}

impl Network {
    /// PyTorch's initial distributions, U(±1/√fan_in), from stream `BASELINE` of `seed`.
    pub fn new(width: usize, classes: usize, cnn: &config::Cnn, seed: u64) -> Result<Self> {
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
        add("out", classes, cnn.projection)?;
        Self::from_tensors(tensors)
    }

    /// A network of these tensors, of which it makes variables.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let variable = |(name, tensor)| Ok((name, Var::from_tensor(&tensor)?.into_inner()));
        Ok(Self { tensors: tensors.into_iter().map(variable).collect::<Result<_>>()? })
    }

    /// The trained tensors by name. They share storage with the network: an in-place optimizer step changes it.
    pub(super) fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Weight and bias.
    fn layer(&self, name: &str) -> Result<(&Tensor, &Tensor)> {
        let tensor = |part: &str| {
            let name = format!("{name}.{part}");
            self.tensors.get(&name).ok_or_else(|| Error::model(format!("the CNN has no tensor {name}")))
        };
        Ok((tensor("weight")?, tensor("bias")?))
    }

    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.layer(name)?;
        Ok(Linear::new(weight.clone(), Some(bias.clone())).forward(x)?)
    }

    /// Logits of a document, `(1, classes)`; `masks` are its rows of [`Network::masks`], for training alone.
    pub(super) fn forward(
        &self,
        embeddings: &Embeddings,
        document: &Document,
        masks: Option<&[Tensor; 2]>,
    ) -> Result<Tensor> {
        let x = embeddings.embed(&document.ids, KERNELS[KERNELS.len() - 1])?;
        let mut pooled = Vec::with_capacity(KERNELS.len());
        for kernel in KERNELS {
            let (weight, bias) = self.layer(&format!("conv{kernel}"))?;
            pooled.push((max_over_time(&x, weight, kernel)? + bias)?);
        }
        let features = relu(&Tensor::cat(&pooled, 0)?.unsqueeze(0)?)?;
        let features = masks.map_or(Ok(features.clone()), |[mask, _]| features * mask)?;
        let hidden = relu(&self.linear("projection", &features)?)?;
        let hidden = masks.map_or(Ok(hidden.clone()), |[_, mask]| hidden * mask)?;
        self.linear("out", &hidden)
    }

    /// Masks of inverted dropout for the documents of a step, a function of (seed, step, layer): `(documents, 4F)` for
    /// what the projection reads, `(documents, P)` for what the output reads.
    pub(super) fn masks(&self, documents: usize, dropout: f64, seed: u64, step: usize) -> Result<[Tensor; 2]> {
        let mask = |layer: &str, place: u64| {
            let ones = Tensor::ones((documents, self.layer(layer)?.0.dim(1)?), DType::F32, &Device::Cpu)?;
            let rng = Rng::new(seed, streams::BASELINE);
            let steps = vec![2 * step as u64 + place];
            let key = DropoutKey { p: dropout as f32, rng, steps };
            dropout::forward(&ones, &key, &Offsets::from_lengths(&[documents]))
        };
        Ok([mask("projection", 0)?, mask("out", 1)?])
    }

    /// The gradient of `loss` in every tensor, by its name.
    pub(super) fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let mut gradients = loss.backward()?;
        Ok(self.tensors.iter().filter_map(|(name, x)| Some((name.clone(), gradients.remove(x)?))).collect())
    }
}

/// `max_t ⟨W[f], x[t .. t+k]⟩`: `x (tokens, D)`, `weight (F, k·D)` → `(F)`.
///
/// Only the windows that win are in candle's graph: of a convolution it would keep every output, and compute the
/// gradient of the frozen x, at three times the work.
fn max_over_time(x: &Tensor, weight: &Tensor, kernel: usize) -> Result<Tensor> {
    let (filters, span) = weight.dims2()?;
    let taps = weight.detach().reshape((filters, kernel, span / kernel))?.transpose(1, 2)?.contiguous()?;
    let convolution = Conv1d::new(taps, None, Conv1dConfig::default());
    let first = convolution.forward(&x.t()?.unsqueeze(0)?)?.squeeze(0)?.argmax_keepdim(1)?;
    let rows = first.broadcast_add(&Tensor::arange(0, kernel as u32, &Device::Cpu)?)?.flatten_all()?;
    Ok((x.index_select(&rows, 0)?.reshape((filters, span))? * weight)?.sum(1)?)
}

/// Of x = 0 the gradient is 0, as in PyTorch; `Tensor::relu` has 1.
fn relu(x: &Tensor) -> Result<Tensor> {
    Ok((x * x.gt(0f32)?.to_dtype(x.dtype())?)?)
}
