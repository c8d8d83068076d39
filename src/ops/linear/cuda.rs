//! Products by cuBLAS. Shapes are checked by the caller.
//!
//! bf16 operands are summed in f32 by the tensor cores; two f32 operands (the head) are multiplied in f32, not TF32.
//! Mixed ones are both taken as bf16 (adapters, which are f32, beside bf16 activations; f32 rows beside a bf16 weight,
//! as on the CPU). What comes out has the type of the activations, rounded once; weights' gradients are f32.
//!
//! A sum onto an output is cuBLAS's beta = 1, an adapter's scaling its alpha: neither takes a pass of its own.
//!
//! cuBLAS counts columns first: a row-major matrix is its transpose there, so `y = x·Wᵀ` is asked for as
//! `yᵀ = W·xᵀ`.
#![allow(unsafe_code)]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::{DType, Tensor};

use super::array;
use crate::error::{Error, Result};
use crate::ops::add::add_bias;
use crate::ops::cast::{cast, cast_into};
use crate::ops::cuda::{address, address_of_rows, device_of, uninit};

/// How a row-major operand enters the product.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Plain,
    Transposed,
}

/// What a product is multiplied by, and what of its output stays: `alpha a·b + beta c`.
#[derive(Clone, Copy)]
struct Factors {
    alpha: f32,
    beta: f32,
}

impl Factors {
    const ONE: Self = Self { alpha: 1.0, beta: 0.0 };
    const ADD: Self = Self { alpha: 1.0, beta: 1.0 };
}

/// `x (m, k)`, `weight (n, k)` → `(m, n)`.
pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let m = x.dim(0)?;
    let n = weight.dim(0)?;
    let y = uninit(&device_of(x)?, (m, n), x.dtype())?;
    product((x, As::Plain), (weight, As::Transposed), &y, Factors::ONE)?;
    if let Some(bias) = bias {
        if bias.dims() != [n] {
            return Err(Error::run(format!("linear: a bias of shape {:?} for {n} outputs", bias.dims())));
        }
        add_bias(&y, bias)?;
    }
    Ok(y)
}

/// `x (m, k)`, each `weight (nᵢ, k)` → `scale · x·weightᵀ`: one product with all weights, one below the other.
/// Each result is a strip of columns of the product's, `(m, nᵢ)` and not contiguous.
pub(super) fn scaled_each<const N: usize>(x: &Tensor, weights: [&Tensor; N], scale: f64) -> Result<[Tensor; N]> {
    let rows: [usize; N] = array(weights.iter().map(|weight| Ok(weight.dim(0)?)))?;
    let stacked = match weights.as_slice() {
        [weight] => (*weight).clone(),
        // Adapters in training are f32 and would be cast anyway: each into its place.
        _ => stacked(&weights, operand_type(x, weights[0]))?,
    };
    scaled_stacked(x, &stacked, rows, scale)
}

/// [`scaled_each`] of weights that lie one below the other, so many `rows` each.
pub(super) fn scaled_stacked<const N: usize>(
    x: &Tensor,
    weights: &Tensor,
    rows: [usize; N],
    scale: f64,
) -> Result<[Tensor; N]> {
    let y = uninit(&device_of(x)?, (x.dim(0)?, weights.dim(0)?), x.dtype())?;
    product((x, As::Plain), (weights, As::Transposed), &y, Factors { alpha: scale as f32, beta: 0.0 })?;
    array((0..N).map(|i| Ok(y.narrow(1, rows[..i].iter().sum(), rows[i])?)))
}

/// Weights `(nᵢ, k)` one below the other, as `dtype`.
pub(in crate::ops) fn stacked(weights: &[&Tensor], dtype: DType) -> Result<Tensor> {
    let rows = weights.iter().map(|weight| Ok(weight.dim(0)?)).collect::<Result<Vec<usize>>>()?;
    let stacked = uninit(&device_of(weights[0])?, (rows.iter().sum(), weights[0].dim(1)?), dtype)?;
    let mut start = 0;
    for (weight, rows) in weights.iter().zip(rows) {
        cast_into(weight, &stacked.narrow(0, start, rows)?)?;
        start += rows;
    }
    Ok(stacked)
}

