//! An append-only log of JSON lines that survives a kill: a torn last line is cut when it is opened again.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    guard, lock,
    private::{self, Named},
    sync, temporary,
};
use crate::error::{Error, Result};

/// A log of records, a line each. Every append is one write, so a reader sees whole lines.
#[derive(Debug)]
pub struct RecordLog {
    path: PathBuf,
    file: File,
    records: usize,
    length: u64,
    /// Which file it is; `None` for a pipe or a device.
    identity: Option<guard::Identity>,
}

impl RecordLog {
    /// Opens or creates the log and cuts a torn last line. Its name is ours.
    pub fn open(path: &Path) -> Result<Self> {
        Self::opened(path, Named::ByUs)
    }

    /// The same of a file that a command line names.
    pub fn open_output(path: &Path) -> Result<Self> {
        Self::opened(path, Named::ByUser)
    }

    fn opened(path: &Path, named: Named) -> Result<Self> {
        super::check_output(path)?;
        let fail = |e: std::io::Error| super::error("cannot open", path, &e);
        let mut file = private::open("cannot open", path, named, OpenOptions::new().read(true).write(true))?;
        // A device or a pipe holds no records to keep (and /dev/full would never end).
        let (records, length) = if file.metadata().map_err(fail)?.is_file() {
            let whole = whole_lines(&mut file).map_err(fail)?;
            file.set_len(whole.1).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
            whole
        } else {
            (0, 0)
        };
        let meta = file.metadata().map_err(fail)?;
        let identity = meta.is_file().then(|| guard::identity(&meta));
        if identity.is_some() && length == 0 {
            // The name before what is written under it: after a power failure no log has lines whose companion, opened
            // with it, is not there.
            sync::dir(temporary::parent(path))?;
        }
        Ok(Self { path: path.to_owned(), file, records, length, identity })
    }

    /// Whole records in the log.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of the whole records: where the next one begins.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record as one line.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line =
            serde_json::to_vec(record).map_err(|e| Error::run(format!("cannot write {}: {e}", self.path.display())))?;
        line.push(b'\n');
        self.check_there()?;
        super::fault("log.append");
        if super::fault::due("log.torn") {
            let _ = self.file.write_all(&line[..line.len() / 2]);
            std::process::abort();
        }
        if let Err(e) = self.file.write_all(&line) {
            // Half a line may be there (no space): take it back, so that what is on disk stays whole.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::End(0)));
            return Err(super::error("cannot write", &self.path, &e));
        }
        self.records += 1;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Takes the file for this process alone, whatever name another uses for it.
    pub fn lock(&self) -> Result<()> {
        match lock::try_alone(&self.file) {
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::usage(format!("{} is being written by another process", self.path.display()))
                    .hint("wait until it ends, or choose another place"))
            }
            // A file system without locks is no reason not to work.
            _ => Ok(()),
        }
    }

    /// Lines written to a file that has no name any more would be lost.
    fn check_there(&self) -> Result<()> {
        guard::check_held(&self.path)?;
        let Some(identity) = self.identity else { return Ok(()) };
        match self.path.metadata() {
            Ok(meta) if guard::identity(&meta) == identity => Ok(()),
            _ => Err(Error::run(format!("{} was removed or replaced while it was being written", self.path.display()))
                .hint("nothing was made anew: give the command again to start over")),
        }
    }

    /// Cuts the log after its first `records` records (a resume goes back to its checkpoint).
    pub fn keep(&mut self, records: usize) -> Result<()> {
        let fail = |e: std::io::Error| super::error("cannot cut", &self.path, &e);
        if records >= self.records {
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes)).map_err(fail)?;
        let length: usize = bytes.split_inclusive(|&b| b == b'\n').take(records).map(<[u8]>::len).sum();
        self.file.set_len(length as u64).and_then(|()| self.file.seek(SeekFrom::End(0))).map_err(fail)?;
        (self.records, self.length) = (records, length as u64);
        Ok(())
    }

    /// Waits until the disk has everything appended so far.
    pub fn sync(&self) -> Result<()> {
        sync::file(&self.path, &self.file)
    }
}

/// How many lines end in a newline, and how many bytes they are.
fn whole_lines(file: &mut File) -> std::io::Result<(usize, u64)> {
    let mut lines = 0;
    let mut whole = 0;
    let mut read = 0u64;
    let mut buffer = vec![0; 1 << 16];
    file.rewind()?;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((lines, whole));
        }
        for (i, _) in buffer[..n].iter().enumerate().filter(|(_, b)| **b == b'\n') {
            lines += 1;
            whole = read + i as u64 + 1;
        }
        read += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        std::fs::write(&path, "1\n2\n{\"half\":").unwrap();
        let mut log = RecordLog::open(&path).unwrap();
        assert_eq!((log.records(), log.length()), (2, 4));
        log.append(&3).unwrap();
        log.sync().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
        assert_eq!((log.records(), log.length()), (3, 6));
    }

    #[test]
    fn a_log_can_be_cut_back_to_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RecordLog::open(&dir.path().join("log.jsonl")).unwrap();
        (0..20).for_each(|i| log.append(&i).unwrap());
        log.keep(11).unwrap();
        log.keep(15).unwrap();
        log.append(&"eleven").unwrap();
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(text.lines().count(), 12);
        assert!(text.ends_with("10\n\"eleven\"\n"));
    }

    #[test]
    fn a_full_device_is_a_resource_error() {
        let error = RecordLog::open_output(Path::new("/dev/full")).unwrap().append(&1).unwrap_err();
        assert_eq!(error.exit_code(), 5);
    }
}
