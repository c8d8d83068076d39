//! One process at a time in a run directory.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Held while a command writes into a run directory; the operating system releases it however the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Creates the directory if need be and takes its lock, or fails (exit 2) naming who holds it.
    pub fn acquire(dir: &Path) -> Result<Self> {
        super::create_dir_all(dir)?;
        let path = dir.join(".lock");
        let mut file = super::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| super::error("cannot lock", &path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, &mut file)),
            Err(TryLockError::Error(e)) => return Err(super::error("cannot lock", &path, &e)),
        }
        let holder = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(|e| super::error("cannot lock", &path, &e))?;
        super::atomic::sweep(dir)?;
        Ok(Self { file, path })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The file stays (removing it would race with the next holder); only the name in it goes.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// The machine's name.
pub(super) fn host() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "this machine".into())
}

fn held(dir: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let _ = file.take(200).read_to_string(&mut holder);
    let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
    Error::usage(format!("run directory {} is locked by {holder}", dir.display()))
        .hint("wait until it ends, or choose another directory with --run")
}
