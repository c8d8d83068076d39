//! A folder that a command makes whole: what lies in its place before.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    storage,
};

/// Names in `out`, which `flag` chose: none where nothing is there yet. A link that leads nowhere is refused (exit 2):
/// a folder cannot take its place.
pub(super) fn names(out: &Path, flag: &str) -> Result<BTreeSet<String>> {
    let there = place(out);
    if !there.exists() {
        if out.is_symlink() {
            return Err(Error::usage(format!("{} is a link that leads nowhere", out.display()))
                .hint(format!("remove it, or choose another {flag}")));
        }
        return Ok(BTreeSet::new());
    }
    let entries = std::fs::read_dir(there).map_err(|e| storage::error("cannot read", out, &e))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Refuses (exit 2) a folder with a file in it that its manifest does not list: `command` did not write that.
pub(super) fn refuse_unlisted(out: &Path, command: &str, flag: &str) -> Result<()> {
    match storage::unlisted(&place(out))? {
        Some(other) => Err(Error::usage(format!("{} holds {other}, which {command} did not write", out.display()))
            .hint(format!("move that away, or choose another {flag}; no option replaces it"))),
        None => Ok(()),
    }
}

/// Where the folder is: a kill may have left it aside, and it is put back before a new one is begun.
fn place(out: &Path) -> PathBuf {
    storage::stepped_aside(out).unwrap_or_else(|| out.to_owned())
}
