//! One process at a time in a run directory, and at an output file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, Instant},
};

use super::{
    guard,
    private::{self, Named},
    temporary,
};
use crate::{
    error::{Error, Result},
    signals::check_interrupted,
};

/// What a lock file begins with while one process holds it.
const OURS: &str = "process ";
/// Longest that a process waits for its turn, which takes the others a moment.
const TURN: Duration = Duration::from_secs(60);
/// Between two tries.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What a lock file says while several processes hold it.
const SEVERAL: &str = "processes that each work on a part of it";

/// Held while a command writes into a run directory; the operating system releases it however the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
    dir: PathBuf,
    shared: bool,
}

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// By this process alone.
    Alone,
    /// By this process alone, once the others are done.
    AloneInTurn,
    /// By any number of processes, and by none alone.
    Shared,
}

impl RunLock {
    /// Creates the directory if need be and takes its lock, or fails (exit 2) naming who holds it.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let lock = Self::take(dir, Mode::Alone)?;
        temporary::sweep_run(dir)?;
        Ok(lock)
    }

    /// The same, but with other processes that share it too: each writes files of its own. None holds it alone
    /// meanwhile.
    pub fn share(dir: &Path) -> Result<Self> {
        // What is here may be another machine's, which knows whether its process is alive: nothing is swept.
        Self::take(dir, Mode::Shared)
    }

    fn take(dir: &Path, mode: Mode) -> Result<Self> {
        if dir.metadata().is_ok_and(|meta| !meta.is_dir()) {
            return Err(
                Error::usage(format!("run directory {} is a file", dir.display())).hint("name another with --run")
            );
        }
        private::check_run_dir(dir)?;
        super::create_dir_all(dir)?;
        let path = dir.join(".lock");
        let file = take(&path, &format!("run directory {}", dir.display()), "--run", mode)?;
        // From now on whoever writes into it finds out when it is gone.
        guard::hold(dir);
        Ok(Self { file, path, dir: dir.to_owned(), shared: mode == Mode::Shared })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        guard::release(&self.dir);
        // The file stays, as part of the directory; only the name in it goes.
        if !self.shared {
            let _ = self.file.set_len(0);
        }
        let _ = self.file.unlock();
    }
}

/// Held while a command writes one output file: a file `.NAME.lock` beside it that goes when the command ends.
#[derive(Debug)]
pub struct OutputLock {
    file: File,
    path: PathBuf,
}

impl OutputLock {
    /// Takes the lock of `output`, or fails (exit 2) naming who holds it.
    pub fn acquire(output: &Path) -> Result<Self> {
        Self::take(output, "--output", Mode::Alone)
    }

    /// The same of a file that `--shard` chooses.
    pub fn of_part(output: &Path) -> Result<Self> {
        Self::take(output, "--shard", Mode::Alone)
    }

    /// Takes the lock of `output` once whoever holds it is done, which must be a matter of moments.
    pub fn wait(output: &Path) -> Result<Self> {
        Self::take(output, "--output", Mode::AloneInTurn)
    }

