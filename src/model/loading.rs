//! What reading a model takes in memory, known before any of its weights is read.

use std::path::PathBuf;

use candle_core::{DType, Device};

use super::{
    LlamaConfig, ModelSource, Precision,
    footprint::usable,
    source::Weights,
    tensor_spec::{bytes, shapes},
    weights::TOGETHER,
};
use crate::{device, error::Result, ops::cuda};

/// Bytes that reading a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// The tensors, from then on.
    pub held: u64,
    /// Copies on the way there.
    pub passing: u64,
    /// Address space beyond that: files that are mapped meanwhile, and what the copies leave reserved.
    pub addresses: u64,
}

impl Loading {
    /// Of the model at `source`, whose shape is `config`, with its matrices held as `precision` says on `device`.
    pub fn of(source: &ModelSource, config: &LlamaConfig, precision: impl Into<Precision>, device: &Device) -> Self {
        let precision = precision.into();
        let dtype = precision.dtype;
        let held = bytes(config, precision, device.is_cuda());
        let largest = shapes(config).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).max().unwrap_or(0);
        let length = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        let (mapped, copies) = match &source.weights {
            // A tensor as it is in the file, dequantized, put in HF's order, as numbers.
            Weights::Gguf(_) => (0, 16 * largest),
            Weights::Safetensors(files) if dtype == DType::BF16 => (files.iter().map(length).sum(), 4 * largest),
            Weights::Safetensors(files) => (files.iter().map(length).sum(), 0),
        };
        // A tensor a thread, before it is quantised.
        let whole = if precision.quantize.is_some() { dtype.size_in_bytes() as u64 * largest } else { 0 };
        let copies = copies + rayon::current_num_threads() as u64 * whole;
        let buffer = if device.is_cpu() && dtype == DType::BF16 { held.min(TOGETHER as u64) } else { 0 };
        // Tensors that were moved leave gaps in which no buffer fits.
        let gaps = if buffer > 0 { held - buffer } else { 0 };
        Self { held, passing: copies + buffer, addresses: mapped + gaps }
    }

    /// Fails (exit 5) where the weights, and beside them what loading or what `work` takes, are more than is free.
    /// `what` begins the message; `fits` makes a hint of the free bytes, where it knows a better one than a smaller
    /// model.
    pub fn check(&self, work: u64, device: &Device, what: &str, fits: &dyn Fn(u64) -> Option<String>) -> Result<()> {
        let hint = |free: u64| fits(free).unwrap_or_else(|| SMALLER.into());
        let free = usable(cuda::memory_available(device), device.is_cuda());
        device::check_memory(self.held + work.max(self.passing), free, what).map_err(|error| error.hint(hint(free)))?;
        // Where addresses are limited, a mapped file counts, and so does what the allocator reserves beside what it
        // gives: on the host, whatever computes.
        let host = if device.is_cuda() { 0 } else { self.held };
        let free = device::addresses_available();
        let rounded_up = host / 16;
        device::check_memory(host + rounded_up + self.passing + self.addresses, free, what)
            .map_err(|error| error.hint(SMALLER))
    }
}

/// What helps where the weights alone are too large.
const SMALLER: &str = "a smaller model would fit, or model.dtype = \"bf16\", or more memory (is it limited by ulimit \
    -v or by the batch system?)";
