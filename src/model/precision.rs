//! How a model's matrices are held: their number type, and whether the projections of its layers are quantised.

use candle_core::{DType, Device, Tensor};

use super::{LlamaConfig, adapter::PROJECTIONS};
use crate::{
    config::Quantize,
    context::Context,
    error::Result,
    ops::{
        linear::{self, Kernel, array},
        quantize::{Format, Quantized, fp8},
    },
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
            Quantize::Fp8 => Some(Format::Fp8),
            Quantize::Int8 => Some(Format::Int8),
            Quantize::Nf4 => Some(Format::Nf4),
        };
        Self { dtype, quantize }
    }

    /// Fails (exit 2) where `device` cannot compute so.
    pub fn check(self, device: &Device) -> Result<()> {
        if self.quantize == Some(Format::Fp8) { fp8::check(device) } else { Ok(()) }
    }

    /// The format of this tensor, if it is quantised.
    pub(super) fn format_of(self, name: &str) -> Option<Format> {
        let projection = |name: &str| Some(name.strip_suffix(".weight")?.rsplit_once('.')?.1.to_owned());
        self.quantize.filter(|_| projection(name).is_some_and(|kind| PROJECTIONS.contains(&kind.as_str())))
    }

    /// Bytes of the projections that are widened side by side, for one product: gate and up, or q, k and v. CUDA
    /// multiplies fp8 as it is, a CPU its codes in bf16.
    pub(super) fn scratch_bytes(self, config: &LlamaConfig, cuda: bool) -> u64 {
        let each = match self.quantize {
            None => return 0,
            Some(Format::Fp8) if cuda => return 0,
            Some(Format::Fp8) => DType::BF16,
            Some(Format::Nf4 | Format::Int8) => self.dtype,
        };
        let mlp = 2 * config.intermediate_size;
        let attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
        (mlp.max(attention) * config.hidden_size * each.size_in_bytes()) as u64
    }

    /// Bytes a row of a pass takes for this precision's sake: fp8 has the input of a product quantised (a CPU: what its
    /// codes stand for) with its scale, and a product of backward before it is added.
    pub(super) fn row_bytes(self, config: &LlamaConfig, cuda: bool, activation: u64) -> u64 {
        if self.quantize != Some(Format::Fp8) {
            return 0;
        }
        let attention = config.num_attention_heads * config.head_dim;
        let widest = config.intermediate_size.max(config.hidden_size).max(attention) as u64;
        widest * if cuda { 1 } else { 4 } + 4 + activation * config.hidden_size as u64
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
            Some(format) => {
                let held = Quantized::new(&tensor, format)?.to_device(device).map_err(|error| error.context(name))?;
                Self::Quantized(held, precision.dtype)
            }
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

    /// The matrix in fp8.
    fn fp8(&self) -> Option<&Quantized> {
        match self {
            Self::Quantized(quantized, _) if quantized.format() == Format::Fp8 => Some(quantized),
            _ => None,
        }
    }

    /// `W x + b` of each, quantised ones made whole for this one use or multiplied as they are.
    pub fn forward_each<const N: usize>(
        each: [(&Self, Option<&Tensor>); N],
        x: &Tensor,
        kernel: Kernel,
    ) -> Result<[Tensor; N]> {
        let fp8: Vec<fp8::Affine<'_>> = each.iter().filter_map(|(weight, bias)| Some((weight.fp8()?, *bias))).collect();
        if let Ok(all) = fp8.try_into() {
            return fp8::forward_each::<N>(x, all, kernel);
        }
        let matrices: [Tensor; N] = array(each.iter().map(|(weight, _)| weight.matrix()))?;
        kernel.apply_each(x, std::array::from_fn(|i| (&matrices[i], each[i].1)))
    }

    /// `dy W`.
    pub fn backward_input(&self, dy: &Tensor) -> Result<Tensor> {
        match self.fp8() {
            Some(quantized) => fp8::backward_input(dy, quantized),
            None => linear::backward_input(dy, &self.matrix()?),
        }
    }

    /// `dx + dy W` over `dx`.
    pub fn add_backward_input(&self, dx: Tensor, dy: &Tensor) -> Result<Tensor> {
        match self.fp8() {
            Some(quantized) => fp8::add_backward_input(dx, dy, quantized),
            None => linear::add_backward_input(dx, dy, &self.matrix()?),
        }
    }

    /// `(out, in)`.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self {
            Self::Whole(tensor) => Ok(tensor.dims2()?),
            Self::Quantized(quantized, _) => Ok(quantized.shape()),
        }
    }

    /// How it is held.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Whole(tensor) => tensor.dtype().into(),
            Self::Quantized(quantized, dtype) => Precision { dtype: *dtype, quantize: Some(quantized.format()) },
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
