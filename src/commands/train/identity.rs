//! What a training run must not change underneath itself: its config keys, its records, its base model.
//!
//! `RUN/train.json` holds them as flat `key: value` pairs. A later `train` in the same directory with other values is
//! refused with exit 2, naming the keys. Paths count by the content they lead to; keys that only say when to stop, how
//! often to save or where to put activations do not count. A key that the file lacks, because its version did not know it, counts as
//! its default.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::inputs::Inputs;
use crate::{
    commands::Context,
    config::Config,
    error::{Error, Result},
    storage,
};

const FILE: &str = "train.json";

/// Sections of the config that decide the weights and the dev predictions.
const SECTIONS: [&str; 7] = ["task", "data", "model", "lora", "head", "train", "generate"];

/// Keys that do not.
const FREE: [&str; 11] = [
    "task.name",
    "data.train",
    "data.dev",
    "data.test",
    "model.allow_long",
    "data.expect",
    "train.max_steps",
    "train.save_every_steps",
    "train.activation_memory",
    "train.seed",
    "generate.batch_tokens",
];

/// Flat keys and their values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Identity(BTreeMap<String, Value>);

impl Identity {
    /// The identity of the run that `context` and `inputs` describe.
    pub fn of(context: &Context, inputs: &Inputs, base_hash: &str) -> Result<Self> {
        let config = serde_json::to_value(&context.config).map_err(|e| Error::usage(format!("the config cannot be stored: {e}")))?;
        let mut keys = leaves(&config);
        let template = serde_json::to_value(&inputs.template).map_err(|e| Error::usage(format!("the prompt cannot be stored: {e}")))?;
        let hash = |source: &Option<(_, String)>| source.as_ref().map_or(Value::Null, |(_, hash)| json!(hash));
        keys.insert("task.prompt".into(), template);
        keys.insert("train.seed".into(), json!(context.seed));
        keys.insert("model.base".into(), json!(base_hash));
        keys.insert("data.train".into(), json!(inputs.train_hash));
        keys.insert("data.dev".into(), hash(&inputs.dev_source));
        keys.insert("construct/train.jsonl".into(), hash(&inputs.constructed));
        keys.insert("construct/dev.jsonl".into(), hash(&inputs.constructed_dev));
        Ok(Self(keys))
    }

    /// Refuses a run directory that holds another run.
    pub fn check(&self, run: &Path) -> Result<()> {
        let path = run.join(FILE);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
        let mut recorded: BTreeMap<String, Value> =
            serde_json::from_slice(&bytes).map_err(|e| Error::usage(format!("{}: {e}", path.display())))?;
        let defaults = serde_json::to_value(Config::default()).map(|config| leaves(&config)).unwrap_or_default();
        for (key, default) in defaults.into_iter().filter(|(key, _)| self.0.contains_key(key)) {
            recorded.entry(key).or_insert(default);
        }
        // What a file does not name was not there.
        let of = |keys: &BTreeMap<String, Value>, key: &String| keys.get(key).cloned().unwrap_or_default();
        let differing: Vec<&str> =
            self.0.keys().chain(recorded.keys()).filter(|key| of(&self.0, key) != of(&recorded, key)).map(String::as_str).collect();
        if differing.is_empty() {
            return Ok(());
        }
        let mut differing = differing;
        differing.sort_unstable();
        differing.dedup();
        let described: Vec<String> = differing.iter().map(|key| describe(key, recorded.get(*key), self.0.get(*key))).collect();
        Err(Error::usage(format!("{} holds a run with another configuration: {}", run.display(), described.join("; ")))
            .hint("undo the change, or choose another directory with --run"))
    }

    /// Records the run's identity.
    pub fn write(&self, run: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(&self.0).map_err(|e| Error::run(format!("cannot write {FILE}: {e}")))?;
        bytes.push(b'\n');
        storage::write_file_atomic(&run.join(FILE), &bytes)
    }
}

/// `train.learning_rate (2e-5 → 1e-4)`; hashes and prompts only say that their content differs.
fn describe(key: &str, was: Option<&Value>, is: Option<&Value>) -> String {
    let by_content =
        matches!(key, "task.prompt" | "model.base" | "data.train" | "data.dev" | "construct/train.jsonl" | "construct/dev.jsonl");
    match (by_content, was, is) {
        (true, Some(was), Some(is)) if !was.is_null() && !is.is_null() => format!("{key} (its content differs)"),
        (true, ..) => format!("{key} (there in one, not in the other)"),
        (false, was, is) => {
            let show = |value: Option<&Value>| value.map_or_else(|| "absent".into(), Value::to_string);
            format!("{key} ({} → {})", show(was), show(is))
        }
    }
}

/// The keys of a config that count, with their values.
fn leaves(config: &Value) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for section in SECTIONS {
        flatten(section, &config[section], &mut keys);
    }
    keys.retain(|key, _| !FREE.iter().any(|free| key == free || key.strip_prefix(free).is_some_and(|rest| rest.starts_with('.'))));
    keys
}

/// Leaves of nested objects by dotted key.
fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| flatten(&format!("{prefix}.{key}"), value, keys)),
        leaf => drop(keys.insert(prefix.to_owned(), leaf.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pairs: &[(&str, Value)]) -> Identity {
        Identity(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn another_run_is_refused_naming_the_keys_that_differ() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(&[("lora.rank", json!(8)), ("data.train", json!("aa")), ("train.epochs", json!(3))]);
        first.check(dir.path()).unwrap();
        first.write(dir.path()).unwrap();
        first.check(dir.path()).unwrap();
        let second = identity(&[("lora.rank", json!(16)), ("data.train", json!("bb")), ("train.epochs", json!(3))]);
        let error = second.check(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("lora.rank (8 → 16)"), "{error}");
        assert!(error.to_string().contains("data.train (its content differs)"), "{error}");
        assert!(!error.to_string().contains("train.epochs"), "{error}");
    }

    #[test]
    fn a_key_that_an_earlier_version_did_not_know_counts_as_its_default() {
        let dir = tempfile::tempdir().unwrap();
        identity(&[("lora.rank", json!(8))]).write(dir.path()).unwrap();
        let now = |smoothing: f64, end: Value| {
            identity(&[("lora.rank", json!(8)), ("train.label_smoothing", json!(smoothing)), ("train.w_cls_end", end)]).check(dir.path())
        };
        now(0.0, Value::Null).unwrap();
        let error = now(0.1, json!(0.5)).unwrap_err().to_string();
        assert!(error.contains("train.label_smoothing (0.0 → 0.1)") && error.contains("train.w_cls_end (null → 0.5)"), "{error}");
    }
}
