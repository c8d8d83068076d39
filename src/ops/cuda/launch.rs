//! Kernels by name, and launches with their arguments checked as far as Rust can see.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, LaunchConfig, PushKernelArg, sys};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{DType, Tensor};

use super::memory::{address, address_of_rows};
use crate::error::{Error, Result};

// `static FATBINS: &[(&str, &[u8])]`: each kernel file's path below `src/ops`, without `.cu`, and its fat binary.
include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// Dynamic shared memory a block may have without asking for more.
const SHARED_BY_DEFAULT: usize = 48 << 10;

/// What was loaded, by device and name.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, String), CudaFunction>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Kernel `name` of file `file`, loaded at its first use: the driver picks the image made for the card, or compiles the
/// PTX.
fn function(device: &CudaDevice, file: &'static str, name: &str) -> Result<CudaFunction> {
    let stream = device.cuda_stream();
    let ordinal = stream.context().ordinal();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(function) = loaded.functions.get(&(ordinal, name.to_owned())) {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&(ordinal, file)) {
        Some(module) => module.clone(),
        None => {
            let (_, image) = FATBINS
                .iter()
                .find(|(path, _)| *path == file)
                .ok_or_else(|| Error::run(format!("no kernel file {file}")))?;
            let module = stream.context().load_module(Ptx::from_binary(image.to_vec())).w()?;
            loaded.modules.insert((ordinal, file), module.clone());
            module
        }
    };
    let function =
        module.load_function(name).w().map_err(|error| Error::run(format!("kernel {name} of {file}: {error}")))?;
    loaded.functions.insert((ordinal, name.to_owned()), function.clone());
    Ok(function)
}

/// The CUDA device a tensor is on.
pub(crate) fn device_of(tensor: &Tensor) -> Result<CudaDevice> {
    Ok(tensor.device().as_cuda_device()?.clone())
}

/// Bytes of dynamic shared memory that a block may have on this card: 163 KB on one of 8.0, 99 on 8.6 and 8.9, 227 on
/// 9.0.
pub(crate) fn most_shared(device: &CudaDevice) -> Result<usize> {
    let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    Ok(device.cuda_stream().context().attribute(attribute).w()? as usize)
}

/// How kernels' names end for tensors of this type.
pub(crate) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        _ => Err(Error::run(format!("kernels take f32 and bf16, not {dtype:?}"))),
    }
}

/// Grid size for an elementwise kernel over `n` elements: one block for every `8·threads` elements (16 bytes of bf16 a
/// thread), at most 2,112, which keeps a GPU of 132 multiprocessors busy. The kernels loop over the rest with grid
/// strides.
pub(crate) fn blocks(n: usize, threads: usize) -> u32 {
    n.div_ceil(8 * threads).clamp(1, 132 * 16) as u32
}

/// A launch in the making: arguments in the kernel's order.
pub(crate) struct Launch {
    device: CudaDevice,
    function: CudaFunction,
    // 8 bytes each, of which a smaller number takes the first: the order of bytes of every machine with such a card.
    arguments: Vec<u64>,
    // Handles of what the arguments point to: nothing is freed before the launch is in the stream.
    tensors: Vec<Tensor>,
}

impl Launch {
    /// Kernel `name` of the file `src/ops/<file>.cu`.
    pub fn new(device: &CudaDevice, file: &'static str, name: &str) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            function: function(device, file, name)?,
            arguments: Vec::new(),
            tensors: Vec::new(),
        })
    }

    /// A pointer to a contiguous tensor on the device.
    pub fn tensor(mut self, tensor: &Tensor) -> Result<Self> {
        self.arguments.push(address(tensor)?);
        self.tensors.push(tensor.clone());
        Ok(self)
    }

    /// A pointer to a matrix whose rows are whole, as [`address_of_rows`] takes them.
    pub fn rows(mut self, matrix: &Tensor) -> Result<Self> {
        self.arguments.push(address_of_rows(matrix)?.0);
        self.tensors.push(matrix.clone());
        Ok(self)
    }

    /// A pointer to a tensor, or the null pointer.
    pub fn optional(self, tensor: Option<&Tensor>) -> Result<Self> {
        match tensor {
            Some(tensor) => self.tensor(tensor),
            None => Ok(self.u64(0)),
        }
    }

    /// A 64-bit number.
    pub fn u64(mut self, value: u64) -> Self {
        self.arguments.push(value);
        self
    }

    /// A 32-bit number; a size beyond it is an error.
    pub fn u32(self, value: usize) -> Result<Self> {
        let value = u32::try_from(value).map_err(|_| Error::run(format!("{value} is too large for a kernel")))?;
        Ok(self.u64(u64::from(value)))
    }

    /// A float.
    pub fn f32(self, value: f32) -> Self {
        self.u64(u64::from(value.to_bits()))
    }

    /// A double.
    pub fn f64(self, value: f64) -> Self {
        self.u64(value.to_bits())
    }

    /// Enqueues the kernel on the device's stream: `grid` blocks of `threads` threads, each block with `shared` bytes
    /// of dynamic shared memory. A grid with a 0 in it does nothing.
    ///
    /// # Safety
    /// The arguments must be those that the kernel declares, in its order and of its types, and every tensor must have
    /// the shape and type that the kernel indexes for this grid.
    pub unsafe fn run(self, grid: [u32; 3], threads: u32, shared: usize) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        if shared > SHARED_BY_DEFAULT {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.function.set_attribute(attribute, shared as i32).w()?;
        }
        let config = LaunchConfig {
            grid_dim: (grid[0], grid[1], grid[2]),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: shared as u32,
        };
        let stream = self.device.cuda_stream();
        let mut builder = stream.launch_builder(&self.function);
        for argument in &self.arguments {
            builder.arg(argument);
        }
        // SAFETY: the caller's promise; memory is used and freed in the order of the one stream.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}
