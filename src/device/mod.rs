//! Device choice, worker threads, signals, and memory and disk checked before anything is allocated. Layer 1.

mod limits;

use std::{
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use candle_core::{DType, Device};

pub use limits::{
    addresses_available, check_disk, check_memory, disk_available, format_bytes, memory_available, memory_total,
    share_memory,
};

use crate::{
    config::Dtype,
    error::{Error, Kind, Result},
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
/// it cannot (exit 5): an error where CUDA was asked for by name, the CPU where `auto` was.
pub fn select(name: &str, own: usize, open_cuda: impl FnOnce(usize) -> Result<Device>) -> Result<Device> {
    match parse(name)? {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Cuda(ordinal) => open_cuda(ordinal.unwrap_or(own)),
        Choice::Auto => Ok(open_cuda(own).unwrap_or_else(|error| {
            tracing::debug!("computing on the CPU: {error}");
            Device::Cpu
        })),
    }
}

/// The arithmetic `model.dtype` means on this device: `auto` is f32 on a CPU and bf16 on CUDA (SPEC §6, Precision).
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

fn signal_number() -> &'static Arc<AtomicUsize> {
    static NUMBER: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    NUMBER.get_or_init(Arc::default)
}

/// Bytes of the stack of who listens for signals: enough to write a small file.
const LISTENER_STACK: usize = 1 << 18;

/// Signals that ask a run to save and stop: Ctrl-C, a closed terminal, `kill`, what batch systems send before they take
/// the machine away (USR1, USR2), and the CPU limit.
const STOPPING: [i32; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM, libc::SIGXCPU];

/// From now on a file that meets a limit of size (`ulimit -f`) fails with an error, EFBIG, instead of ending the
/// process by SIGXFSZ.
pub fn outlive_file_limit() {
    // A handler that does nothing that anybody reads. Where it cannot be had, the limit ends the process as before.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
}

/// From now on the first of these signals asks the run to save and stop ([`interrupted`]); a second ends it at once,
/// but for `last_words`, and a third does not wait for these either.
///
/// A SIGHUP that is ignored from the start (`nohup`) stays ignored.
pub fn watch_signals(last_words: impl Fn(i32) + Send + 'static) -> Result<()> {
    let listener = listener(last_words)
        .map_err(|e| Error::run(format!("cannot watch for signals: {}", crate::storage::reason(&e))))?;
    let thread = std::thread::Builder::new().name("signals".into()).stack_size(LISTENER_STACK);
    thread.spawn(listener).map(drop).map_err(|e| {
        Error::resources(format!("no memory for a thread that listens for signals: {}", crate::storage::reason(&e)))
            .hint("raise the limit of memory or of processes (ulimit -v, ulimit -u, the batch system's)")
    })
}

/// Registers the signals; what it gives is to be run by a thread of its own.
fn listener(last_words: impl Fn(i32) + Send + 'static) -> std::io::Result<impl FnOnce() + Send + 'static> {
    use signal_hook::{flag, low_level};

    let stopping = Arc::new(AtomicBool::new(false));
    let ending = Arc::new(AtomicBool::new(false));
    // A byte a signal: what a handler may do is too little for last words.
    let (mut told, tell) = UnixStream::pair()?;
    for signal in STOPPING {
        if signal == libc::SIGHUP && is_ignored(signal) {
            continue;
        }
        flag::register_usize(signal, Arc::clone(signal_number()), signal as usize)?;
        // Beyond its CPU limit a process gets SIGXCPU every second: that is no second wish of the user's.
        if signal == libc::SIGXCPU {
            flag::register(signal, Arc::clone(&stopping))?;
            continue;
        }
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
        low_level::pipe::register(signal, tell.try_clone()?)?;
    }
    Ok(move || {
        while told.read_exact(&mut [0]).is_ok() {
            if stopping.swap(true, Ordering::SeqCst) {
                ending.store(true, Ordering::SeqCst);
                let signal = interrupted().unwrap_or(libc::SIGTERM);
                last_words(signal);
                low_level::exit(128 + signal);
            }
        }
    })
}

/// Whether this process ignores a signal, by the mask that Linux shows; elsewhere nobody knows.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A signal's name, as `kill -l` has it.
pub fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// The signal (SIGINT 2, SIGTERM 15, …) that asked the run to stop, if one came.
pub fn interrupted() -> Option<i32> {
    match signal_number().load(Ordering::Relaxed) {
        0 => None,
        signal => i32::try_from(signal).ok(),
    }
}

/// An error of that signal's kind, if one came: for loops that have nothing to save themselves.
pub fn check_interrupted() -> Result<()> {
    match interrupted() {
        Some(signal) => Err(Error::new(Kind::Signal(signal), format!("stopped by {}", signal_name(signal)))),
        None => Ok(()),
    }
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
