//! Points at which a test can kill the process: `CLSGEN_FAULT=point[:n]` aborts at the n-th passage (default 1),
//! `any:n` at the n-th passage of whichever point; `CLSGEN_PANIC=1` makes it a panic.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Every fault point, in the order a commit passes them, then training's; crash-sweep tests walk this list.
pub fn points() -> &'static [&'static str] {
    &[
        "dir.create",
        "dir.write",
        "dir.manifest",
        "dir.synced",
        "dir.aside",
        "dir.renamed",
        "dir.done",
        "file.write",
        "file.synced",
        "file.renamed",
        "log.append",
        "log.torn",
        "train.step",
        "train.loss",
    ]
}

/// Aborts the process here when `CLSGEN_FAULT` names this point. Costs one load otherwise.
pub fn fault(point: &str) {
    if due(point) {
        if std::env::var_os("CLSGEN_PANIC").is_some() {
            std::panic::panic_any("a fault point");
        }
        std::process::abort();
    }
}

/// A number that a fault point spoils: it is none at the passage that `CLSGEN_FAULT` names.
pub fn spoiled(point: &str, number: f64) -> f64 {
    if named(point) && due(point) { f64::NAN } else { number }
}

/// Names every point.
const ANY: &str = "any";

/// True at the passage that `CLSGEN_FAULT` names.
pub(super) fn due(point: &str) -> bool {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    wanted().is_some_and(|(name, n)| (name == point || name == ANY) && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *n)
}

/// Whether `CLSGEN_FAULT` names this point, whatever the passage: for a way that is taken on some file systems only.
pub(super) fn named(point: &str) -> bool {
    wanted().is_some_and(|(name, _)| name == point)
}

fn wanted() -> Option<&'static (String, u64)> {
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let value = std::env::var("CLSGEN_FAULT").ok()?;
        Some(match value.rsplit_once(':') {
            Some((name, n)) => (name.to_owned(), n.parse().unwrap_or(1)),
            None => (value, 1),
        })
    });
    wanted.as_ref()
}
