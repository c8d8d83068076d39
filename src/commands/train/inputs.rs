//! The records of a run: train (constructed where construct ran), dev, and what splits share.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    commands::Context,
    config::Config,
    data::{self, Needs, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    prompt::PromptTemplate,
};

/// Records and the prompt that reads them.
pub(super) struct Inputs {
    /// The prompt file.
    pub template: PromptTemplate,
    /// `data.train`, as found.
    pub train_path: PathBuf,
    /// BLAKE3 of `data.train`.
    pub train_hash: String,
    /// `RUN/construct/train.jsonl` and its BLAKE3, where it is used.
    pub constructed: Option<(PathBuf, String)>,
    /// The records trained on.
    pub train: Vec<Record>,
    /// `data.dev` and its BLAKE3.
    pub dev_source: Option<(PathBuf, String)>,
    /// The dev split.
    pub dev: Option<Vec<Record>>,
    /// What splits share, a line a pair.
    pub leakage: Vec<String>,
}

impl Inputs {
    /// Reads and checks every record before any work.
    pub fn load(context: &Context) -> Result<Self> {
        let config = &context.config;
        required(config)?;
        let template = PromptTemplate::load(&config.resolve(&config.task.prompt))?;
        let fields = template.fields();
        let train_path = config.resolve(config.data.train.as_deref().unwrap_or(Path::new("")));
        let needs = Needs::split(&config.data, "train", &fields);
        let train_hash = data::source_hash(&train_path)?;
        let constructed = constructed(&context.run_dir, &train_path, &train_hash)?;
        if constructed.is_some() {
            read_alike(&context.run_dir, config)?;
        }
        let train = match &constructed {
            Some((path, _)) => data::load_canonical(path, &Needs { expect: None, ..needs })?,
            None => data::load(&config.data, &train_path, &needs)?,
        };
        let (mut dev, mut dev_source) = (None, None);
        if let Some(path) = &config.data.dev {
            let path = config.resolve(path);
            dev = Some(data::load(&config.data, &path, &Needs::split(&config.data, "dev", &fields))?);
            dev_source = Some((path.clone(), data::source_hash(&path)?));
        }
        let leakage = leakage(config, &train, dev.as_deref(), &fields);
        Ok(Self { template, train_path, train_hash, constructed, train, dev_source, dev, leakage })
    }

    /// Every input file, for `run.json`.
    pub fn files(&self) -> Vec<&Path> {
        let constructed = self.constructed.iter().map(|(path, _)| path.as_path());
        let dev = self.dev_source.iter().map(|(path, _)| path.as_path());
        std::iter::once(self.train_path.as_path()).chain(constructed).chain(dev).collect()
    }
}

/// Keys that `train` cannot do without, all of them at once.
fn required(config: &Config) -> Result<()> {
    let missing: Vec<&str> = [
        ("data.train", config.data.train.is_none()),
        ("model.base", config.model.base.is_empty()),
        ("task.prompt", config.task.prompt.as_os_str().is_empty()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::usage(format!("`clsgen train` needs {}", missing.join(", ")))
            .hint("give a config with --config FILE, or the keys with --set key=value")),
    }
}

/// `RUN/construct/train.jsonl`, where construct made it from this very `data.train`; made from another, exit 2.
fn constructed(run: &Path, train_path: &Path, train_hash: &str) -> Result<Option<(PathBuf, String)>> {
    let path = run.join("construct").join("train.jsonl");
    if !path.is_file() {
        return Ok(None);
    }
    let stats = run.join("construct").join("stats.json");
    let recorded = std::fs::read(&stats).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let train = recorded.map(|stats| stats["splits"]["train"].clone()).unwrap_or_default();
    match train["source"]["blake3"].as_str() {
        Some(hash) if hash == train_hash => Ok(Some((path.clone(), unchanged(&path, &stats, &train)?))),
        Some(_) => Err(Error::usage(format!(
            "{} was constructed from other records than data.train = {} holds",
            path.display(),
            train_path.display()
        ))
        .hint("run `clsgen construct` again, or choose another directory with --run")),
        None => Err(Error::usage(format!("{} does not say which records {} was constructed from", stats.display(), path.display()))
            .hint("run `clsgen construct` to its end, or choose another directory with --run")),
    }
}

/// Refuses explanations whose records were read in another way: their labels would be others (LCD's horizon, say).
fn read_alike(run: &Path, config: &Config) -> Result<()> {
    let stats = run.join("construct").join("stats.json");
    let recorded: Value = std::fs::read(&stats).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let settings: Fingerprint = serde_json::from_value(recorded["splits"]["train"]["settings"].clone()).unwrap_or_default();
    let differing = Fingerprint::of_reading(config)?.differences(&settings.reading());
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} was constructed under other settings: {}",
        run.join("construct").join("train.jsonl").display(),
        differing.join("; ")
    ))
    .hint("undo the change, or construct and train in another directory with --run"))
}

/// BLAKE3 of constructed records, which must be those that `stats.json` names: changed since, exit 3.
fn unchanged(path: &Path, stats: &Path, train: &Value) -> Result<String> {
    let hash = data::source_hash(path)?;
    match train["output"]["blake3"].as_str() {
        Some(recorded) if recorded != hash => Err(Error::data(format!(
            "{} was changed since construct made it: its BLAKE3 is not the one in {}",
            path.display(),
            stats.display()
        ))
        .hint("put the file back as it was, or construct it again in another directory with --run")),
        Some(_) => Ok(hash),
        None => {
            tracing::warn!("{} holds no hash of {}: that it is unchanged cannot be checked", stats.display(), path.display());
            Ok(hash)
        }
    }
}

/// Compares train, dev and, where it can be read, test.
fn leakage(config: &Config, train: &[Record], dev: Option<&[Record]>, fields: &[String]) -> Vec<String> {
    let test = config.data.test.as_ref().and_then(|path| {
        let needs = Needs { label: false, ..Needs::split(&config.data, "test", fields) };
        // Training does not need test: what is wrong with it is for `eval` to say.
        data::load(&config.data, &config.resolve(path), &needs).ok()
    });
    let mut splits = vec![("train", train)];
    splits.extend(dev.map(|dev| ("dev", dev)));
    splits.extend(test.as_deref().map(|test| ("test", test)));
    data::leakage(&splits).to_string().lines().map(str::to_owned).collect()
}
