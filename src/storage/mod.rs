//! The only module that writes files: atomic directories, a record log, a lock, fault points. Layer 1.
//!
//! Whatever is written exists whole or not at all, or (a log) up to its last whole line. Files are private to the
//! user (0600, directories 0700): runs hold text derived from clinical notes.

mod atomic;
mod fault;
mod guard;
mod kept;
mod lock;
mod log;
mod manifest;
mod packed;
mod private;
pub mod run_record;
mod snapshot;
mod sync;
mod temporary;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

pub use atomic::{AtomicDir, recover, write_file_atomic, write_own_file};
pub use fault::{fault, points, spoiled};
pub use guard::{check_output, check_stdout, check_tree, foreign, protect};
pub use kept::{keep_others, remove_ours};
#[cfg(feature = "mpi")]
pub(crate) use lock::host_name;
pub use lock::{OutputLock, RunLock};
pub use log::RecordLog;
pub use manifest::{MANIFEST, hash_bytes, hash_file, hash_into, hash_written, unlisted, verify_file, verify_manifest};
pub(crate) use packed::packed;
pub use packed::unpack;
use private::Named;
pub use private::forbid_core_dumps;
pub use snapshot::{read_unchanged, stepped_aside};
pub use temporary::whose;

pub use crate::error::reason;
use crate::{
    error::{Error, Kind, Result},
    signals::{Interruptible, or_stopped},
};

/// A buffered file whose errors name it. Call [`Writer::finish`]: a dropped writer is flushed with its errors unseen.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<Interruptible>,
}

impl Writer {
    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn of(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file: BufWriter::new(Interruptible::new(file)) }
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| or_stopped(error("cannot write", &self.path, &e)))
    }

    /// Hands buffered bytes to the operating system, where readers see them.
    pub fn flush_file(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| or_stopped(error("cannot write", &self.path, &e)))
    }

    /// Flushes, and waits until the disk has it.
    pub fn sync(&mut self) -> Result<()> {
        self.flush_file()?;
        sync::file(&self.path, self.file.get_ref().file())
    }

    /// Flushes, syncs and closes.
    pub fn finish(mut self) -> Result<()> {
        self.sync()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates a private file for streaming output. Whatever had its name is replaced.
pub fn create(path: &Path) -> Result<Writer> {
    check_output(path)?;
    Ok(Writer::of(path, private::create(path)?))
}

/// Opens the file that a command line names, and empties it. It may be a pipe or a device.
pub fn create_output(path: &Path) -> Result<Writer> {
    check_output(path)?;
    let file = private::open("cannot create", path, Named::ByUser, OpenOptions::new().write(true))?;
    let emptied = if file.metadata().is_ok_and(|meta| meta.is_file()) { file.set_len(0) } else { Ok(()) };
    emptied.map_err(|e| error("cannot create", path, &e))?;
    Ok(Writer::of(path, file))
}

/// Opens the file that a command line names to append to: a pipe, a device, or a private file.
pub fn append(path: &Path) -> Result<Writer> {
    check_output(path)?;
    let file = private::open("cannot open", path, Named::ByUser, OpenOptions::new().append(true))?;
    Ok(Writer::of(path, file))
}

/// The file that a name on the command line leads to through links, whether that file is there yet or not.
pub fn followed(path: &Path) -> Result<PathBuf> {
    let failed = |e: io::Error| error("cannot open", path, &e);
    match path.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found.map_err(failed),
    }
    let folder = temporary::parent(path);
    match path.read_link() {
        // Links in a circle are another error than this: it ends.
        Ok(next) => followed(&folder.join(next)),
        Err(_) => Ok(folder.canonicalize().map_err(failed)?.join(path.file_name().unwrap_or_default())),
    }
}

/// Removes the file that a name on the command line leads to; a link stays, and so leads to the file that is made next.
/// Another user's link leads nowhere (exit 2).
pub fn remove_output(path: &Path) -> Result<()> {
    check_output(path)?;
    if path.is_symlink() {
        private::check_owners(path)?;
    }
    remove_file(&followed(path)?)
}

/// Creates a private directory and its missing parents.
pub fn create_dir_all(path: &Path) -> Result<()> {
    guard::check_held(path)?;
    private::create_dir_all(path).unwrap_or_else(|e| {
        match path.ancestors().find(|above| above.symlink_metadata().is_ok()).filter(|above| !above.is_dir()) {
            Some(link) if link.is_symlink() => Err(foreign(link, "and it is a link that leads to no directory")),
            Some(file) => Err(foreign(file, "and it is a file, not a directory")),
            None => Err(error("cannot create directory", path, &e)),
        }
    })
}

/// A value as the JSON files of a run hold it: indented, with a newline at the end.
pub fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes [`json`] in one step: the file is the old one or the new one.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_file_atomic(path, &json(value)?)
}

