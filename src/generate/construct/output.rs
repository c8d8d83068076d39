//! From finished records to `<split>.jsonl`, the dropped list and the split's statistics.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Explained, Statistics};
use crate::{
    config::OnFail,
    data::Record,
    error::{Error, Result},
    labels::Labels,
    storage,
};

/// What a finished split leaves beside its records.
pub struct Finished {
    /// Table 7's rows.
    pub statistics: Statistics,
    /// A line of `dropped.jsonl` a record without a kept trial.
    pub dropped: Vec<Value>,
}

/// Writes the split's records in input order: canonical record + `explanation`, `trial`.
///
/// Under [`OnFail::LabelOnly`] a record without a kept trial stays, its explanation null: it trains the CLS loss alone.
pub fn write_split(
    path: &Path,
    split: &str,
    records: &[Record],
    explained: impl Fn(usize) -> Option<Explained>,
    on_fail: OnFail,
    labels: &Labels,
) -> Result<Finished> {
    let mut finished = Finished { statistics: Statistics::new(labels), dropped: Vec::new() };
    let mut bytes = Vec::new();
    for record in records {
        let missing = || Error::run(format!("{}: record {} was never tried", path.display(), record.place()));
        let explained = explained(record.number).ok_or_else(missing)?;
        let label = record.label.ok_or_else(missing)?;
        finished.statistics.add(label, &explained);
        if explained.kept.is_none() {
            finished
                .dropped
                .push(json!({ "split": split, "id": record.id, "label": label, "trials": explained.failures }));
        }
        if explained.kept.is_some() || on_fail == OnFail::LabelOnly {
            line(&mut bytes, record, explained)?;
        }
    }
    storage::write_own_file(path, &bytes)?;
    Ok(finished)
}

/// Appends one record's line.
fn line(bytes: &mut Vec<u8>, record: &Record, explained: Explained) -> Result<()> {
    let mut object: Map<String, Value> = record.to_json();
    let (explanation, trial) = explained.kept.map(|kept| (kept.explanation, kept.trial)).unzip();
    object.insert("explanation".into(), explanation.into());
    object.insert("trial".into(), trial.into());
    serde_json::to_writer(&mut *bytes, &object).map_err(|e| Error::run(format!("cannot write a record: {e}")))?;
    bytes.push(b'\n');
    Ok(())
}
