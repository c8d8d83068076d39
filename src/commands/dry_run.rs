//! `--dry-run`: a command goes as far as it can without writing: config, records, tokenizer and models' descriptions
//! are opened and checked, and what it would do is printed. What is refused has the exit code that the command itself
//! has.

use serde_json::{Map, Value, json};

use super::{Context, output};
use crate::{
    error::{Error, Result},
    storage,
};

/// What a command would do, in the order it is told.
pub struct DryRunReport(Map<String, Value>);

impl DryRunReport {
    /// The report of `command`, which works in the context's run directory.
    pub fn new(context: &Context, command: &str) -> Self {
        let there = if context.run_dir.is_dir() { "there already" } else { "would be made" };
        Self::of(command).with("run directory", json!(context.run_dir)).with("it is", there)
    }

    /// The report of a `command` that has no run directory.
    pub fn of(command: &str) -> Self {
        Self(Map::new()).with("command", command)
    }

    /// One line more.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Behind the resolved config on stdout as TOML comments; under `--json` as its key `dry_run`.
    pub fn print(self, context: &Context) -> Result<()> {
        if !context.ranks.is_root() {
            return Ok(());
        }
        if context.json {
            return output::write(&document(context, Some(Value::Object(self.0)))?);
        }
        output::line("\n# Dry run: everything above was checked, nothing was written.")?;
        self.0.iter().try_for_each(|(name, value)| {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output::line(&format!("# {name}: {shown}"))
        })
    }
}

/// The resolved config on stdout, as TOML that `--config` reads back, or as JSON.
pub fn print_config(context: &Context) -> Result<()> {
    if !context.ranks.is_root() {
        return Ok(());
    }
    if context.json {
        output::write(&document(context, None)?)
    } else {
        output::write(context.config.to_toml()?.as_bytes())
    }
}

/// The config with the plan as one key more.
fn document(context: &Context, plan: Option<Value>) -> Result<Vec<u8>> {
    let mut config =
        serde_json::to_value(&context.config).map_err(|e| Error::run(format!("cannot print the config: {e}")))?;
    if let Some(plan) = plan {
        config["dry_run"] = plan;
    }
    storage::json(&config)
}
