//! A split to construct: its records, or one process's part of them, and what its outcome depends on.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    commands::Context,
    config::Stage,
    data::{self, Needs, Record},
    error::{Error, Result},
    fingerprint::Fingerprint,
    generate::construct::Statistics,
    shard::Shard,
    storage,
};

/// A split to construct.
pub(super) struct Split {
    pub name: String,
    pub path: PathBuf,
    /// Those of this process.
    pub records: Vec<Record>,
    /// How many the file holds.
    pub total: usize,
    /// Everything the outcome of the whole split depends on.
    pub settings: Fingerprint,
}

impl Split {
    /// Bytes that its file takes at the least: records as they are, and a byte a token of their explanations.
    pub fn least_bytes(&self, context: &Context) -> u64 {
        let text = |record: &Record| record.fields.values().map(String::len).sum::<usize>();
        self.records.iter().map(|record| (text(record) + context.config.construct.max_output_tokens) as u64).sum()
    }

    /// Its settings, those of a part with the part's name.
    pub fn settings_of(&self, shard: Option<Shard>) -> Fingerprint {
        let mut settings = self.settings.clone();
        if let Some(shard) = shard {
            settings.set("shard", json!(shard.to_string()));
        }
        settings
    }

    /// Its entry of `stats.json`.
    pub fn entry(&self, settings: &Fingerprint, output: &Path, statistics: &Statistics) -> Result<Value> {
        Ok(json!({
            "source": { "path": self.path.to_string_lossy(), "blake3": self.settings.get("source") },
            "output": { "path": output.file_name().map(|name| name.to_string_lossy()),
            "blake3": storage::hash_written(output)? },
            "settings": settings, "statistics": statistics,
        }))
    }

    /// Reads the split that `name` is, and keeps the records of this process.
    pub fn read(context: &Context, name: &str, fields: &[String], method: &[(&str, Value)]) -> Result<Self> {
        let data = &context.config.data;
        let path = match name {
            "train" => &data.train,
            "dev" => &data.dev,
            "test" => &data.test,
            _ => {
                return Err(Error::usage(format!("construct.splits: {name:?} is no split"))
                    .hint("splits are train, dev and test"));
            }
        };
        let path = path.as_ref().ok_or_else(|| {
            Error::usage(format!("data.{name} is not set, but construct.splits names {name}"))
                .hint("set it, or change construct.splits")
        })?;
        let path = context.config.resolve(path);
        let needs = Needs::split(data, name, fields);
        let mut records = data::load(data, &path, &needs)?;
        let total = records.len();
        if let Some(shard) = context.shard {
            let range = shard.range(total);
            records.truncate(range.end);
            records.drain(..range.start);
        }
        let mut contents = method.to_vec();
        contents.push(("source", data::source_hash(&path)?.into()));
        let settings = Fingerprint::new(Stage::Construct, &context.config, &contents)?;
        Ok(Self { name: name.to_owned(), path, records, total, settings })
    }
}
