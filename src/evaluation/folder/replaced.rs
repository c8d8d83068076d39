//! `RUN/eval/.<split>.replaced`: where a folder waits that `--overwrite` replaces, until the new one is scored or the
//! old settings are given again.
//!
//! The thresholds and the calibrator that a run's splits share wait in it, as they were: the new settings write theirs
//! before anything is scored.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{CALIBRATION, THRESHOLDS, holds_work, is_foreign};
use crate::{error::Result, foreign, storage};

/// Where a folder waits.
pub(super) fn aside(out: &Path) -> PathBuf {
    out.with_file_name(format!(".{}.replaced", out.file_name().unwrap_or_default().to_string_lossy()))
}

/// What goes with a folder and does not lie in it; prediction files have all of it in their own.
fn shared(out: &Path, frozen: &Path) -> Vec<PathBuf> {
    let all: &[&str] = if frozen == out { &[] } else { &[THRESHOLDS, CALIBRATION] };
    all.iter().map(|name| frozen.join(name)).filter(|path| !is_foreign(path)).collect()
}

/// Lets a folder wait, in the place of any that waits.
pub(super) fn set_aside(out: &Path, frozen: &Path) -> Result<()> {
    let aside = aside(out);
    storage::remove_dir_all(&aside)?;
    storage::rename_dir(out, &aside)?;
    for path in shared(out, frozen) {
        let bytes = match foreign::read(&path, foreign::LARGE) {
            // An empty one says that there was none.
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|e| storage::error("cannot read", &path, &e))?,
        };
        storage::write_file_atomic(&waiting(&aside, &path), &bytes)?;
    }
    Ok(())
}

/// Brings a folder back, in the place of what is there.
pub(super) fn bring_back(out: &Path, frozen: &Path) -> Result<()> {
    let aside = aside(out);
    for path in shared(out, frozen) {
        let waiting = waiting(&aside, &path);
        let bytes = match foreign::read(&waiting, foreign::LARGE) {
            // An older clsgen set the folder aside without it, or an interrupted command has put it back.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(|e| storage::error("cannot read", &waiting, &e))?,
        };
        if bytes.is_empty() {
            storage::remove_file(&path)?;
        } else {
            storage::write_file_atomic(&path, &bytes)?;
        }
        storage::remove_file(&waiting)?;
    }
    storage::remove_dir_all(out)?;
    storage::rename_dir(&aside, out)
}

/// Brings back a folder that was to be replaced where nothing has taken its place.
pub(super) fn recover(out: &Path, frozen: &Path) -> Result<()> {
    if !aside(out).exists() || holds_work(out) {
        return Ok(());
    }
    bring_back(out, frozen)
}

fn waiting(aside: &Path, shared: &Path) -> PathBuf {
    aside.join(shared.file_name().unwrap_or_default())
}