/// `dy (m, k)`, `weight (k, n)` → `dx (m, n) = scale · dy·weight`.
pub(super) fn backward_input(dy: &Tensor, weight: &Tensor, scale: f64) -> Result<Tensor> {
    let dx = uninit(&device_of(dy)?, (dy.dim(0)?, weight.dim(1)?), dy.dtype())?;
    product((dy, As::Plain), (weight, As::Plain), &dx, Factors { alpha: scale as f32, beta: 0.0 })?;
    Ok(dx)
}

/// `y + x·weightᵀ` over `y`.
pub(super) fn add_forward(y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let y = y.contiguous()?;
    product((x, As::Plain), (weight, As::Transposed), &y, Factors::ADD)?;
    Ok(y)
}

/// `dx + dy·weight` over `dx`.
pub(super) fn add_backward_input(dx: Tensor, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let dx = dx.contiguous()?;
    product((dy, As::Plain), (weight, As::Plain), &dx, Factors::ADD)?;
    Ok(dx)
}

/// `dy (k, m)`, `x (k, n)` → `dW (m, n)`, f32.
pub(super) fn backward_weight(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let dw = uninit(&device_of(dy)?, (dy.dim(1)?, x.dim(1)?), DType::F32)?;
    product((dy, As::Transposed), (x, As::Plain), &dw, Factors::ONE)?;
    Ok(dw)
}

/// `c (m, n) = alpha a·b + beta c`. Operands may be strips of columns of wider matrices; `c` is contiguous.
fn product((a, a_as): (&Tensor, As), (b, b_as): (&Tensor, As), c: &Tensor, factors: Factors) -> Result<()> {
    let operands = operand_type(a, b);
    let a = by_rows(&cast(a, operands)?)?;
    let b = by_rows(&cast(b, operands)?)?;
    let (a_rows, a_columns) = a.dims2()?;
    let (b_rows, b_columns) = b.dims2()?;
    let (m, n) = c.dims2()?;
    let k = if a_as == As::Plain { a_columns } else { a_rows };
    let inner = if b_as == As::Plain { b_rows } else { b_columns };
    if k != inner {
        return Err(Error::run(format!("linear: operands of shapes {:?} and {:?} do not fit", a.dims(), b.dims())));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        return if factors.beta == 0.0 { Ok(c.zero_set()?) } else { Ok(()) };
    }
    let int =
        |size: usize| i32::try_from(size).map_err(|_| Error::run(format!("linear: {size} is too large for cuBLAS")));
    let op = |how: As| {
        if how == As::Plain { sys::cublasOperation_t::CUBLAS_OP_N } else { sys::cublasOperation_t::CUBLAS_OP_T }
    };
    let device = device_of(c)?;
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().w()?;
    let (a_address, a_stride) = address_of_rows(&a)?;
    let (b_address, b_stride) = address_of_rows(&b)?;
    // SAFETY: a, b and c are on the device of the handle and live until the call has put the product into the device's
    // one stream; their rows are whole and as far apart as the leading dimensions say, of the types named; the factors
    // are f32 as the compute type wants.
    unsafe {
        gemm_ex(
            *blas.handle(),
            op(b_as),
            op(a_as),
            int(n)?,
            int(m)?,
            int(k)?,
            (&raw const factors.alpha).cast(),
            b_address as *const _,
            data_type(operands)?,
            int(b_stride)?,
            a_address as *const _,
            data_type(operands)?,
            int(a_stride)?,
            (&raw const factors.beta).cast(),
            address(c)? as *mut _,
            data_type(c.dtype())?,
            int(n)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()?;
    Ok(())
}

/// What both operands are taken as.
fn operand_type(a: &Tensor, b: &Tensor) -> DType {
    if a.dtype() == DType::F32 && b.dtype() == DType::F32 { DType::F32 } else { DType::BF16 }
}

/// A matrix whose rows are whole, each a stride behind the one before: as it is, or copied.
fn by_rows(x: &Tensor) -> Result<Tensor> {
    let (_, columns) = x.dims2()?;
    Ok(if matches!(*x.stride(), [stride, 1] if stride >= columns) { x.clone() } else { x.contiguous()? })
}

fn data_type(dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        _ => Err(Error::run(format!("linear: no product of {dtype:?}"))),
    }
}
