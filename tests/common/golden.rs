//! Files of `tests/golden/`: what other programs compute of the same numbers.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Where this file or folder is.
pub fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A JSON file.
pub fn golden<T: DeserializeOwned>(name: &str) -> T {
    let bytes = std::fs::read(golden_path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
}
