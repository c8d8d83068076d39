//! Opens a CUDA device, or says which of the things it takes is missing (exit 5).

#[cfg(feature = "cuda")]
use std::collections::BTreeMap;
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

use candle_core::Device;

#[cfg(feature = "cuda")]
use super::switch::Switch;
#[cfg(not(feature = "cuda"))]
use crate::error::Error;
use crate::error::Result;

const CPU_HINT: &str = "use --device cpu";

/// CUDA device `ordinal`, ready for our kernels.
#[cfg(not(feature = "cuda"))]
pub fn open(_ordinal: usize) -> Result<Device> {
    Err(Error::resources("this build of clsgen has no CUDA support")
        .hint(format!("{CPU_HINT}, or a build with it: cargo build --release --features cuda")))
}

/// Opens CUDA device `ordinal` for our kernels: one stream for all host threads, event tracking off, and a memory pool
/// that keeps freed memory for the next allocation.
///
/// Opening the same ordinal again returns the same device: candle refuses operations between tensors of two `Device`
/// values, even if both stand for one card.
#[cfg(feature = "cuda")]
pub fn open(ordinal: usize) -> Result<Device> {
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&ordinal) {
        return Ok(device.clone());
    }
    Switch::check_all()?;
    let libraries = found::libraries()?;
    found::devices(ordinal)?;
    // Asked after those: an old driver lacks functions too, and is better told by its version.
    found::functions(&libraries)?;
    found::capable(ordinal)?;
    // A stream of our own, not one a thread: weights are read by many threads.
    let device = Device::new_cuda_with_stream(ordinal).map_err(|error| found::closed(ordinal, error))?;
    found::settle(&device).map_err(|error| found::closed(ordinal, error))?;
    opened.insert(ordinal, device.clone());
    Ok(device)
}

/// Bytes that can still be allocated where `device` computes: of a GPU what is free and what our pool holds unused,
/// else of the host.
pub fn memory_available(device: &Device) -> u64 {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return found::memory_available(device).unwrap_or_else(|error| {
            tracing::warn!("free memory of the GPU: {error}");
            0
        });
    }
    let _ = device;
    crate::device::memory_available()
}

/// The name of the card, as in "NVIDIA H100 80GB HBM3"; `None` on a CPU.
pub fn name(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return device.as_cuda_device().ok()?.cuda_stream().context().name().ok();
    }
    let _ = device;
    None
}

/// The most bytes of a GPU that this process had in use at once since it last asked (or began), without what CUDA
/// graphs hold; `None` on a CPU.
pub fn take_peak_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return found::take_peak_memory(device).ok();
    }
    let _ = device;
    None
}

