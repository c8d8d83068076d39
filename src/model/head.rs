//! The classification head: `out(dropout(activation(dense(h_n))))`, d → hidden → 2.

use candle_core::{Device, Tensor};

use super::Gradients;
use crate::{config::Activation, error::Result};

/// The head's weights, f32.
#[derive(Debug)]
pub struct ClsHead {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Dropout after the nonlinearity.
    pub dropout: f64,
}

/// What the head's backward pass needs.
#[derive(Debug)]
pub struct HeadSaved {}

impl ClsHead {
    /// A head with `torch.nn.Linear`'s initial distribution.
    pub fn new(hidden_size: usize, hidden: usize, activation: Activation, dropout: f64, seed: u64, device: &Device) -> Result<Self> {
        let _ = (hidden_size, hidden, activation, dropout, seed, device);
        todo!()
    }

    /// `h_n (n, d)` → logits `(n, 2)`. `dropout` is (seed, a key a row); `None` when not training.
    pub fn forward(&self, h_n: &Tensor, dropout: Option<(u64, &[u64])>) -> Result<(Tensor, HeadSaved)> {
        let _ = (h_n, dropout);
        todo!()
    }

    /// Adds the head's gradients (`cls_head.…`) and gives d h_n.
    pub fn backward(&self, saved: HeadSaved, dlogits: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        let _ = (saved, dlogits, gradients);
        todo!()
    }
}
