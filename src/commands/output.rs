//! stdout, where data goes: its failures are errors, not panics.

use std::io::{self, Write};

use crate::{
    error::{Error, Kind, Result},
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
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| failed(&e))
}

/// Writes a line to stdout.
pub fn line(text: &str) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// What a failed write to stdout means.
pub fn failed(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::new(Kind::Signal(SIGPIPE), "the reader of stdout is gone"),
        _ => Error::resources(format!("cannot write to stdout: {}", storage::reason(error)))
            .hint("free some space where stdout goes, or raise the limit of a file's size (ulimit -f)"),
    }
}
