//! The records of a run: train (constructed where construct ran), dev, and what splits share.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    commands::{Context, construct},
    config::Config,
    data::{self, Needs, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    labels::Labels,
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
    /// `RUN/construct/dev.jsonl` and its BLAKE3, where it is used.
    pub constructed_dev: Option<(PathBuf, String)>,
    /// The dev split, whole; a record without an explanation of its own has the constructed one.
    pub dev: Option<Vec<Record>>,
    /// What splits share, a line a pair.
    pub leakage: Vec<String>,
}

impl Inputs {
    /// Reads and checks every record before any work.
    pub fn load(context: &Context) -> Result<Self> {
        let config = &context.config;
        Config::require(
            "train",
            &[
                ("data.train", config.data.train.is_some()),
                ("model.base", !config.model.base.is_empty()),
                ("task.prompt", !config.task.prompt.as_os_str().is_empty()),
            ],
        )?;
        let template = PromptTemplate::load(&config.resolve(&config.task.prompt))?;
        let fields = template.fields();
        let train_path = config.resolve(config.data.train.as_deref().unwrap_or(Path::new("")));
        let needs = Needs::split(&config.data, "train", &fields);
        let train_hash = data::source_hash(&train_path)?;
        let constructed = constructed(&context.run_dir, "train", (&train_path, &train_hash), config)?;
        constructed.iter().try_for_each(|_| template.check_constructed())?;
        let train = match &constructed {
            Some((path, _)) => data::load_canonical(path, &config.task.labels, &Needs { expect: None, ..needs })?,
            None => data::load(&config.data, &train_path, &needs)?,
        };
        let mut dev = None;
        let mut dev_source = None;
        let mut constructed_dev = None;
        if let Some(path) = &config.data.dev {
            let path = config.resolve(path);
            let needs = Needs::split(&config.data, "dev", &fields);
            let mut records = data::load(&config.data, &path, &needs)?;
            let hash = data::source_hash(&path)?;
            constructed_dev = self::constructed(&context.run_dir, "dev", (&path, &hash), config)?;
            if let Some((path, _)) = &constructed_dev {
                explain(&mut records, path, &config.task.labels, needs)?;
            }
            (dev, dev_source) = (Some(records), Some((path, hash)));
        }
        let leakage = leakage(config, &train, dev.as_deref(), &fields);
        Ok(Self { template, train_path, train_hash, constructed, train, dev_source, constructed_dev, dev, leakage })
    }

    /// The file that is trained on.
    pub fn source(&self) -> &Path {
        self.constructed.as_ref().map_or(&self.train_path, |(path, _)| path)
    }

    /// Every input file, for `run.json`.
    pub fn files(&self) -> Vec<&Path> {
        let sources = self.constructed.iter().chain(&self.dev_source).chain(&self.constructed_dev);
        std::iter::once(self.train_path.as_path()).chain(sources.map(|(path, _)| path.as_path())).collect()
    }
}

/// `RUN/construct/<split>.jsonl` and its BLAKE3, where construct made it from this very source, a path with its BLAKE3,
/// and read that as `config` does; made from another or in another way, exit 2.
fn constructed(run: &Path, split: &str, source: (&Path, &str), config: &Config) -> Result<Option<(PathBuf, String)>> {
    let path = run.join("construct").join(format!("{split}.jsonl"));
    let stats = run.join("construct").join("stats.json");
    let recorded =
        foreign::read(&stats, foreign::LARGE).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let recorded = recorded.map(|stats| stats["splits"][split].clone()).unwrap_or_default();
    if !path.is_file() {
        construct::refuse_parts(run, split)?;
        if recorded.is_null() {
            return Ok(None);
        }
        return Err(Error::data(format!("{} is gone, and {} says that it was made", path.display(), stats.display()))
            .hint("put it back as construct wrote it, or choose another directory with --run"));
    }
    match recorded["source"]["blake3"].as_str() {
        Some(hash) if hash == source.1 => {
            let hash = unchanged(&path, &stats, &recorded)?;
            read_alike(&path, &recorded["settings"], config)?;
            Ok(Some((path, hash)))
        }
        Some(_) => Err(Error::usage(format!(
            "{} was constructed from other records than data.{split} = {} holds",
            path.display(),
            source.0.display()
        ))
        .hint("run `clsgen construct` again, or choose another directory with --run")),
        None => Err(Error::usage(format!(
            "{} does not say which records {} was constructed from",
            stats.display(),
            path.display()
        ))
        .hint("run `clsgen construct` to its end, or choose another directory with --run")),
    }
}

/// Refuses explanations whose records were read in another way: their labels would be others (LCD's horizon, say).
fn read_alike(path: &Path, settings: &Value, config: &Config) -> Result<()> {
    let settings: Fingerprint = serde_json::from_value(settings.clone()).unwrap_or_default();
    let differing = Fingerprint::of_reading(config)?.differences(&settings.reading());
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("{} was constructed under other settings: {}", path.display(), differing.join("; ")))
        .hint("undo the change, or construct and train in another directory with --run"))
}

/// BLAKE3 of constructed records, which must be those that `stats.json` names: changed since, exit 3.
fn unchanged(path: &Path, stats: &Path, recorded: &Value) -> Result<String> {
    let hash = data::source_hash(path)?;
    match recorded["output"]["blake3"].as_str() {
        Some(recorded) if recorded != hash => Err(Error::data(format!(
            "{} was changed since construct made it: its BLAKE3 is not the one in {}",
            path.display(),
            stats.display()
        ))
        .hint("put the file back as it was, or construct it again in another directory with --run")),
        Some(_) => Ok(hash),
        None => {
            tracing::warn!(
                "{} holds no hash of {}: that it is unchanged cannot be checked",
                stats.display(),
                path.display()
            );
            Ok(hash)
        }
    }
}

/// Gives records without an explanation of their own the one that construct found; one that it dropped stays without.
fn explain(records: &mut [Record], constructed: &Path, labels: &Labels, needs: Needs) -> Result<()> {
    // Every record may have been dropped.
    if std::fs::metadata(constructed).is_ok_and(|meta| meta.len() == 0) {
        return Ok(());
    }
    let constructed = data::load_canonical(constructed, labels, &Needs { expect: None, ..needs })?;
    let mut explanations: HashMap<String, String> =
        constructed.into_iter().filter_map(|record| Some((record.id, record.explanation?))).collect();
    for record in records.iter_mut().filter(|record| record.explanation.is_none()) {
        record.explanation = explanations.remove(&record.id);
    }
    Ok(())
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
