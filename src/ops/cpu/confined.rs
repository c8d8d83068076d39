//! Work over foreign bytes on a thread of its own, held to a time and to an amount of memory: a chat template is a
//! program, and so is a tokenizer's regular expression. The time is the processor's: other work on the machine, or a
//! file server that is away for a while, makes no file a bad one.
#![allow(unsafe_code)]

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use std::os::unix::thread::JoinHandleExt;

use super::allocator;
use crate::{error::Error, foreign};

/// Stack of such a thread, of which only what is used takes memory: what was nested as deep as its parser lets it be
/// must also be walked and freed.
const STACK: usize = 64 << 20;
/// How often is looked whether the thread has stopped.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What the work may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes asked for in all, those given back among them.
    pub bytes: usize,
    /// Seconds of processor time; of the clock on the wall where the system does not tell a thread's.
    pub seconds: u64,
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It asked for more memory than it may.
    Memory,
    /// It took longer than it may.
    Time(u64),
    /// It panicked: a defect of the library that does the work, on bytes that no writer would make.
    Panic,
    /// There is no room for another thread.
    NoThread,
}

impl Stopped {
    /// Too little memory for a thread is no fault of the bytes (exit 5); of the rest, `damaged` makes an error.
    pub fn into_error(self, damaged: impl FnOnce(Self) -> Error) -> Error {
        if self == Self::NoThread {
            Error::resources("there is no memory for another thread")
                .hint("raise the limit of memory or of processes (ulimit -v, ulimit -u, the batch system's)")
        } else {
            damaged(self)
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("takes more memory than any known one"),
            Self::Time(seconds) => write!(f, "takes longer than {seconds} seconds"),
            Self::Panic => f.write_str("cannot be used: it is damaged"),
            Self::NoThread => f.write_str("cannot be tried: there is no room for another thread"),
        }
    }
}

/// The result of `work`, or why there is none. What it had got by then is lost until the process ends: whoever is told
/// [`Stopped::Memory`] or [`Stopped::Time`] ends the command.
pub fn run<T: Send + 'static>(limits: Limits, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    let exceeded = Arc::new(AtomicBool::new(false));
    let told = exceeded.clone();
    let (sender, receiver) = sync_channel(1);
    let confined = move || {
        let result = allocator::limited(limits.bytes, &told, || foreign::caught(work));
        // Nobody waits any more.
        let _ = sender.send(result);
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(confined).map_err(|_| Stopped::NoThread)?;
    let clock = Clock::of(&thread);
    loop {
        match receiver.recv_timeout(POLL_INTERVAL) {
            Ok(result) => {
                let _ = thread.join();
                return result.ok_or(Stopped::Panic);
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Stopped::Panic),
            Err(RecvTimeoutError::Timeout) if exceeded.load(Ordering::SeqCst) => return Err(Stopped::Memory),
            Err(RecvTimeoutError::Timeout) if clock.used().as_secs() >= limits.seconds => {
                return Err(Stopped::Time(limits.seconds));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What measures a thread's time.
enum Clock {
    #[cfg(target_os = "linux")]
    Processor(libc::clockid_t),
    Wall(Instant),
}

impl Clock {
    fn of(thread: &JoinHandle<()>) -> Self {
        #[cfg(target_os = "linux")]
        {
            let mut clock = 0;
            // SAFETY: a thread that has a handle is neither joined nor detached; the id is written to a place of its
            // type.
            let found = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut clock) } == 0;
            if found && processor_time(clock).is_some() {
                return Self::Processor(clock);
            }
        }
        let _ = thread;
        Self::Wall(Instant::now())
    }

    /// Since the thread began; nothing where it has just ended.
    fn used(&self) -> Duration {
        match self {
            #[cfg(target_os = "linux")]
            Self::Processor(clock) => processor_time(*clock).unwrap_or_default(),
            Self::Wall(begun) => begun.elapsed(),
        }
    }
}

#[cfg(target_os = "linux")]
fn processor_time(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a place of its type; of a clock that is gone the call says so.
    let told = unsafe { libc::clock_gettime(clock, &mut time) } == 0;
    told.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_or_is_left() {
        let limits = Limits { bytes: 1 << 20, seconds: 1 };
        assert_eq!(run(limits, || 7), Ok(7));
        assert_eq!(run(limits, || -> u8 { panic!("of a library") }), Err(Stopped::Panic));
        // Longer than it may, and then it ends: the thread is left to itself.
        let until = Instant::now() + Duration::from_secs(4);
        let long = move || while Instant::now() < until {};
        assert_eq!(run(limits, long), Err(Stopped::Time(1)));
    }

    /// As for a disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn waiting_takes_no_time() {
        let wait = || thread::sleep(Duration::from_secs(2));
        assert_eq!(run(Limits { bytes: 1 << 20, seconds: 1 }, wait), Ok(()));
    }
}
