//! How a model's matrices are held: their number type, and whether the projections of its layers are quantised.

use candle_core::{DType, Device, Tensor};

use super::{LlamaConfig, lora::PROJECTIONS};
use crate::{
    config::Quantize,
    context::Context,
    error::Result,
    ops::quantize::{Format, Quantized},
};

/// The number type of weights and products, and the format of quantised projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// F32 or BF16: of the products' operands, of what is not quantised, and of what is while it is used.
    pub dtype: DType,
    /// Of the seven projections of each layer; embedding, LM head and norms are never quantised.
    pub quantize: Option<Format>,
}

impl From<DType> for Precision {
    fn from(dtype: DType) -> Self {
        Self { dtype, quantize: None }
    }
}

impl Precision {
    /// What the config asks for on this device.
    pub fn of(context: &Context) -> Result<Self> {
        Ok(Self::new(context.dtype()?, context.config.model.quantize))
    }

    /// `model.quantize` beside the type that `model.dtype` means.
    pub fn new(dtype: DType, quantize: Quantize) -> Self {
        let quantize = match quantize {
            Quantize::None => None,
            Quantize::Int8 => Some(Format::Int8),
            Quantize::Nf4 => Some(Format::Nf4),
        };
        Self { dtype, quantize }
    }

    /// The format of this tensor, if it is quantised.
    pub(super) fn format_of(self, name: &str) -> Option<Format> {
        let projection = |name: &str| Some(name.strip_suffix(".weight")?.rsplit_once('.')?.1.to_owned());
        self.quantize.filter(|_| projection(name).is_some_and(|kind| PROJECTIONS.contains(&kind.as_str())))
    }

    /// Bytes of the projections that are dequantised side by side, for one product: gate and up, or q, k and v.
    pub(super) fn scratch_bytes(self, config: &LlamaConfig) -> u64 {
        if self.quantize.is_none() {
            return 0;
        }
        let mlp = 2 * config.intermediate_size;
        let attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
        (mlp.max(attention) * config.hidden_size * self.dtype.size_in_bytes()) as u64
    }
}

/// A base weight as it is held.
#[derive(Debug, Clone)]
pub(super) enum BaseWeight {
    /// f32 or bf16.
    Whole(Tensor),
    /// Quantised, and the type it has while it is used.
    Quantized(Quantized, DType),
}

impl From<Tensor> for BaseWeight {
    fn from(tensor: Tensor) -> Self {
        Self::Whole(tensor)
    }
}

impl BaseWeight {
    /// A matrix on the CPU as `precision` holds the tensor of this name; then on `device`.
    pub fn hold(name: &str, tensor: Tensor, precision: Precision, device: &Device) -> Result<Self> {
        Ok(match precision.format_of(name) {
            Some(format) => Self::Quantized(Quantized::new(&tensor, format)?.to_device(device)?, precision.dtype),
            None => Self::Whole(tensor.to_device(device)?),
        })
    }

    /// The matrix: a handle of what is held, or dequantised for this use.
    pub fn matrix(&self) -> Result<Tensor> {
        match self {
            Self::Whole(tensor) => Ok(tensor.clone()),
            Self::Quantized(quantized, dtype) => quantized.dequantize(*dtype),
        }
    }

    /// A handle of what is held, if it is not quantised.
    pub fn whole(&self) -> Option<&Tensor> {
        match self {
            Self::Whole(tensor) => Some(tensor),
            Self::Quantized(..) => None,
        }
    }

    /// `(out, in)`.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self {
            Self::Whole(tensor) => Ok(tensor.dims2()?),
            Self::Quantized(quantized, _) => Ok(quantized.shape()),
        }
    }

    /// Its type in products.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Whole(tensor) => tensor.dtype(),
            Self::Quantized(_, dtype) => *dtype,
        }
    }
}
