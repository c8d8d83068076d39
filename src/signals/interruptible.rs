//! Files, pipes and terminals whose reads and writes a signal ends.
//!
//! A system call that waits is begun again after a signal's handler. So nothing waits in one: it is polled first, a
//! moment at a time, and only what can be done at once is done.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
};

use super::check_interrupted;

/// Longest that a signal is not noticed, in nanoseconds.
const POLL_INTERVAL: i64 = 100_000_000;
/// What a pipe that can be written to takes without waiting (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// A file whose reads and writes fail as soon as a signal asks the run to stop while they would wait.
#[derive(Debug)]
pub struct Interruptible {
    file: File,
    /// Nothing waits for a regular file.
    waits: bool,
}

impl Interruptible {
    /// This file, whatever it is.
    pub fn new(file: File) -> Self {
        let waits = !file.metadata().is_ok_and(|meta| meta.is_file());
        Self { file, waits }
    }

    /// Standard input, without what the standard library has buffered of it.
    pub fn stdin() -> io::Result<Self> {
        Ok(Self::new(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.waits {
                wait(self.file.as_fd(), PollFlags::IN)?;
            }
            match self.file.read(buffer) {
                Err(e) if self.waits && e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Write for Interruptible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.waits {
            return self.file.write(bytes);
        }
        loop {
            wait(self.file.as_fd(), PollFlags::OUT)?;
            match self.file.write(&bytes[..bytes.len().min(AT_ONCE)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes all of `bytes`; where their reader is slow, a signal that asks to stop ends the wait.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        wait(to, PollFlags::OUT)?;
        match rustix::io::write(to, &bytes[..bytes.len().min(AT_ONCE)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Opens a file to read. A FIFO's writer may come at any time.
pub fn open(path: &Path) -> io::Result<Interruptible> {
    let is_fifo = path.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    let patience = if is_fifo { OFlags::NONBLOCK } else { OFlags::empty() };
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | patience, Mode::empty())?;
    Ok(Interruptible::new(File::from(opened)))
}

/// Waits until it can be read or written, or fails when a signal asks to stop meanwhile.
fn wait(fd: BorrowedFd<'_>, until: PollFlags) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, until)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL })) {
            Ok(0) | Err(Errno::INTR) => check_interrupted().map_err(io::Error::other)?,
            // What cannot be polled does not wait either.
            _ => return Ok(()),
        }
    }
}
