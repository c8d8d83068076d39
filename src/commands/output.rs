//! stdout, where data goes: its failures are errors, not panics.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use crate::{
    error::{Error, Kind, Result},
    signals::{self, or_stopped},
    storage,
};

/// The signal a closed pipe stands for: whoever read our stdout has gone, and wants no message about it.
pub const SIGPIPE: i32 = 13;

/// Whether a signal asked to stop: then what is done is saved, and there is a way to go on.
pub fn is_stop(error: &Error) -> bool {
    matches!(error.kind(), Kind::Signal(signal) if signal != SIGPIPE)
}

/// Writes all of `bytes` to stdout.
pub fn write(bytes: &[u8]) -> Result<()> {
    // Nobody else writes meanwhile, and nothing waits in the standard library's buffer.
    let mut stdout = io::stdout().lock();
    stdout.flush().and_then(|()| signals::write_all(stdout.as_fd(), bytes)).map_err(|e| failed(&e))
}

/// Writes a line to stdout.
pub fn line(text: &str) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// What a failed write to stdout means.
pub fn failed(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::new(Kind::Signal(SIGPIPE), "the reader of stdout is gone"),
        // A reader that takes nothing, and a signal meanwhile.
        io::ErrorKind::Other => or_stopped(Error::run(format!("cannot write to stdout: {error}"))),
        _ => Error::resources(format!("cannot write to stdout: {}", storage::reason(error)))
            .hint("free some space where stdout goes, or raise the limit of a file's size (ulimit -f)"),
    }
}
