//! A directory that another process may replace, read as it was at one moment.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{atomic, guard};
use crate::error::{Error, Result};

/// Readings that a replacement may spoil before we give up.
const TRIES: u32 = 20;
/// Wait before another reading: a replacement by two renames is over by then.
const WAIT: Duration = Duration::from_millis(50);

/// What `read` makes of `dir` while nothing in `dir` changes: where the directory was replaced, or a file in it, before
/// `read` was done, its result is dropped and it reads again. So all that it opens by path belongs to one state of the
/// directory.
///
/// A directory that had stepped aside when its writer was killed is read where it is.
pub fn read_unchanged<T>(dir: &Path, mut read: impl FnMut(&Path) -> Result<T>) -> Result<T> {
    for _ in 0..TRIES {
        let place = stepped_aside(dir).unwrap_or_else(|| dir.to_owned());
        // Held open, its inode is given to no other directory while we read.
        let held = File::open(&place).ok();
        let before = stamp(&place);
        let outcome = read(&place);
        let same = before == stamp(&place);
        drop(held);
        // Where there is no directory at all, nothing was replaced.
        if same && (before.is_some() || stepped_aside(dir).is_none()) {
            return outcome;
        }
        tracing::debug!("{} was replaced while it was read: reading again", dir.display());
        std::thread::sleep(WAIT);
    }
    Err(Error::model(format!("{} is replaced faster than it can be read", dir.display()))
        .hint("give a checkpoint that stays, such as RUN/checkpoints/epoch-01"))
}

/// Where a directory is that is not in its place: its writer moved it aside and was killed, or is about to put a new
/// one there.
pub fn stepped_aside(dir: &Path) -> Option<PathBuf> {
    if dir.exists() { None } else { atomic::aside(dir) }
}

/// A file of a directory: name, identity, length, and when its content or its inode last changed.
type FileStamp = (std::ffi::OsString, guard::Identity, u64, (i64, i64), (i64, i64));

/// The directory's identity, and that of every entry directly in it; `None` where one cannot be looked at.
fn stamp(dir: &Path) -> Option<(guard::Identity, Vec<FileStamp>)> {
    let identity = guard::identity(&dir.metadata().ok()?);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        let meta = entry.path().metadata().ok()?;
        let times = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        files.push((entry.file_name(), guard::identity(&meta), meta.len(), times.0, times.1));
    }
    files.sort();
    Some((identity, files))
}
