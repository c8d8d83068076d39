//! How files are opened for writing, in places that others can write to as well.
//!
//! | The file's name | A link of that name | Another user's file of that name |
//! |---|---|---|
//! | is ours: logs, locks | refused | refused |
//! | stands on the command line | followed where it is the user's own, or root's (`/dev/stdout`) | refused |
//! | is that of a file written anew | replaced, never written through | replaced |
//!
//! What is opened is readable by its owner alone from then on, whatever it was before. A file or a run directory of
//! root's counts as one's own, as for ssh: root reads it anyway. Root itself is warned of another's and goes on, as
//! where a container's root works in its user's folder; under `sudo` the user's own is fine.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use rustix::{
    fs::OFlags,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::foreign;
use crate::{
    error::{Error, Result},
    signals::{check_interrupted, or_stopped},
};

/// Who chose a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// This program.
    ByUs,
    /// Whoever gave the command.
    ByUser,
}

/// Times that a file may come and go while it is opened.
const TRIES: usize = 20;
/// Letters and digits that a temporary's name ends in: about 47 bits.
const RANDOM: usize = 8;
/// Between two looks at a FIFO that has no reader yet.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Opens a file to write as `options` say, which create and empty nothing; one that is not there is made. `action` is
/// for the message.
pub(super) fn open(action: &str, path: &Path, named: Named, options: &OpenOptions) -> Result<File> {
    let failed = |e: io::Error| or_stopped(super::error(action, path, &e));
    let there = path.symlink_metadata().ok();
    let linked = there.as_ref().is_some_and(Metadata::is_symlink);
    match (there, named) {
        (Some(_), Named::ByUs) if linked => return Err(link(path)),
        (Some(meta), Named::ByUser) if linked => check_owner(path, &meta)?,
        _ => {}
    }
    let mut options = options.clone();
    options.mode(0o600);
    if linked {
        // A link of one's own may lead to what is not there yet.
        options.create(true);
    } else {
        // One that is put there now is not followed; a FIFO under a name of ours keeps nobody waiting.
        let patience = if named == Named::ByUs { OFlags::NONBLOCK } else { OFlags::empty() };
        options.custom_flags((OFlags::NOFOLLOW | patience).bits() as i32);
    }
    for _ in 0..TRIES {
        let opened = match named {
            Named::ByUser if path.metadata().is_ok_and(|meta| meta.file_type().is_fifo()) => open_fifo(path, &options),
            _ => options.open(path),
        };
        match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !linked => {}
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) && !linked => return Err(link(path)),
            Err(e) => return Err(failed(e)),
            Ok(file) => return make_private(&file, path, named).map(|()| file),
        }
        match options.clone().create_new(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(failed),
        }
    }
    Err(Error::run(format!("{action} {}: it comes and goes", path.display())))
}

/// No core dump is written of this process: it would hold records, in a place of the system's choosing.
pub fn forbid_core_dumps() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    // To lower one's own limit is always allowed.
    let _ = setrlimit(Resource::Core, limit);
}

/// Opens a FIFO as soon as it has a reader.
fn open_fifo(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let mut options = options.clone();
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    loop {
        match options.open(path) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
                check_interrupted().map_err(io::Error::other)?;
                std::thread::sleep(POLL_INTERVAL);
            }
            opened => return opened,
        }
    }
}

/// A file of this name that is new: a link or a file that has the name is removed, not written to.
pub(super) fn create(path: &Path) -> Result<File> {
    let failed = |e: io::Error| super::error("cannot create", path, &e);
    for _ in 0..TRIES {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(failed),
        }
        let replaced = path.symlink_metadata().is_ok_and(|meta| meta.is_file() || meta.is_symlink());
        if !replaced {
            return Err(foreign(path, "and it is no file"));
        }
        std::fs::remove_file(path).or_else(gone).map_err(failed)?;
    }
    Err(Error::run(format!("cannot create {}: it comes and goes", path.display())))
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A new directory with a name that nobody could foresee: `prefix` and what is random.
pub(super) fn create_temporary_dir(parent: &Path, prefix: &OsStr) -> io::Result<PathBuf> {
    let private = Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix(prefix).rand_bytes(RANDOM).permissions(private).tempdir_in(parent);
    made.map(tempfile::TempDir::keep).map_err(bare)
}

