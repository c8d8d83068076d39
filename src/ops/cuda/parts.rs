//! Tables for launches over many tensors: `parts.cuh` says how kernels read them.

use candle_core::Tensor;
use candle_core::cuda_backend::CudaDevice;

use super::{Launch, upload, upload_u64};
use crate::error::Result;

/// Numbers of one tensor that a block takes.
const PER_BLOCK: usize = 8192;

/// A table on the device.
pub(crate) struct Parts {
    parts: Tensor,
    of_block: Tensor,
    blocks: usize,
}

impl Parts {
    /// Of each part the addresses, as the kernel's `Part` has them, and how many numbers lie there.
    pub fn new<const N: usize>(device: &CudaDevice, parts: &[([u64; N], usize)]) -> Result<Self> {
        let mut words = Vec::with_capacity((N + 2) * parts.len());
        let mut of_block = Vec::new();
        for (i, (addresses, count)) in parts.iter().enumerate() {
            words.extend(addresses);
            words.extend([*count as u64, of_block.len() as u64]);
            of_block.extend(std::iter::repeat_n(i as u32, count.div_ceil(PER_BLOCK)));
        }
        Ok(Self { parts: upload_u64(device, &words)?, of_block: upload(device, &of_block)?, blocks: of_block.len() })
    }

    /// Blocks of a launch.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// A launch whose first arguments are the table.
    pub fn launch(&self, device: &CudaDevice, file: &'static str, kernel: &str) -> Result<Launch> {
        Launch::new(device, file, kernel)?.tensor(&self.parts)?.tensor(&self.of_block)?.u32(PER_BLOCK)
    }
}
