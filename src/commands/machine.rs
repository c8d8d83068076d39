//! What built this program and what it runs on, for `run.json`.

use std::{collections::BTreeMap, sync::OnceLock};

use candle_core::{Device, DeviceLocation};
use serde_json::{Value, json};

use super::Context;
use crate::{
    device,
    storage::{self, packed},
};

/// The dependencies whose version can change a result.
const DEPENDENCIES: [&str; 5] = ["candle-core", "tokenizers", "safetensors", "minijinja", "hf-hub"];

/// Version, build and main dependencies of this program. The executable's own hash names the build exactly.
pub(super) fn versions() -> Value {
    json!({
        "clsgen": env!("CARGO_PKG_VERSION"),
        "executable_blake3": executable_hash(),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "dependencies": lock().as_deref().map(dependencies),
    })
}

/// The Cargo.lock of this build.
fn lock() -> Option<String> {
    String::from_utf8(storage::unpack(packed!("Cargo.lock")).ok()?).ok()
}

/// BLAKE3 of this program, where its file can be read.
pub(super) fn executable_hash() -> Option<&'static str> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    HASH.get_or_init(|| storage::hash_written(&std::env::current_exe().ok()?).ok()).as_deref()
}

/// `name = "…"`, `version = "…"` pairs of a Cargo.lock.
fn dependencies(lock: &str) -> BTreeMap<&str, &str> {
    fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
        line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
    }
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| Some((value(pair[0], "name")?, value(pair[1], "version")?)));
    pairs.filter(|(name, _)| DEPENDENCIES.contains(name)).collect()
}

/// CPU, its vector features, cores, threads used, memory, the device that computes, its number type, what `--device`
/// asked for, GPUs.
pub(super) fn hardware(context: &Context) -> Value {
    let threads = context.threads;
    let mut hardware = json!({
        "device": device_used(context),
        "device_asked": context.device,
        "dtype": context.dtype().ok().map(|dtype| dtype.as_str()),
        "gpus": gpus(),
        "gpu_driver": first_line("/proc/driver/nvidia/version"),
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": threads,
        "memory_bytes": device::memory_total(),
    });
    // A single process has none of them in its record.
    if context.ranks.size() > 1 {
        hardware["ranks"] = context.ranks.hosts().into();
    }
    hardware
}

/// `cpu` or `cuda:N`, as the flag resolves on this machine; `None` where it cannot be had.
fn device_used(context: &Context) -> Option<String> {
    context.device().ok().map(|device| device_name(&device))
}

/// `cpu` or `cuda:N`.
pub(super) fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".into(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Models of the NVIDIA GPUs, as their kernel module lists them.
fn gpus() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    let model = |folder: std::path::PathBuf| {
        let text = std::fs::read_to_string(folder.join("information")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned())
    };
    folders.into_iter().filter_map(model).collect()
}

fn first_line(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The features our kernels choose by.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    features.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = lock().unwrap();
        let found = dependencies(&lock);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), {
            let mut names = DEPENDENCIES;
            names.sort_unstable();
            names
        });
        assert!(found["candle-core"].starts_with("0."));
    }
}
