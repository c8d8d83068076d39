//! Waiting until the disk has what was written.

use std::{fs::File, io, path::Path};

use super::error;
use crate::error::Result;

/// Waits until the disk has a file.
pub(super) fn file(path: &Path, file: &File) -> Result<()> {
    file.sync_all().or_else(unless_never).map_err(|e| error("cannot write", path, &e))
}

/// Waits until the disk has the names in a directory.
pub(super) fn dir(path: &Path) -> Result<()> {
    let dir = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(dir).and_then(|dir| dir.sync_all().or_else(unless_never)).map_err(|e| error("cannot sync", dir, &e))
}

/// Pipes, devices (`/dev/stdout`) and some network and FUSE file systems sync nothing, ever: EINVAL, ENOTSUP, ENOSYS.
/// What was written there is as safe as it gets.
fn unless_never(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    }
}
