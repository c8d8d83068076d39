//! Tensors as kernels see them: addresses, outputs nobody has written yet, and small arrays from the host.
#![allow(unsafe_code)]

use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut, DeviceRepr, result};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{DType, Shape, Storage, Tensor};
use half::bf16;

use crate::error::{Error, Result};

/// The device address of a contiguous tensor's first element. It holds as long as the tensor does: until the launches
/// that were given it are in the stream, where whatever frees it comes after them.
pub(crate) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match layout.contiguous_offsets() {
        Some((start, _)) => element(tensor, &storage, start),
        None => Err(not_for_kernels(tensor)),
    }
}

/// As [`address`], of a matrix `(rows, columns)` whose rows are whole: and how many elements lie from one row to the
/// next.
pub(crate) fn address_of_rows(tensor: &Tensor) -> Result<(u64, usize)> {
    let (storage, layout) = tensor.storage_and_layout();
    match (layout.stride(), layout.dims()) {
        // Of one row the stride may be anything.
        (&[stride, 1], &[rows, columns]) if stride >= columns || rows <= 1 => {
            Ok((element(tensor, &storage, layout.start_offset())?, stride.max(columns)))
        }
        _ => Err(not_for_kernels(tensor)),
    }
}

fn not_for_kernels(tensor: &Tensor) -> Error {
    let dims = tensor.dims();
    let device = tensor.device();
    Error::run(format!("a kernel needs contiguous tensors on its device, not {dims:?} on {device:?}"))
}

/// Address of element `start` of a tensor's storage.
fn element(tensor: &Tensor, storage: &Storage, start: usize) -> Result<u64> {
    let Storage::Cuda(storage) = storage else { return Err(not_for_kernels(tensor)) };
    let stream = storage.device.cuda_stream();
    let base = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U8(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I64(slice) => slice.device_ptr(&stream).0,
        _ => return Err(Error::run(format!("no kernel takes {:?}", tensor.dtype()))),
    };
    Ok(base + (start * tensor.dtype().size_in_bytes()) as u64)
}

/// Whether `CLSGEN_UNINIT=nan` asks that what [`uninit`] makes be NaNs: then an element that its kernel leaves out is
/// seen in any comparison, where compute-sanitizer's initcheck does not see what TMA writes, cuBLAS's outputs among it.
static POISONED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("CLSGEN_UNINIT").is_some_and(|how| how == "nan"));

/// A tensor whose elements are whatever the memory holds: for a kernel to write all of.
pub(crate) fn uninit(device: &CudaDevice, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    let shape = shape.into();
    let storage = match dtype {
        DType::F32 => alloc::<f32>(device, shape.elem_count()),
        DType::BF16 => alloc::<bf16>(device, shape.elem_count()),
        DType::F64 => alloc::<f64>(device, shape.elem_count()),
        DType::U32 => alloc::<u32>(device, shape.elem_count()),
        DType::U8 => alloc::<u8>(device, shape.elem_count()),
        _ => Err(Error::run(format!("no kernel writes {dtype:?}"))),
    }?;
    Ok(wrap(storage, shape))
}

fn alloc<T: DeviceRepr + CudaDType>(device: &CudaDevice, count: usize) -> Result<CudaStorage> {
    // The driver refuses an allocation of nothing.
    // SAFETY: the host cannot read device memory but by a copy, and every bit pattern is a value of these types.
    let mut slice = unsafe { device.alloc::<T>(count.max(1)) }?;
    if *POISONED {
        let stream = device.cuda_stream();
        let bytes = slice.num_bytes();
        // Ones in all bits are a NaN of each float.
        // SAFETY: the bytes are the slice's, which the stream of the writing made.
        unsafe { result::memset_d8_async(slice.device_ptr_mut(&stream).0, 0xff, bytes, stream.cu_stream()) }.w()?;
    }
    Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
}

fn wrap(storage: CudaStorage, shape: Shape) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Arrays uploaded of late: positions, offsets and targets are the same in every layer of a pass, and are copied once.
static RECENT: Mutex<Vec<(usize, Vec<u32>, Tensor)>> = Mutex::new(Vec::new());
const REMEMBERED: usize = 16;

/// `values` on the device, `(n)` u32: perhaps a tensor of an earlier call, so never to be written.
pub(crate) fn upload(device: &CudaDevice, values: &[u32]) -> Result<Tensor> {
    let ordinal = device.cuda_stream().context().ordinal();
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(i) = recent.iter().position(|(of, held, _)| *of == ordinal && held == values) {
        let entry = recent.remove(i);
        recent.push(entry);
    } else {
        let tensor = Tensor::from_slice(values, values.len(), &candle_core::Device::Cuda(device.clone()))?;
        if recent.len() == REMEMBERED {
            recent.remove(0);
        }
        recent.push((ordinal, values.to_vec(), tensor));
    }
    Ok(recent[recent.len() - 1].2.clone())
}

/// As [`upload`], 64-bit numbers as pairs of words, the low one first.
pub(crate) fn upload_u64(device: &CudaDevice, values: &[u64]) -> Result<Tensor> {
    let words: Vec<u32> = values.iter().flat_map(|&value| [value as u32, (value >> 32) as u32]).collect();
    upload(device, &words)
}
