//! The two kernels of a product on a CPU, and which of them a caller takes.

use candle_core::Tensor;

use super::{Affine, array, check};
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

    /// [`Kernel::scaled_each`] of weights that lie one below the other in `stacked (Σ outᵢ, in)`, so many rows each: on
    /// CUDA nothing is copied.
    pub fn scaled_stacked<const N: usize>(
        self,
        x: &Tensor,
        stacked: &Tensor,
        rows: [usize; N],
        scale: f64,
    ) -> Result<[Tensor; N]> {
        let (total, k) = stacked.dims2()?;
        check("linear::scaled_stacked", k == x.dims2()?.1 && total == rows.iter().sum::<usize>(), x, stacked)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::scaled_stacked(x, stacked, rows, scale);
        }
        let strips: [Tensor; N] = array((0..N).map(|i| Ok(stacked.narrow(0, rows[..i].iter().sum(), rows[i])?)))?;
        self.scaled_each(x, strips.each_ref(), scale)
    }

    /// `y + W x` over `y`.
    pub fn add(self, y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self {
            Self::Forward => super::add_forward(y, x, weight),
            Self::Decode => super::decode_add(y, x, weight),
        }
    }
}
