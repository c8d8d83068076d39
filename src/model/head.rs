//! The classification head: `out(dropout(activation(dense(h_n))))`, d → hidden → K classes, in f32.

use candle_core::{Device, Tensor};

use super::{Gradients, accumulate, adapter::uniform};
use crate::{
    config::Activation,
    error::{Error, Result},
    ops::{Offsets, activation, dropout, dropout::DropoutKey, linear},
    rng::{Rng, streams},
};

/// Names of the head's tensors in `cls_head.safetensors`, with their shapes for `hidden_size` d, width `hidden` and K
/// `classes`.
pub(super) fn shapes(hidden_size: usize, hidden: usize, classes: usize) -> [(&'static str, Vec<usize>); 4] {
    [
        ("dense.weight", vec![hidden, hidden_size]),
        ("dense.bias", vec![hidden]),
        ("out.weight", vec![classes, hidden]),
        ("out.bias", vec![classes]),
    ]
}

/// The head's weights, f32.
#[derive(Debug)]
pub struct ClsHead {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Dropout after the nonlinearity.
    pub dropout: f64,
    /// dense.weight, dense.bias, out.weight, out.bias.
    tensors: [Tensor; 4],
}

/// What the head's backward pass needs.
#[derive(Debug)]
pub struct HeadSaved {
    h_n: Tensor,
    dense: Tensor,
    dropped: Tensor,
    key: Option<DropoutKey>,
}

impl ClsHead {
    /// A head with `torch.nn.Linear`'s initial distribution, U(±1/√fan_in).
    pub fn new(
        hidden_size: usize,
        hidden: usize,
        classes: usize,
        activation: Activation,
        dropout: f64,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let rng = Rng::new(seed, streams::HEAD_INIT);
        let [dense_weight, dense_bias, out_weight, out_bias] =
            shapes(hidden_size, hidden, classes).map(|(name, shape)| {
                uniform(
                    rng,
                    &format!("cls_head.{name}"),
                    shape,
                    if name.starts_with("dense") { hidden_size } else { hidden },
                    device,
                )
            });
        Ok(Self { hidden, activation, dropout, tensors: [dense_weight?, dense_bias?, out_weight?, out_bias?] })
    }

    /// A head of these four tensors (f32), in the order of the file's names: dense.weight, dense.bias, out.weight,
    /// out.bias. As many classes as out.bias has numbers.
    pub fn from_tensors(tensors: [Tensor; 4], activation: Activation, dropout: f64) -> Result<Self> {
        let (hidden, hidden_size) = tensors[0].dims2()?;
        for ((name, shape), tensor) in shapes(hidden_size, hidden, tensors[3].dims1()?).iter().zip(&tensors) {
            if tensor.dims() != shape {
                return Err(Error::model(format!(
                    "classification head: {name} has shape {:?}, {shape:?} expected",
                    tensor.dims()
                )));
            }
        }
        Ok(Self { hidden, activation, dropout, tensors })
    }

    /// Handles of the tensors by their names in `cls_head.safetensors` (`dense.weight`, …).
    pub fn tensors(&self) -> [(&'static str, &Tensor); 4] {
        let [dense_weight, dense_bias, out_weight, out_bias] = &self.tensors;
        [("dense.weight", dense_weight), ("dense.bias", dense_bias), ("out.weight", out_weight), ("out.bias", out_bias)]
    }

    /// `h_n (n, d)` → logits `(n, classes)`. `dropout` is (seed, a key a row); `None` when not training.
    pub fn forward(&self, h_n: &Tensor, dropout: Option<(u64, &[u64])>) -> Result<(Tensor, HeadSaved)> {
        let [dense_weight, dense_bias, out_weight, out_bias] = &self.tensors;
        let key = dropout.map(|(seed, steps)| DropoutKey {
            p: self.dropout as f32,
            rng: Rng::new(seed, streams::HEAD_DROPOUT),
            steps: steps.to_vec(),
        });
        let dense = linear::forward(h_n, dense_weight, Some(dense_bias))?;
        let dropped = mask(&activation::forward(self.activation, &dense)?, key.as_ref())?;
        let logits = linear::forward(&dropped, out_weight, Some(out_bias))?;
        Ok((logits, HeadSaved { h_n: h_n.clone(), dense, dropped, key }))
    }

    /// Adds the head's gradients (`cls_head.…`) and gives d h_n.
    ///
    /// Rows are added one after another, so that the sum does not depend on how records are batched.
    pub fn backward(&self, saved: HeadSaved, dlogits: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        let [dense_weight, _, out_weight, _] = &self.tensors;
        let HeadSaved { h_n, dense, dropped, key } = saved;
        let dactivated = mask(&linear::backward_input(dlogits, out_weight)?, key.as_ref())?;
        let ddense = activation::backward(self.activation, &dense, &dactivated)?;
        for row in 0..dlogits.dim(0)? {
            let row = |t: &Tensor| t.narrow(0, row, 1);
            let dlogits = row(dlogits)?;
            let ddense = row(&ddense)?;
            accumulate(gradients, "cls_head.out.weight", linear::backward_weight(&dlogits, &row(&dropped)?)?)?;
            accumulate(gradients, "cls_head.out.bias", dlogits.squeeze(0)?)?;
            accumulate(gradients, "cls_head.dense.weight", linear::backward_weight(&ddense, &row(&h_n)?)?)?;
            accumulate(gradients, "cls_head.dense.bias", ddense.squeeze(0)?)?;
        }
        linear::backward_input(&ddense, dense_weight)
    }
}

/// Dropout where each row is a sequence of its own.
fn mask(x: &Tensor, key: Option<&DropoutKey>) -> Result<Tensor> {
    match key {
        Some(key) => dropout::forward(x, key, &Offsets::from_lengths(&vec![1; x.dim(0)?])),
        None => Ok(x.clone()),
    }
}