/// The same, a file.
pub(super) fn create_temporary(parent: &Path, prefix: &OsStr) -> io::Result<(File, tempfile::TempPath)> {
    let private = Permissions::from_mode(0o600);
    let made = tempfile::Builder::new().prefix(prefix).rand_bytes(RANDOM).permissions(private).tempfile_in(parent);
    made.map(tempfile::NamedTempFile::into_parts).map_err(bare)
}

/// The system's own error, which tempfile wraps to name the path.
fn bare(error: io::Error) -> io::Error {
    let inner =
        error.get_ref().and_then(|wrapper| wrapper.source()).and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.and_then(io::Error::raw_os_error).map_or(error, io::Error::from_raw_os_error)
}

/// Creates a directory and its missing parents, readable by nobody else. A link to one is followed where it is the
/// user's own.
pub(super) fn create_dir_all(path: &Path) -> io::Result<Result<()>> {
    if let Some(linked) = path.symlink_metadata().ok().filter(Metadata::is_symlink)
        && let Err(refused) = check_owner(path, &linked)
    {
        return Ok(Err(refused));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map(Ok)
}

/// Refuses (exit 2) a run directory that is another user's, or that a link of another's leads to; says so where
/// everybody may write to it. One that is not there yet will be ours.
pub(super) fn check_run_dir(dir: &Path) -> Result<()> {
    check_owners(dir)?;
    if dir.metadata().is_ok_and(|meta| meta.mode() & 0o002 != 0) {
        tracing::warn!("everybody may write to {0}, and so replace what is in it: chmod o-w {0}", dir.display());
    }
    Ok(())
}

/// Takes from everybody else what they may do with a file. Pipes and devices stay as they are, where the user named
/// one.
fn make_private(file: &File, path: &Path, named: Named) -> Result<()> {
    let meta = file.metadata().map_err(|e| super::error("cannot open", path, &e))?;
    if !meta.is_file() {
        return if named == Named::ByUser { Ok(()) } else { Err(foreign(path, "and it is no file")) };
    }
    check_owner(path, &meta)?;
    if meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(0o600)) {
        // FAT and some network file systems know no modes.
        Err(e) => {
            static TOLD: Once = Once::new();
            let reason = crate::error::reason(&e);
            TOLD.call_once(|| tracing::warn!("others may be able to read {}: chmod 600: {reason}", path.display()));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Refuses (exit 2) a path that is another user's, or that a link of another's leads to. What is not there is fine.
pub(super) fn check_owners(path: &Path) -> Result<()> {
    for meta in [path.symlink_metadata(), path.metadata()].into_iter().flatten() {
        check_owner(path, &meta)?;
    }
    Ok(())
}

/// Refuses (exit 2) what another user owns; root is warned.
fn check_owner(path: &Path, meta: &Metadata) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let owner = meta.uid();
    if owner == me || owner == 0 {
        return Ok(());
    }
    if me == 0 {
        static TOLD: Once = Once::new();
        let asked_by = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
        if asked_by != Some(owner) {
            TOLD.call_once(|| {
                tracing::warn!("{} belongs to user {owner}, not to root, whose files go there", path.display());
            });
        }
        return Ok(());
    }
    let what = if meta.is_symlink() { "a link of" } else { "of" };
    Err(Error::usage(format!("{} is {what} another user (uid {owner}), not yours (uid {me})", path.display()))
        .hint("others could read or change what is written there: name a place of your own, or copy it (cp -r)"))
}

fn link(path: &Path) -> Error {
    foreign(path, "and it is a symbolic link, which is not written through")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_dump_is_written() {
        forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
