//! What must not be written: files that this process reads, and places in a run directory that is gone.
//!
//! Commands name what they read with [`protect`] and what they work in by its lock; every function here that creates,
//! replaces or removes a file asks [`check_output`] first. A file is known by device and inode, so by whatever name:
//! another path, a symbolic link, a hard link.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Inputs, with a path each was found at. A handle that reads nothing keeps each inode from being given to another
/// file.
static INPUTS: Mutex<BTreeMap<Identity, (PathBuf, Option<OwnedFd>)>> = Mutex::new(BTreeMap::new());
/// Run directories that this process holds the lock of.
static HELD: Mutex<Vec<(PathBuf, Identity)>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Device and inode of a file.
pub(super) fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

fn found(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|meta| identity(&meta))
}

/// From now on `input` is read only: no function of this module writes, replaces or removes it. Of a directory, it and
/// the files in it. Pipes and devices hold nothing to protect.
pub fn protect(input: &Path) {
    let Ok(meta) = input.metadata() else { return };
    if meta.is_file() || meta.is_dir() {
        let path = std::path::absolute(input).unwrap_or_else(|_| input.to_owned());
        let handle = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        locked(&INPUTS).insert(identity(&meta), (path, handle));
    }
    if meta.is_dir() {
        let entries = std::fs::read_dir(input).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_file()).for_each(|path| protect(&path));
    }
}

/// Refuses a place that must not be written: one where an input lies (exit 2), or in a run directory that was removed
/// (exit 1).
pub fn check_output(path: &Path) -> Result<()> {
    check_held(path)?;
    match path.metadata() {
        Ok(meta) => check_identity(path, identity(&meta)),
        Err(_) => Ok(()),
    }
}

/// Refuses to replace or remove a directory that an input lies in, at whatever depth.
pub fn check_tree(dir: &Path) -> Result<()> {
    check_output(dir)?;
    if locked(&INPUTS).is_empty() {
        return Ok(());
    }
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => check_tree(&path)?,
            // A link too may be the name that an input is read by.
            _ => found(&path).map_or(Ok(()), |file| check_identity(&path, file))?,
        }
    }
    Ok(())
}

/// The error (exit 2) for a file of somebody else's that lies where one of a run's would go; `why` says how that is
/// known.
pub fn foreign(path: &Path, why: &str) -> Error {
    Error::usage(format!("{} is there already, {why}", path.display())).hint("move it away, or choose another place")
}

/// Refuses to write to stdout where that is a file that is read (`>> INPUT`).
pub fn check_stdout() -> Result<()> {
    match rustix::fs::fstat(std::io::stdout()) {
        Ok(stat) => check_identity(Path::new("standard output"), (stat.st_dev, stat.st_ino)),
        Err(_) => Ok(()),
    }
}

fn check_identity(path: &Path, output: Identity) -> Result<()> {
    let inputs = locked(&INPUTS);
    let Some((input, _)) = inputs.get(&output) else { return Ok(()) };
    Err(Error::usage(format!("{}: input and output are the same file ({})", path.display(), input.display()))
        .hint("choose another place for the output; no option replaces what is read"))
}

/// Refuses a path in a run directory of ours that was removed or replaced since we locked it: nothing is made anew
/// there.
pub(super) fn check_held(path: &Path) -> Result<()> {
    let held = locked(&HELD);
    if held.is_empty() {
        return Ok(());
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match held.iter().find(|(dir, was)| path.starts_with(dir) && found(dir) != Some(*was)) {
        None => Ok(()),
        Some((dir, _)) => {
            Err(Error::run(format!("run directory {} was removed while this command worked in it", dir.display()))
                .hint("nothing was made anew: give the command again to start over"))
        }
    }
}

/// Notes that this process works in `dir`.
pub(super) fn hold(dir: &Path) {
    if let (Ok(path), Some(identity)) = (std::path::absolute(dir), found(dir)) {
        locked(&HELD).push((path, identity));
    }
}

/// Notes that it no longer does.
pub(super) fn release(dir: &Path) {
    let Ok(path) = std::path::absolute(dir) else { return };
    let mut held = locked(&HELD);
    if let Some(index) = held.iter().position(|(dir, _)| *dir == path) {
        held.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{RecordLog, create, remove_file, write_file_atomic};

    #[test]
    fn an_input_is_neither_written_nor_replaced_nor_removed_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("input"), "kept").unwrap();
        std::os::unix::fs::symlink(at("input"), at("symbolic")).unwrap();
        std::fs::hard_link(at("input"), at("hard")).unwrap();
        protect(&at("input"));
        std::fs::create_dir(at("sub")).unwrap();
        for path in [at("input"), at("symbolic"), at("hard"), at("sub/../input")] {
            let refused = [
                create(&path).map(drop),
                write_file_atomic(&path, b"x"),
                RecordLog::open(&path).map(drop),
                remove_file(&path),
                crate::storage::remove_dir_all(dir.path()),
                crate::storage::AtomicDir::create(dir.path()).map(drop),
                crate::storage::append(&path).map(drop),
            ];
            for result in refused {
                let error = result.unwrap_err();
                assert!(error.exit_code() == 2 && error.to_string().contains("same file"), "{error}");
            }
        }
        assert_eq!(std::fs::read(at("input")).unwrap(), b"kept");
        // Once it is gone its name is free.
        for name in ["input", "symbolic", "hard"] {
            std::fs::remove_file(at(name)).unwrap();
        }
        write_file_atomic(&at("input"), b"new").unwrap();
        write_file_atomic(&at("input"), b"newer").unwrap();
    }
}