    fn take(output: &Path, flag: &str, mode: Mode) -> Result<Self> {
        // Two names of one file have one lock.
        let real = output.canonicalize().unwrap_or_else(|_| output.to_owned());
        let path = temporary::parent(&real).join(temporary::dotted(&real, ".lock")?);
        let file = take(&path, &output.display().to_string(), flag, mode)?;
        Ok(Self { file, path })
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Opens and locks the lock file `path` of `what` and writes our name into it.
fn take(path: &Path, what: &str, flag: &str, mode: Mode) -> Result<File> {
    let failed = |e: &io::Error| super::error("cannot lock", path, e);
    let begun = Instant::now();
    loop {
        let mut file = private::open("cannot lock", path, Named::ByUs, OpenOptions::new().read(true).write(true))?;
        match try_lock(&file, mode) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if mode == Mode::AloneInTurn && begun.elapsed() < TURN => {
                check_interrupted()?;
                std::thread::sleep(POLL_INTERVAL);
                continue;
            }
            Err(TryLockError::WouldBlock) => return Err(held(what, flag, &mut file)),
            Err(TryLockError::Error(e)) if knows_no_locks(&e) => without_locks(&mut file, (path, what, flag), &e)?,
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
        // The holder before us may have removed the file that we opened: then the lock is on nothing.
        let ours = guard::identity(&file.metadata().map_err(|e| failed(&e))?);
        if !path.symlink_metadata().is_ok_and(|meta| guard::identity(&meta) == ours) {
            continue;
        }
        refuse_foreign(path, what, &mut file)?;
        let holder = match mode {
            Mode::Shared => format!("{SEVERAL}\n"),
            _ => format!("{OURS}{} on {}\n", std::process::id(), host_name()),
        };
        // Another that shares it may read or write the same words: they are never absent in between.
        file.rewind()
            .and_then(|()| file.write_all(holder.as_bytes()))
            .and_then(|()| file.set_len(holder.len() as u64))
            .map_err(|e| failed(&e))?;
        return Ok(file);
    }
}

/// Locks a file for this process alone, if no other has locked it.
pub(super) fn try_alone(file: &File) -> Result<(), TryLockError> {
    try_lock(file, Mode::Alone)
}

/// Tries to take the lock; a signal in between is no answer.
fn try_lock(file: &File, mode: Mode) -> Result<(), TryLockError> {
    loop {
        let locked = if mode == Mode::Shared { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

/// Whether it is the file system that has no locks: Lustre mounted without `flock`, NFS without its lock daemon.
pub(super) fn knows_no_locks(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| [libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOLCK].contains(&number))
}

/// Goes on where the file system has no locks, as other programs of clusters do, with one warning. What the lock file
/// says still keeps out a second process of the same machine.
fn without_locks(file: &mut File, (path, what, flag): (&Path, &str, &str), error: &io::Error) -> Result<()> {
    static TOLD: Once = Once::new();
    let holder = holder(file);
    let process = holder.strip_prefix(OURS).and_then(|rest| rest.strip_suffix(&format!(" on {}", host_name())));
    if process
        .and_then(|number| number.parse().ok())
        .is_some_and(|number| number != std::process::id() && temporary::alive(number))
    {
        return Err(held(what, flag, file));
    }
    TOLD.call_once(|| {
        let other = if process.is_none() && holder.starts_with(OURS) {
            format!(" (the last was {holder})")
        } else {
            String::new()
        };
        tracing::warn!(
            "{} cannot be locked: {}. Nothing keeps out another machine's process{other}: start no other command there",
            path.display(),
            super::reason(error)
        );
    });
    file.rewind().map_err(|e| super::error("cannot lock", path, &e))
}

/// Refuses (exit 2) a file that somebody else keeps under a lock's name: it would lose its content, and an input with
/// it.
fn refuse_foreign(path: &Path, what: &str, file: &mut File) -> Result<()> {
    guard::check_output(path)?;
    let mut start = Vec::new();
    file.take(8).read_to_end(&mut start).map_err(|e| super::error("cannot read", path, &e))?;
    if start.is_empty() || start == OURS.as_bytes() || SEVERAL.as_bytes().starts_with(&start) {
        Ok(())
    } else {
        Err(Error::usage(format!(
            "{} is there already and is no lock of ours: {what} cannot be locked",
            path.display()
        ))
        .hint("move that file away, or choose another place"))
    }
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a lock file says of who holds it.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.take(200).read_to_string(&mut holder);
    holder.trim().to_owned()
}

fn held(what: &str, flag: &str, file: &mut File) -> Error {
    let holder = file.rewind().map(|()| holder(file)).unwrap_or_default();
    let holder = if holder.is_empty() { "another process" } else { &holder };
    let other = match flag {
        "--run" => "directory",
        "--shard" => "part",
        _ => "file",
    };
    Error::usage(format!("{what} is locked by {holder}"))
        .hint(format!("wait until it ends, or choose another {other} with {flag}"))
}
