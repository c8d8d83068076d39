//! What decides the bytes of a stored result, in one place for every command that goes on with one. Layer 1.
//!
//! ```text
//! config keys that decide the stage ─┐
//! hashes and prompts behind paths   ─┼─▶ flat `key: value` pairs ─▶ stored with the result ─▶ compared
//! ```
//!
//! Which keys decide what stands beside each key in `config/keys.rs`. A path counts by what it leads to: commands
//! gather the hashes and hand them in as strings.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{Config, Stage},
    error::{Error, Result},
    foreign,
    parallel::Collective,
};

/// The tokenizer's hash beside the key of a model: absent in what an older clsgen stored, which cannot be compared.
pub const TOKENIZER: &str = "tokenizer";

/// What only the base's own files tell of a checkpoint that names no hash.
const OF_THE_BASE: [&str; 3] = ["model.base", TOKENIZER, "prompt date"];

/// Keys that say what a record's label and texts are, `data.fields` with every name in it.
const READING: [&str; 4] = ["task.labels", "data.format", "data.fields", "data.horizon"];

/// Keys and values that decide a result; equal fingerprints, equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, Value>);

impl Fingerprint {
    /// The fingerprint of `stage` under `config`.
    ///
    /// `contents` holds what paths lead to, by key (`("model.base", hash)`, null where there is none), and whatever
    /// else decides the result under a name of its own; it overrides the config's own values. A key that counts by
    /// content and is missing here is an error of the caller's, not a null.
    pub fn new(stage: Stage, config: &Config, contents: &[(&str, Value)]) -> Result<Self> {
        let all =
            serde_json::to_value(config).map_err(|e| Error::usage(format!("the config cannot be stored: {e}")))?;
        let mut keys = BTreeMap::new();
        for (key, by_content) in stage.keys() {
            if !by_content {
                flatten(key, key.split('.').fold(&all, |value, name| &value[name]), &mut keys);
            } else if !contents.iter().any(|(name, _)| *name == key) {
                return Err(Error::run(format!("the fingerprint of {stage:?} lacks what {key} leads to")));
            }
        }
        for (key, value) in contents {
            keys.insert((*key).to_owned(), value.clone());
        }
        drop_idle(stage, &mut keys);
        Ok(Self(keys))
    }

    /// A result that no config key decides: another tool's prediction files.
    pub fn of_contents(contents: &[(&str, Value)]) -> Self {
        Self(contents.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    /// Every key of `config` by its value, and `contents`: what the ranks of a job compare before they work together.
    pub fn of_every_key(config: &Config, contents: &[(&str, Value)]) -> Result<Self> {
        let all =
            serde_json::to_value(config).map_err(|e| Error::usage(format!("the config has no JSON form: {e}")))?;
        let Self(mut keys) = Self::of_contents(contents);
        all.as_object().into_iter().flatten().for_each(|(section, value)| flatten(section, value, &mut keys));
        Ok(Self(keys))
    }

    /// Refuses ranks whose fingerprints are not rank 0's, naming the first and what differs.
    pub fn check_alike(&self, ranks: &Collective) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let failed = |e: serde_json::Error| Error::run(format!("a rank's settings cannot be compared: {e}"));
        let all = ranks.all_gather(&serde_json::to_vec(self).map_err(failed)?)?;
        let all = all.iter().map(|bytes| serde_json::from_slice::<Self>(bytes).map_err(failed));
        let all = all.collect::<Result<Vec<_>>>()?;
        let hosts = ranks.hosts();
        for (rank, fingerprint) in all.iter().enumerate().skip(1) {
            let differing = fingerprint.differences(&all[0]);
            if !differing.is_empty() {
                return Err(Error::usage(format!(
                    "rank {rank} on {} differs from rank 0 on {}: {}",
                    hosts[rank],
                    hosts[0],
                    differing.join("; ")
                ))
                .hint("start every rank with the same program, command line, config, records and kind of device"));
            }
        }
        Ok(())
    }

    /// A value by its key.
    pub fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    /// Keys and values of a map in the config, by what follows its name.
    pub fn under<'a>(&'a self, map: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let within = move |key: &'a String| key.strip_prefix(map)?.strip_prefix('.');
        self.0.iter().filter_map(move |(key, value)| Some((within(key)?, value)))
    }

    /// How `config` reads a record: what a label or a text that was made of one depends on.
    pub fn of_reading(config: &Config) -> Result<Self> {
        Ok(Self::new(Stage::Train, config, &Stage::Train.contents(|_| Value::Null))?.reading())
    }

