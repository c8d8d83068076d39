//! A file mapped into memory: the one `unsafe` of this module.
#![allow(unsafe_code)]

use std::{fs::File, path::Path};

use memmap2::Mmap;

use crate::{
    error::{Error, Result},
    storage::reason,
};

/// Maps a weight file for reading. Everything read from it is copied out at once, while the model is loaded.
pub fn map(path: &Path) -> Result<Mmap> {
    let failed = |e: std::io::Error| Error::model(format!("cannot read {}: {}", path.display(), reason(&e)));
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and private to this process. If another process shrinks the file while the model
    // loads, the kernel ends us with SIGBUS; weight files are written once and renamed into place, so none does.
    unsafe { Mmap::map(&file) }.map_err(failed)
}
