//! Device choice, worker threads, and memory and disk checked before anything is allocated. Layer 1.

mod limits;

use candle_core::{DType, Device};

pub use limits::{
    addresses_available, check_disk, check_memory, disk_available, format_bytes, memory_available, memory_held,
    memory_total, share_memory,
};

use crate::{
    config::Dtype,
    error::{Error, Result},
};

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This process's CUDA device, the first of a single process, if this build and machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA device N; without a number this process's own.
    Cuda(Option<usize>),
}

/// Reads `auto`, `cpu`, `cuda` or `cuda:N`; anything else is a usage error.
pub fn parse(name: &str) -> Result<Choice> {
    match (name, name.strip_prefix("cuda:")) {
        ("auto", _) => Ok(Choice::Auto),
        ("cpu", _) => Ok(Choice::Cpu),
        ("cuda", _) => Ok(Choice::Cuda(None)),
        (_, Some(n)) if n.parse::<u16>().is_ok_and(|n| n < 1024) => Ok(Choice::Cuda(n.parse().ok())),
        _ => Err(Error::usage(format!("unknown device {name:?}: use auto, cpu, cuda or cuda:N"))),
    }
}

/// The device `name` stands for, on a process whose own GPU is `own`. `open_cuda` opens CUDA device N or says why
/// it cannot (exit 5): an error where CUDA was asked for by name, the CPU where `auto` was; what is wrong about how it
/// was asked (exit 2) is an error in either case.
pub fn select(name: &str, own: usize, open_cuda: impl FnOnce(usize) -> Result<Device>) -> Result<Device> {
    match parse(name)? {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Cuda(ordinal) => open_cuda(ordinal.unwrap_or(own)),
        Choice::Auto => open_cuda(own).or_else(|error| {
            if error.exit_code() == 2 {
                return Err(error);
            }
            tracing::debug!("computing on the CPU: {error}");
            Ok(Device::Cpu)
        }),
    }
}

/// The arithmetic `model.dtype` means on this device: `auto` is f32 on a CPU and bf16 on CUDA.
pub fn dtype(wanted: Dtype, device: &Device) -> DType {
    match wanted {
        Dtype::F32 => DType::F32,
        Dtype::Auto if device.is_cpu() => DType::F32,
        Dtype::Bf16 | Dtype::Auto => DType::BF16,
    }
}

/// Bytes of a worker's stack: that of a main thread, since commands run on one ([`on_a_worker`]).
const STACK: usize = 8 << 20;

/// Sets up the worker threads, `wanted` or one for each core this process may use, which it shares with as many
/// processes as `sharing` says, itself among them; and says how many there are. The first call in a process decides.
pub fn threads(wanted: Option<usize>, sharing: usize) -> Result<usize> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let count = wanted.unwrap_or_else(|| (cores() / sharing.max(1)).max(1));
    // An error says that the pool exists already, or that threads cannot be had; the next line tells them apart.
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .stack_size(STACK)
        .thread_name(|i| format!("clsgen-{i}"))
        .build_global();
    match built {
        Err(e) if !e.to_string().contains("already been initialized") => {
            let hint = match count {
                1 => "raise the limit of processes (ulimit -u) or of memory (ulimit -v, the batch system's)",
                _ => "use a smaller --threads",
            };
            Err(Error::resources(format!("cannot start {count} threads")).hint(hint))
        }
        _ => Ok(rayon::current_num_threads()),
    }
}

/// Runs `work` on one of the worker threads. From there a parallel loop begins at once; from any other thread it wakes
/// a worker and sleeps until that is done, some hundred times a training step.
pub fn on_a_worker<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        assert_eq!(parse("auto").unwrap(), Choice::Auto);
        assert_eq!(parse("cuda").unwrap(), Choice::Cuda(None));
        assert_eq!(parse("cuda:3").unwrap(), Choice::Cuda(Some(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "CPU", "cuda:-1"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn auto_does_without_cuda_and_cuda_by_name_does_not() {
        let none = |_| Err(Error::resources("none here").hint("use --device cpu"));
        assert!(select("auto", 0, none).unwrap().is_cpu());
        assert!(select("cpu", 0, |_| panic!("the CPU was asked for")).unwrap().is_cpu());
        assert_eq!(select("cuda:1", 0, none).unwrap_err().exit_code(), 5);
        assert_eq!(select("auto", 0, |_| Err(Error::usage("misspelt"))).unwrap_err().exit_code(), 2);
        let asked = std::cell::Cell::new(0);
        let open = |ordinal| {
            asked.set(ordinal);
            Ok(Device::Cpu)
        };
        let numbers = ["cuda:3", "cuda", "auto"].map(|name| {
            select(name, 2, open).unwrap();
            asked.get()
        });
        assert_eq!(numbers, [3, 2, 2]);
    }
}
