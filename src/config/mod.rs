//! TOML → a validated [`Config`]. Layer 1.
//!
//! Every unknown key, wrong type and value out of range is reported at once, with file, line and suggestion (exit 2).
//! `--set key.path=value` goes through the same checks. Adding a key: `schema*.rs` (field, default) and `keys.rs`
//! (type, range, what it decides); a test holds the two together.

mod check;
mod keys;
mod load;
mod schema;
mod schema_eval;
mod schema_train;
mod stage;
mod together;

use std::path::{Path, PathBuf};

pub use load::{load, parse};
pub use schema::*;
pub use schema_eval::*;
pub use schema_train::*;
pub use stage::Stage;
#[cfg(test)]
pub(crate) use together::PREDICTION_KEYS;

use crate::error::{Error, Result};

/// Whether the name of a model is the address of a server.
pub fn is_server(name: &str) -> bool {
    let start = |scheme: &str| name.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    start("http://") || start("https://")
}

impl Config {
    /// The models that a server may have, each with its key and its name there.
    pub fn servers(&self) -> [(&'static str, Option<&str>, Option<&str>); 3] {
        let eval = &self.eval;
        [
            ("construct.teacher", Some(self.construct.teacher.as_str()), self.construct.teacher_name.as_deref()),
            ("eval.judge", eval.judge.as_deref(), eval.judge_name.as_deref()),
            ("eval.baseline_model", eval.baseline_model.as_deref(), eval.baseline_model_name.as_deref()),
        ]
    }

    /// A path of the config: absolute, else relative to the config file's directory if it exists there, else to the
    /// working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let beside = self.dir.join(path);
        if path.is_absolute() || beside.exists() { beside } else { path.to_owned() }
    }

    /// Fails (exit 2) where keys that a command cannot do without are not set, naming all of them at once: `keys` says
    /// of each whether it is set.
    pub fn require(command: &str, keys: &[(&str, bool)]) -> Result<()> {
        let missing: Vec<&str> = keys.iter().filter_map(|(key, set)| (!set).then_some(*key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::usage(format!("`clsgen {command}` needs {}", missing.join(", ")))
            .hint("give a config with --config FILE, or the keys with --set key=value"))
    }

    /// Everything on this machine that a key names: record and prompt files, models' folders.
    pub fn named_paths(&self) -> Vec<PathBuf> {
        let values = serde_json::to_value(self).unwrap_or_default();
        let named = keys::paths().filter_map(|key| values.pointer(&format!("/{}", key.replace('.', "/")))?.as_str());
        let found = named.filter(|named| !named.is_empty()).map(|named| self.resolve(Path::new(named)));
        found.filter(|path| path.exists()).collect()
    }

    /// Every key with its value, as TOML that [`load`] reads back.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::run(format!("cannot print the config: {e}")))
    }
}
