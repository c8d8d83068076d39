//! `--against`: other predictions of the records that were scored, whoever made them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Scored, inputs};
use crate::{
    context::Context,
    data::{Prediction, Predictions, display_path},
    error::{Error, Result},
    metrics::AnySample,
};

/// The other predictions, read before any work.
pub struct Against {
    predictions: Predictions,
    /// How messages and titles name their files.
    pub name: String,
}

impl Against {
    /// Reads the files; `None` of none.
    pub fn read(context: &Context, files: &[PathBuf]) -> Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let predictions = Predictions::read(files, &context.config.task.labels, &[])?;
        // Where they lie is no part of a table.
        let names: Vec<PathBuf> = files.iter().filter_map(|file| file.file_name().map(PathBuf::from)).collect();
        let name = display_path(&names).display().to_string();
        Ok(Some(Self { predictions, name }))
    }

    /// The same as the metrics want them: record for record those of `scored`, with their groups.
    ///
    /// # Errors
    /// They are of other records, or know them by another label (exit 3).
    pub fn sample(&self, context: &Context, scored: &Scored) -> Result<AnySample> {
        let others: HashMap<&str, (usize, &Prediction)> = self
            .predictions
            .iter()
            .enumerate()
            .filter_map(|(i, other)| Some((other.id.as_deref()?, (i, other))))
            .collect();
        let missing = |own: &&Prediction| own.id.as_deref().is_none_or(|id| !others.contains_key(id));
        let lacking = scored.predictions.iter().filter(missing).count();
        let more = (others.len() + lacking).saturating_sub(scored.predictions.len());
        if lacking + more > 0 {
            return Err(Error::data(format!(
                "--against {}: not the same records: {lacking} of those scored are not there, {more} others are",
                self.name
            ))
            .hint("predict the same file with both; ids are compared"));
        }
        let mut paired = Vec::with_capacity(scored.predictions.len());
        for own in scored.predictions.iter() {
            let Some((i, other)) = own.id.as_deref().and_then(|id| others.get(id)) else { continue };
            if other.label.is_some_and(|label| own.label.is_some_and(|own| own != label)) {
                return Err(Error::data(format!(
                    "{}, field label: is not that of the record scored",
                    self.predictions.place(*i)
                ))
                .hint("both must be predictions of the same data"));
            }
            paired.push(Prediction { label: own.label, group: own.group.clone(), ..(*other).clone() });
        }
        let paired = Predictions::of(Path::new(&self.name), paired, self.predictions.blake3.clone());
        inputs::sample(&paired, &context.config.task.labels, scored.records.as_deref().map(Vec::as_slice))
    }
}
