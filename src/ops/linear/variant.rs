//! The two kernels of a product on a CPU, and which of them a caller takes.

use candle_core::Tensor;

use super::Affine;
use crate::error::Result;

/// Which kernel multiplies: the two may differ in the last bits, so each use keeps to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Many rows: training and prefill.
    Forward,
    /// Few rows: one token a sequence.
    Decode,
}

impl Kernel {
    pub fn apply(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let [y] = self.apply_each(x, [(weight, bias)])?;
        Ok(y)
    }

    pub fn apply_each<const N: usize>(self, x: &Tensor, weights: [Affine<'_>; N]) -> Result<[Tensor; N]> {
        match self {
            Self::Forward => super::forward_each(x, weights),
            Self::Decode => super::decode_each(x, weights),
        }
    }

    /// `scale · W x` of each weight.
    pub fn scaled_each<const N: usize>(self, x: &Tensor, weights: [&Tensor; N], scale: f64) -> Result<[Tensor; N]> {
        match self {
            Self::Forward => super::scaled_forward_each(x, weights, scale),
            Self::Decode => super::scaled_decode_each(x, weights, scale),
        }
    }

    /// `y + W x` over `y`.
    pub fn add(self, y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self {
            Self::Forward => super::add_forward(y, x, weight),
            Self::Decode => super::decode_add(y, x, weight),
        }
    }
}
