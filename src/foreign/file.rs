//! Files that others wrote: opened without waiting, regular ones only, and of a plausible length.

use std::{
    fs::{File, FileType},
    io::{self, IsTerminal, Read},
    os::unix::fs::FileTypeExt,
    path::{Component, Path},
};

use rustix::fs::{Mode, OFlags};

/// Bytes of a config, an index, a manifest or a template at most; the largest known have under a megabyte.
pub const SMALL: u64 = 16 << 20;
/// Bytes of a tokenizer at most; the largest known have 35 MB.
pub const LARGE: u64 = 256 << 20;
/// Bytes of a log that is read whole at most.
pub const LOG: u64 = 4 << 30;

/// Opens a regular file. Anything else is an error at once: a pipe that nobody writes to would be waited for, and a
/// device has no end.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match other(file.metadata()?.file_type()) {
        None => Ok(file),
        Some(what) => Err(refused(what)),
    }
}

/// Fails where something else than a regular file lies at `path`, in the words of [`open`]; what is not there is fine.
pub fn check(path: &Path) -> io::Result<()> {
    match path.metadata().ok().and_then(|meta| other(meta.file_type())) {
        None => Ok(()),
        Some(what) => Err(refused(what)),
    }
}

/// The bytes of a regular file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, most)
}

fn read_all(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has over {} MB", most >> 20)));
    }
    Ok(bytes)
}

/// The same as [`read`], as text.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Whether records cannot come from here: a device that gives bytes for ever, such as `/dev/zero`. Pipes, terminals and
/// `/dev/null` end.
pub fn is_endless(file: &File, path: &Path) -> bool {
    let kind = file.metadata().map(|meta| meta.file_type());
    let device = kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device());
    device && !file.is_terminal() && path.canonicalize().is_ok_and(|path| path != Path::new("/dev/null"))
}

/// Whether a name that a file gives leads to something below the directory that it is in: no absolute path, no `..`.
pub fn is_within(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a file"))
}

/// What this is, where it is no regular file.
fn other(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a named pipe"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_directory() {
        assert!(is_within("a") && is_within("checkpoints/epoch-01"));
        for name in ["", "/dev/zero", "../a", "a/../../b", "."] {
            assert!(!is_within(name), "{name}");
        }
    }

    #[test]
    fn only_regular_files_of_a_plausible_length_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "ten bytes.").unwrap();
        assert_eq!(read(&file, 10).unwrap(), b"ten bytes.");
        assert_eq!(read_text(&file, 9).unwrap_err().to_string(), "it has over 0 MB");
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_text(&file, SMALL).unwrap_err().to_string(), "it is not UTF-8");
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (path, what) in [
            (pipe.as_path(), "it is a named pipe, not a file"),
            (dir.path(), "it is a directory, not a file"),
            (Path::new("/dev/zero"), "it is a device, not a file"),
        ] {
            assert_eq!(open(path).unwrap_err().to_string(), what);
            assert_eq!(check(path).unwrap_err().to_string(), what);
        }
        assert!(check(&file).is_ok() && check(&dir.path().join("absent")).is_ok());
        assert!(is_endless(&File::open("/dev/zero").unwrap(), Path::new("/dev/zero")));
        assert!(!is_endless(&File::open("/dev/null").unwrap(), Path::new("/dev/null")));
    }
}
