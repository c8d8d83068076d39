//! Memory of the system's own: a file mapped to read, and room for weights in huge pages. All `unsafe` of this module
//! is here.
#![allow(unsafe_code)]

mod watched;

use std::{ops::Deref, path::Path};

use half::bf16;
use memmap2::Mmap;
use watched::Watched;

use crate::{
    error::{Error, Result},
    foreign, storage,
};

/// The bytes of a mapped file.
#[derive(Debug)]
pub struct Mapped {
    // Before the map, so that it is dropped before it.
    _watched: Watched,
    map: Mmap,
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps a weight file for reading. Everything read from it is copied out at once, while the model is loaded.
pub fn map(path: &Path) -> Result<Mapped> {
    // A lack of addresses or memory is the machine's; everything else is the file's.
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::OutOfMemory => storage::error("cannot read", path, &e),
        _ => Error::model(format!("cannot read {}: {}", path.display(), storage::reason(&e))),
    };
    let file = foreign::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and private to this process. If another process shrinks the file while the model
    // loads, SIGBUS ends us (`watched`); weight files are written once and renamed into place, so none does.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Mapped { _watched: Watched::new(path, &map), map })
}

/// Zeros in huge pages, where the system has them to give: a decoding step reads every weight once, and with pages of 4
/// kB the search for their addresses takes a good part of that.
pub fn huge_zeros(count: usize) -> Vec<bf16> {
    const HUGE: usize = 2 << 20;
    let mut zeros: Vec<bf16> = Vec::with_capacity(count);
    let start = zeros.as_mut_ptr() as usize;
    let first = start.next_multiple_of(HUGE);
    let last = (start + count * size_of::<bf16>()) / HUGE * HUGE;
    if cfg!(target_os = "linux") && first < last {
        // SAFETY: whole pages of the buffer above, whose contents the advice does not touch; a refusal changes nothing.
        unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE) };
    }
    zeros.resize(count, bf16::ZERO);
    zeros
}