/// Everything here is asked before candle is, whose errors do not say what is missing.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod found {
    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver;
    use driver::sys::{CUmemPool_attribute as Attribute, CUresult};

    use super::super::libraries::{self, Library};
    use super::CPU_HINT;
    use crate::error::{Error, Result};

    pub const NVIDIA_SMI: &str = "see nvidia-smi for the devices there are, or use --device cpu";
    /// The version whose functions we call and whose PTX we carry, as the driver counts: 1000·major + 10·minor.
    const CUDA_VERSION: i32 = 13_000;

    /// The shared libraries, opened by name from where the system looks for libraries.
    pub fn libraries() -> Result<Vec<Library>> {
        let [driver, cublas, cublas_lt, curand] = libraries::open();
        if driver.is_none() {
            return Err(Error::resources("no CUDA driver on this machine: libcuda.so.1 cannot be loaded")
                .hint(format!("{CPU_HINT}, or install the NVIDIA driver (580 or newer)")));
        }
        let missing: Vec<&str> = [
            (&cublas, "cuBLAS (libcublas.so.13)"),
            (&cublas_lt, "cuBLASLt (libcublasLt.so.13)"),
            (&curand, "cuRAND (libcurand.so.10)"),
        ]
        .into_iter()
        .filter_map(|(library, name)| library.is_none().then_some(name))
        .collect();
        if missing.is_empty() {
            return Ok([driver, cublas, cublas_lt, curand].into_iter().flatten().collect());
        }
        Err(Error::resources(format!(
            "CUDA 13 is incomplete on this machine: {} cannot be \
            loaded",
            missing.join(" and ")
        ))
        .hint(format!(
            "put the directory that holds them on LD_LIBRARY_PATH (a Python environment with PyTorch has one: \
            nvidia/cu13/lib), or {CPU_HINT}"
        )))
    }

    /// No library lacks a function that may come to be called.
    pub fn functions(libraries: &[Library]) -> Result<()> {
        let Some(Library { file, lacks }) = libraries.iter().find(|library| !library.lacks.is_empty()) else {
            return Ok(());
        };
        let more = if lacks.len() > 3 { format!(" and {} more", lacks.len() - 3) } else { String::new() };
        let lacks = lacks[..lacks.len().min(3)].join(", ");
        Err(Error::resources(format!("{file} is not that of CUDA 13.0: it lacks functions: {lacks}{more}")).hint(
            format!(
                "install driver 580 or newer, put cuBLAS and cuRAND of CUDA 13 first on LD_LIBRARY_PATH, or {CPU_HINT}"
            ),
        ))
    }

    /// A driver that is new enough, and a device of that number.
    pub fn devices(ordinal: usize) -> Result<()> {
        let mut version = 0;
        // SAFETY: `version` is a valid place for an int, and this function may be called before cuInit.
        let asked = unsafe { driver::sys::cuDriverGetVersion(&mut version) };
        if asked != CUresult::CUDA_SUCCESS || version < CUDA_VERSION {
            let major = version / 1000;
            let minor = version % 1000 / 10;
            return Err(Error::resources(format!("the NVIDIA driver knows CUDA {major}.{minor}, clsgen needs 13.0"))
                .hint(format!("install driver 580 or newer, or {CPU_HINT}")));
        }
        let count = driver::result::init().and_then(|()| driver::result::device::get_count());
        match count {
            Err(driver::DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) | Ok(0) => {
                Err(Error::resources("the NVIDIA driver finds no CUDA device").hint(NVIDIA_SMI))
            }
            Err(error) => Err(Error::resources(format!("the NVIDIA driver does not start: {error}")).hint(NVIDIA_SMI)),
            Ok(count) if ordinal >= count as usize => {
                Err(Error::resources(format!("there is no CUDA device {ordinal}: this machine has {count}"))
                    .hint(NVIDIA_SMI))
            }
            Ok(_) => Ok(()),
        }
    }

    /// A card that bf16's matrix products and asynchronous copies exist for.
    pub fn capable(ordinal: usize) -> Result<()> {
        use driver::sys::CUdevice_attribute_enum as Attribute;
        let device = driver::result::device::get(ordinal as i32).map_err(|error| closed(ordinal, error))?;
        let asked = |attribute| {
            // SAFETY: a device that the driver has just given.
            unsafe { driver::result::device::get_attribute(device, attribute) }.map_err(|error| closed(ordinal, error))
        };
        let major = asked(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = asked(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if major >= 8 {
            return Ok(());
        }
        Err(Error::resources(format!(
            "CUDA device {ordinal} has compute capability {major}.{minor}, clsgen's kernels need 8.0"
        ))
        .hint(format!("use an A100, a card of the RTX 30 series or a newer one, or {CPU_HINT}")))
    }

    /// The device is there, and the driver does not give it to us.
    pub fn closed(ordinal: usize, error: impl std::fmt::Display) -> Error {
        Error::resources(format!("CUDA device {ordinal} cannot be opened: {error}")).hint(NVIDIA_SMI)
    }

    pub fn memory_available(device: &Device) -> Result<u64> {
        let (free, _) = device.as_cuda_device()?.cuda_stream().context().mem_get_info().map_err(failed)?;
        let [reserved, used] =
            [Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT]
                .map(|attribute| pool_bytes(device, attribute));
        Ok(free as u64 + reserved?.saturating_sub(used?))
    }

    /// The most our pool has given out since this was last asked.
    pub fn take_peak_memory(device: &Device) -> Result<u64> {
        let peak = pool_bytes(device, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
        let mut none = 0u64;
        // SAFETY: the device is open, and the attribute is a u64 that the call reads; 0 sets it to what is in use now.
        unsafe {
            driver::result::mem_pool::set_attribute(
                pool(device)?,
                Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
                (&raw mut none).cast(),
            )
        }
        .map_err(failed)?;
        Ok(peak)
    }

    fn failed(error: driver::DriverError) -> Error {
        Error::run(format!("CUDA device: {error}"))
    }

    fn pool(device: &Device) -> Result<driver::sys::CUmemoryPool> {
        let stream = device.as_cuda_device()?.cuda_stream();
        // SAFETY: the device is open.
        unsafe { driver::result::device::get_default_mem_pool(stream.context().cu_device()) }.map_err(failed)
    }

    fn pool_bytes(device: &Device, attribute: Attribute) -> Result<u64> {
        let mut bytes = 0u64;
        // SAFETY: the device is open, and the attributes asked for are u64, which the call writes.
        unsafe { driver::result::mem_pool::get_attribute(pool(device)?, attribute, (&raw mut bytes).cast()) }
            .map_err(failed)?;
        Ok(bytes)
    }

    /// What the device is set to once, before anything is allocated on it.
    pub fn settle(device: &Device) -> Result<()> {
        // SAFETY: all work goes to this one stream, so nothing is used on another before it is ready or after it is
        // freed.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        // Freed memory stays in the pool for the next allocation, rather than go back to the system at every wait.
        let mut keep = u64::MAX;
        // SAFETY: the context is current (its stream was just made), and the attribute is a u64 that the call reads.
        unsafe {
            driver::result::mem_pool::set_attribute(
                pool(device)?,
                Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut keep).cast(),
            )
        }
        .map_err(|error| Error::resources(format!("CUDA device: {error}")).hint(NVIDIA_SMI))
    }
}
