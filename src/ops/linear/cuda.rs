//! Products by cuBLAS. Shapes are checked by the caller.
//!
//! bf16 operands are summed in f32 by the tensor cores; two f32 operands (the head) are multiplied in f32, not TF32. Mixed ones are both
//! taken as bf16 (adapters, which are f32, beside bf16 activations; f32 rows beside a bf16 weight, as on the CPU). What comes out has
//! the type of the activations, rounded once; weights' gradients are f32.
//!
//! cuBLAS counts columns first: a row-major matrix is its transpose there, so `y = x·Wᵀ` is asked for as `yᵀ = W·xᵀ`.
#![allow(unsafe_code)]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops::add::add_bias;
use crate::ops::cast::cast;
use crate::ops::cuda::{address, device_of, uninit};

/// How a row-major operand enters the product.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Plain,
    Transposed,
}

/// `x (m, k)`, `weight (n, k)` → `(m, n)`.
pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (m, n) = (x.dim(0)?, weight.dim(0)?);
    let y = uninit(&device_of(x)?, (m, n), x.dtype())?;
    product((x, As::Plain), (weight, As::Transposed), &y, false)?;
    if let Some(bias) = bias {
        if bias.dims() != [n] {
            return Err(Error::run(format!("linear: a bias of shape {:?} for {n} outputs", bias.dims())));
        }
        add_bias(&y, bias)?;
    }
    Ok(y)
}

/// `dy (m, k)`, `weight (k, n)` → `dx (m, n)`.
pub(super) fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let dx = uninit(&device_of(dy)?, (dy.dim(0)?, weight.dim(1)?), dy.dtype())?;
    product((dy, As::Plain), (weight, As::Plain), &dx, false)?;
    Ok(dx)
}

/// `y + x·weightᵀ` over `y`.
pub(super) fn add_forward(y: Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let y = y.contiguous()?;
    product((x, As::Plain), (weight, As::Transposed), &y, true)?;
    Ok(y)
}

/// `dx + dy·weight` over `dx`.
pub(super) fn add_backward_input(dx: Tensor, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let dx = dx.contiguous()?;
    product((dy, As::Plain), (weight, As::Plain), &dx, true)?;
    Ok(dx)
}

/// `dy (k, m)`, `x (k, n)` → `dW (m, n)`, f32.
pub(super) fn backward_weight(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let dw = uninit(&device_of(dy)?, (dy.dim(1)?, x.dim(1)?), DType::F32)?;
    product((dy, As::Transposed), (x, As::Plain), &dw, false)?;
    Ok(dw)
}

/// `c (m, n) = a·b`, or `c + a·b` with `add`.
fn product((a, a_as): (&Tensor, As), (b, b_as): (&Tensor, As), c: &Tensor, add: bool) -> Result<()> {
    let operands = if a.dtype() == DType::F32 && b.dtype() == DType::F32 { DType::F32 } else { DType::BF16 };
    let (a, b) = (cast(a, operands)?.contiguous()?, cast(b, operands)?.contiguous()?);
    let ((a_rows, a_columns), (b_rows, b_columns), (m, n)) = (a.dims2()?, b.dims2()?, c.dims2()?);
    let k = if a_as == As::Plain { a_columns } else { a_rows };
    let inner = if b_as == As::Plain { b_rows } else { b_columns };
    if k != inner {
        return Err(Error::run(format!("linear: operands of shapes {:?} and {:?} do not fit", a.dims(), b.dims())));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        return if add { Ok(()) } else { Ok(c.zero_set()?) };
    }
    let int = |size: usize| i32::try_from(size).map_err(|_| Error::run(format!("linear: {size} is too large for cuBLAS")));
    let op = |how: As| if how == As::Plain { sys::cublasOperation_t::CUBLAS_OP_N } else { sys::cublasOperation_t::CUBLAS_OP_T };
    let device = device_of(c)?;
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().w()?;
    let (alpha, beta) = (1.0f32, if add { 1.0f32 } else { 0.0 });
    // SAFETY: a, b and c are contiguous on the device of the handle, live until the call has put the product into the device's one
    // stream, and hold rows × leading dimension elements of the types named; alpha and beta are f32 as the compute type wants.
    unsafe {
        gemm_ex(
            *blas.handle(),
            op(b_as),
            op(a_as),
            int(n)?,
            int(m)?,
            int(k)?,
            (&raw const alpha).cast(),
            address(&b)? as *const _,
            data_type(operands)?,
            int(b_columns)?,
            address(&a)? as *const _,
            data_type(operands)?,
            int(a_columns)?,
            (&raw const beta).cast(),
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

fn data_type(dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        _ => Err(Error::run(format!("linear: no product of {dtype:?}"))),
    }
}
