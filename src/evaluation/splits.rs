//! Records of the config's splits beside those that are scored: counted, compared, shown.

use std::path::Path;

use crate::{
    config::Config,
    data::{self, Needs, Record},
    error::Result,
    prompt::PromptTemplate,
};

/// The records of a split with these text fields, those that the prompt of what is scored names. Labels may be missing.
pub fn load(config: &Config, path: &Path, fields: &[String]) -> Result<Vec<Record>> {
    let needs = Needs { fields: fields.to_vec(), ..Needs::default() };
    data::load(&config.data, &config.resolve(path), &needs)
}

/// The same of a split that an evaluation can do without. One that is not on this machine is passed over; of one that
/// cannot be read it is told why.
pub fn readable(config: &Config, path: &Path, fields: &[String]) -> Option<Vec<Record>> {
    if !config.resolve(path).exists() {
        return None;
    }
    load(config, path, fields).inspect_err(|error| tracing::warn!("left out of leakage and report: {error}")).ok()
}

/// The text fields that the config's prompt names. Prediction files need no prompt: without one the data format's own.
pub fn fields(config: &Config) -> Vec<String> {
    let template = PromptTemplate::load(&config.resolve(&config.task.prompt));
    template.map(|template| template.fields()).unwrap_or_default()
}
