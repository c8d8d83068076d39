//! Signals that ask a run to save and stop, and what must not outlast them: reading, writing, computing. Layer 0.
//!
//! A read or a write that waits for another process ends when such a signal comes ([`Interruptible`]). So does a
//! computation that has nothing to save ([`stoppable`]).

mod interruptible;
mod stoppable;

use std::{
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

pub use interruptible::{Interruptible, open, write_all};
pub use stoppable::{leave_if_stopped, stoppable};

use crate::error::{Error, Kind, Result, reason};

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
    let listener = listener(last_words).map_err(|e| Error::run(format!("cannot watch for signals: {}", reason(&e))))?;
    let thread = std::thread::Builder::new().name("signals".into()).stack_size(LISTENER_STACK);
    thread.spawn(listener).map(drop).map_err(|e| {
        Error::resources(format!("no memory for a thread that listens for signals: {}", reason(&e)))
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
                claim_the_end();
                let signal = interrupted().unwrap_or(libc::SIGTERM);
                last_words(signal);
                low_level::exit(128 + signal);
            }
        }
    })
}

/// Before the process ends and says how: of the command that is done and the second signal that ends it, one does both.
/// Whoever comes later waits here for the end.
pub fn claim_the_end() {
    static LEAVING: Mutex<()> = Mutex::new(());
    std::mem::forget(LEAVING.lock());
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

/// The error of the signal that asked to stop, if one came, in place of what failed for it.
pub fn or_stopped(error: Error) -> Error {
    check_interrupted().err().unwrap_or(error)
}
