//! cuBLASLt's product of e4m3 matrices, with a scale for each row of either operand.
//!
//! The scales are cuBLASLt's own ("outer vector" scaling, CUDA 12.9 and on, compute capability 9.0): they are
//! multiplied into the f32 sums before these are rounded, so that a product is rounded once and needs neither a buffer
//! in f32 nor a kernel behind it. Sums are moved to f32 registers as they grow (no "fast accumulation").
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t as Operation;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{DType, Tensor};
use sys::cublasLtMatmulDescAttributes_t as Attribute;
use sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F as A_SCALE_A_ROW;
use sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as WORKSPACE_BYTES;
use sys::cudaDataType_t as Kind;

use crate::error::{Error, Result};
use crate::ops::cuda::{address, device_of, uninit};

/// What NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

/// e4m3 codes of a matrix, row by row, and a scale for each row.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    pub codes: &'a Tensor,
    pub scales: &'a Tensor,
}

/// `x (rows, inner)`, `w (out, inner)` → `x·wᵀ` with both's scales, `(rows, out)` in bf16 or f32. Sizes are
/// multiples of 16; there are as many rows as x has scales.
pub(super) fn product(x: Scaled<'_>, w: Scaled<'_>, [out, inner]: [usize; 2], dtype: DType) -> Result<Tensor> {
    let rows = x.scales.elem_count();
    if x.codes.elem_count() != rows * inner || w.codes.elem_count() != out * inner || w.scales.elem_count() != out {
        return Err(Error::run(format!("fp8: operands that are not {rows} x {inner} and {out} x {inner}")));
    }
    let kind = match dtype {
        DType::BF16 => Kind::CUDA_R_16BF,
        DType::F32 => Kind::CUDA_R_32F,
        _ => return Err(Error::run(format!("fp8: no product of {dtype:?}"))),
    };
    let device = device_of(x.codes)?;
    let y = uninit(&device, (rows, out), dtype)?;
    let workspace = uninit(&device, WORKSPACE, DType::U8)?;
    let handle = handle(&device)?;
    // cuBLASLt counts columns first: w is its (inner, out), x its (inner, rows), y its (out, rows) = w transposed · x.
    let product = Owned::new(
        result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, Kind::CUDA_R_32F),
        result::destroy_matmul_desc,
    )?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &Operation::CUBLAS_OP_T)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &Operation::CUBLAS_OP_N)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, &0i8)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &A_SCALE_A_ROW)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &A_SCALE_A_ROW)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &address(w.scales)?)?;
    set(&product, Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &address(x.scales)?)?;
    let layout = |kind, rows: usize, columns: usize| {
        let made = result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64);
        Owned::new(made, result::destroy_matrix_layout)
    };
    let of_w = layout(Kind::CUDA_R_8F_E4M3, inner, out)?;
    let of_x = layout(Kind::CUDA_R_8F_E4M3, inner, rows)?;
    let of_y = layout(kind, out, rows)?;
    let preference = Owned::new(result::create_matmul_pref(), result::destroy_matmul_pref)?;
    let room = WORKSPACE;
    // SAFETY: the preference is alive, and the attribute is a size_t that the call reads.
    unsafe {
        result::set_matmul_pref_attribute(preference.0, WORKSPACE_BYTES, (&raw const room).cast(), size_of::<usize>())
    }
    .map_err(failed)?;
    // SAFETY: what is described is alive.
    let found =
        unsafe { result::get_matmul_algo_heuristic(handle, product.0, of_w.0, of_x.0, of_y.0, of_y.0, preference.0) };
    let found = found.map_err(|error| {
        failed(error).hint("cuBLASLt has no fp8 product of this shape: \"int8\" and \"nf4\" need none")
    })?;
    let alpha = 1.0f32;
    let beta = 0.0f32;
    // SAFETY: operands, scales, output and workspace are on the device of the handle, of the sizes and types that the
    // layouts say, and live until the call has put the product into the device's one stream; with beta = 0 the output
    // is not read.
    unsafe {
        result::matmul(
            handle,
            product.0,
            (&raw const alpha).cast(),
            (&raw const beta).cast(),
            address(w.codes)? as *const c_void,
            of_w.0,
            address(x.codes)? as *const c_void,
            of_x.0,
            address(&y)? as *const c_void,
            of_y.0,
            address(&y)? as *mut c_void,
            of_y.0,
            &raw const found.algo,
            address(&workspace)? as *mut c_void,
            WORKSPACE,
            device.cuda_stream().cu_stream().cast(),
        )
    }
    .map_err(failed)?;
    Ok(y)
}

/// One of cuBLASLt's descriptions, destroyed when it is dropped.
struct Owned<T: Copy>(T, unsafe fn(T) -> std::result::Result<(), result::CublasError>);

impl<T: Copy> Owned<T> {
    fn new(
        made: std::result::Result<T, result::CublasError>,
        destroy: unsafe fn(T) -> std::result::Result<(), result::CublasError>,
    ) -> Result<Self> {
        Ok(Self(made.map_err(failed)?, destroy))
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made by the function that belongs to this one, and is destroyed once.
        let _ = unsafe { (self.1)(self.0) };
    }
}

/// Sets an attribute of the product, whose type is `value`'s.
fn set<T>(product: &Owned<sys::cublasLtMatmulDesc_t>, attribute: Attribute, value: &T) -> Result<()> {
    // SAFETY: the description is alive, and the call copies the value, whose size is checked there.
    unsafe { result::set_matmul_desc_attribute(product.0, attribute, std::ptr::from_ref(value).cast(), size_of::<T>()) }
        .map_err(failed)
}

struct Handle(sys::cublasLtHandle_t);

// SAFETY: a handle of cuBLASLt may be used by any thread while its device is the thread's current one.
unsafe impl Send for Handle {}

/// The device's handle, made at its first use and kept; the device is the thread's current one from here on.
fn handle(device: &CudaDevice) -> Result<sys::cublasLtHandle_t> {
    static HANDLES: Mutex<BTreeMap<usize, Handle>> = Mutex::new(BTreeMap::new());
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = handles.get(&context.ordinal()) {
        return Ok(handle.0);
    }
    let handle = result::create_handle().map_err(failed)?;
    handles.insert(context.ordinal(), Handle(handle));
    Ok(handle)
}

fn failed(error: result::CublasError) -> Error {
    Error::run(format!("cuBLASLt: {error}"))
}