/// Removes a directory and all it holds; one that is not there is fine. Files of it that somebody reads stay on NFS
/// until they are closed: what is left then gives its name free, and whoever sweeps next tries again.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    if remove_tree(path)? { Ok(()) } else { temporary::abandon(path).map_err(|e| error("cannot remove", path, &e)) }
}

/// Removes a directory and all it holds, as far as nobody reads it: whether it is gone.
fn remove_tree(path: &Path) -> Result<bool> {
    check_tree(path)?;
    match std::fs::remove_dir_all(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => Ok(false),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("cannot remove", path, &e)),
        _ => Ok(true),
    }
}

/// Gives a directory another name beside it, which must be free; no input may lie in it.
pub fn rename_dir(from: &Path, to: &Path) -> Result<()> {
    check_tree(from)?;
    std::fs::rename(from, to).map_err(|e| error("cannot move", from, &e))?;
    sync::dir(temporary::parent(to))
}

/// Removes a file; one that is not there is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    check_output(path)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("cannot remove", path, &e)),
        _ => Ok(()),
    }
}

/// An [`Error`] for a failed file operation: no space, no permission and the like are resources (exit 5), a wrong path
/// is usage (exit 2).
pub fn error(action: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!("{action} {}: {}", path.display(), reason(error));
    if let Some(hint) = hint(error) {
        return Error::resources(message).hint(hint);
    }
    match error.kind() {
        // The path itself is wrong: what was typed, not what the machine lacks.
        io::ErrorKind::NotFound
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename => Error::usage(message).hint("check the path"),
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            Error::usage(message).hint("check the path: its links lead in a circle")
        }
        _ => Error::new(Kind::Run, message),
    }
}

/// What to do about errors that are the machine's, not the program's.
fn hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as K;
    Some(match error.kind() {
        K::StorageFull => "free some space, or choose another place",
        K::QuotaExceeded => "your disk quota is used up: free some space, or choose another place",
        K::ReadOnlyFilesystem => "the file system is read-only: choose another place",
        K::PermissionDenied => "check the permissions, or choose another place",
        K::FileTooLarge => "the file system or a limit (ulimit -f) allows no file of this size",
        K::OutOfMemory => "memory, or a limit on it (ulimit -v, the batch system's), is used up",
        _ if error.raw_os_error() == Some(libc::EIO) => "the disk reports an error: check it before going on",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "too many open files: raise ulimit -n",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_and_directories_are_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dir_all(&dir).unwrap();
        create(&dir.join("created")).unwrap().finish().unwrap();
        append(&dir.join("appended")).unwrap().finish().unwrap();
        write_file_atomic(&dir.join("atomic"), b"x").unwrap();
        RecordLog::open(&dir.join("log")).unwrap();
        let committed = AtomicDir::create(&dir.join("committed")).unwrap();
        committed.write_file("sub/file", b"x").unwrap();
        committed.commit(true).unwrap();
        let _lock = RunLock::acquire(&dir).unwrap();
        for path in ["created", "appended", "atomic", "log", ".lock", "committed/sub/file", "committed/manifest.json"] {
            assert_eq!(mode(&dir.join(path)), 0o600, "{path}");
        }
        for path in [root.path().join("a"), dir.clone(), dir.join("committed"), dir.join("committed/sub")] {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
    }

    #[test]
    fn errors_have_the_codes_of_the_contract_and_no_os_number() {
        let path = Path::new("/x/y");
        for (number, code) in [
            (libc::ENOSPC, 5),
            (libc::EROFS, 5),
            (libc::EACCES, 5),
            (libc::EDQUOT, 5),
            (libc::ENOENT, 2),
            (libc::EEXIST, 2),
            (libc::ENOTDIR, 2),
            (libc::ELOOP, 2),
            (libc::EBADF, 1),
        ] {
            let told = error("cannot write", path, &io::Error::from_raw_os_error(number));
            assert_eq!(told.exit_code(), code, "{told}");
            assert!(
                told.to_string().starts_with("cannot write /x/y: ") && !told.to_string().contains("os error"),
                "{told}"
            );
            // --run, --output, --merged, --out: each command has a flag of its own for the place.
            assert!(told.hint_text().is_none_or(|hint| !hint.contains("--")), "{told:?}");
            assert_eq!(told.hint_text().is_some(), code != 1, "{told:?}");
        }
        assert_eq!(foreign(path, "and so on").hint_text(), Some("move it away, or choose another place"));
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let mut writer = create_output(Path::new("/dev/full")).unwrap();
        writer.put(b"x").unwrap();
        let told = writer.finish().unwrap_err();
        assert_eq!(
            (told.exit_code(), told.to_string().as_str()),
            (5, "cannot write /dev/full: No space left on device")
        );
    }
}
