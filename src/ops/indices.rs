//! Whole numbers that an op reads beside its tensors.

#[cfg(feature = "cuda")]
use candle_core::{Tensor, cuda_backend::CudaDevice};

/// Ids or positions, one a row. On a GPU an op copies them there as it is called; those of a step that is captured in a
/// graph lie at a place of their own.
#[derive(Debug, Clone, Copy)]
pub struct Indices<'a> {
    values: &'a [u32],
    #[cfg(feature = "cuda")]
    placed: Option<&'a Tensor>,
}

impl<'a> Indices<'a> {
    /// The numbers.
    pub fn values(self) -> &'a [u32] {
        self.values
    }
}

#[cfg(feature = "cuda")]
impl<'a> Indices<'a> {
    /// Numbers that are on the device, or will be when a graph that reads `place (n)` is launched.
    pub(super) fn placed(values: &'a [u32], place: &'a Tensor) -> Self {
        Self { values, placed: Some(place) }
    }

    /// `(n)` u32 on the device, never to be written.
    pub(super) fn on_device(self, device: &CudaDevice) -> crate::error::Result<Tensor> {
        match self.placed {
            Some(place) => Ok(place.clone()),
            None => super::cuda::upload(device, self.values),
        }
    }
}

impl<'a> From<&'a [u32]> for Indices<'a> {
    fn from(values: &'a [u32]) -> Self {
        Self {
            values,
            #[cfg(feature = "cuda")]
            placed: None,
        }
    }
}

impl<'a> From<&'a Vec<u32>> for Indices<'a> {
    fn from(values: &'a Vec<u32>) -> Self {
        values.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Indices<'a> {
    fn from(values: &'a [u32; N]) -> Self {
        values.as_slice().into()
    }
}