    /// The part of it that [`Fingerprint::of_reading`] holds.
    #[must_use]
    pub fn reading(&self) -> Self {
        self.filtered(|key| {
            READING
                .iter()
                .any(|read| key.strip_prefix(read).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        })
    }

    /// Gives a key its value.
    pub fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// The keys that `keep` accepts.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The keys in which `recorded` differs, each with its values where they can be shown: `lora.rank (8 → 16)`.
    ///
    /// A config key that `recorded` lacks, because its version did not know it, counts as its default, and a content
    /// that it lacks as none. A tokenizer that it does not name cannot be compared: one warning. Nor can a base that is
    /// null here.
    pub fn differences(&self, recorded: &Self) -> Vec<String> {
        let defaults = defaults();
        let keys: BTreeSet<&String> = self.0.keys().chain(recorded.0.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let was = recorded.0.get(key).or_else(|| defaults.get(key)).unwrap_or(&Value::Null);
            let is = self.get(key);
            if is.is_null() && OF_THE_BASE.contains(&key.as_str()) {
                // The base is not there and the checkpoint does not name its hash: nothing can be made, only measured
                // again.
            } else if key.ends_with(TOKENIZER) && was.is_null() && !recorded.0.is_empty() {
                tracing::warn!(
                    "an older clsgen made this and kept no hash of the {key}: that it is the same cannot be checked"
                );
            } else if was != is && !(key == "model.dtype" && was == "auto") {
                found.push(describe(key, was, is));
            }
        }
        found
    }
}

/// `train.learning_rate (2e-5 → 0.0001)`; of hashes and prompts only that they differ.
fn describe(key: &str, was: &Value, is: &Value) -> String {
    let hash = |value: &Value| {
        value.as_str().is_some_and(|text| text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    // The keys that were recorded may be anybody's.
    let key = foreign::name(key);
    let opaque = |value: &Value| value.is_object() || hash(value) || value.to_string().len() > 100;
    match (was.is_null(), is.is_null()) {
        (false, false) if opaque(was) || opaque(is) => format!("{key} (its content differs)"),
        (true, _) if opaque(is) => format!("{key} (there now, not before)"),
        (_, true) if opaque(was) => format!("{key} (there before, not now)"),
        _ => format!("{key} ({was} → {is})"),
    }
}

/// Greedy decoding draws nothing: what only draws use decides nothing.
fn drop_idle(stage: Stage, keys: &mut BTreeMap<String, Value>) {
    for section in ["construct", "generate", "eval"] {
        let Some(temperature) = keys.get(&format!("{section}.temperature")) else { continue };
        if temperature.is_null() || temperature.as_f64() == Some(0.0) {
            keys.remove(&format!("{section}.top_p"));
            // Training draws its data order and dropout, measuring its resamples.
            if !matches!(stage, Stage::Train | Stage::Measure) {
                keys.remove("train.seed");
            }
        }
    }
}

/// The default of every config key.
fn defaults() -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    if let Ok(config) = serde_json::to_value(Config::default()) {
        config.as_object().into_iter().flatten().for_each(|(section, value)| flatten(section, value, &mut keys));
    }
    keys
}

/// Leaves of nested objects by dotted key; an empty object has none.
fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| flatten(&format!("{prefix}.{key}"), value, keys))
        }
        leaf => drop(keys.insert(prefix.to_owned(), leaf.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_contents(stage: Stage, config: &Config, seed: u64) -> Fingerprint {
        let mut contents = stage.contents(|_| json!("0f"));
        contents.retain(|(key, _)| *key != "train.seed");
        contents.push(("train.seed", json!(seed)));
        Fingerprint::new(stage, config, &contents).unwrap()
    }

    #[test]
    fn a_result_is_known_by_its_own_keys_alone() {
        let was = Config::default();
        let mut is = was.clone();
        is.lora.rank = 16;
        is.data.horizon = 90;
        is.data.fields.insert("text".into(), "note".into());
        let differ = |stage| with_contents(stage, &is, 1).differences(&with_contents(stage, &was, 1));
        assert_eq!(
            differ(Stage::Train),
            ["data.fields.text (null → \"note\")", "data.horizon (30 → 90)", "lora.rank (8 → 16)"]
        );
        assert_eq!(differ(Stage::Predict), ["data.fields.text (null → \"note\")", "data.horizon (30 → 90)"]);
        assert_eq!(differ(Stage::Judge), [""; 0]);
    }

    #[test]
    fn what_paths_lead_to_must_be_said() {
        let error = Fingerprint::new(Stage::Judge, &Config::default(), &[("eval.judge", json!("aa"))]).unwrap_err();
        assert!(error.to_string().contains("lacks what"), "{error}");
    }

    #[test]
    fn greedy_decoding_has_no_seed() {
        let mut config = Config::default();
        config.generate.temperature = 0.0;
        assert_eq!(with_contents(Stage::Predict, &config, 1), with_contents(Stage::Predict, &config, 2));
        assert_ne!(with_contents(Stage::Train, &config, 1), with_contents(Stage::Train, &config, 2));
        config.generate.temperature = 0.5;
        assert_ne!(with_contents(Stage::Predict, &config, 1), with_contents(Stage::Predict, &config, 2));
    }

    #[test]
    fn what_an_earlier_version_did_not_know_counts_as_its_default() {
        let config = Config::default();
        let now = with_contents(Stage::Train, &config, 1);
        let then = now.filtered(|key| key != "train.label_smoothing");
        assert_eq!(now.differences(&then), [""; 0]);
        let mut smoothed = config.clone();
        smoothed.train.label_smoothing = 0.1;
        let differing = with_contents(Stage::Train, &smoothed, 1).differences(&then);
        assert_eq!(differing, ["train.label_smoothing (0.0 → 0.1)"]);
    }
}
