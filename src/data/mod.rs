//! Records in, predictions out: readers, splits, leakage. Layer 2.

mod leakage;
pub mod prediction;
mod record;

use std::path::Path;

pub use leakage::{LeakageReport, PairLeakage, leakage};
pub use prediction::{Finish, Prediction, PredictionError, read_predictions};
pub use record::{ErrorKind, Record, RecordError};

use crate::{config, error::Result};

/// What a strict [`load`] must find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Text fields every record must have (the fields the prompt names); empty means `text`.
    pub fields: Vec<String>,
    /// Every record must carry a label.
    pub label: bool,
    /// Both classes must occur (the train split).
    pub both_classes: bool,
    /// Records expected, where the config says so.
    pub expect: Option<usize>,
}

impl Needs {
    /// What `split` ("train", "dev" or "test") of this config must hold, for a prompt that names `fields`.
    pub fn split(data: &config::Data, split: &str, fields: &[String]) -> Self {
        let expect = match split {
            "train" => data.expect.train,
            "dev" => data.expect.dev,
            "test" => data.expect.test,
            _ => None,
        };
        Self { fields: fields.to_vec(), label: true, both_classes: split == "train", expect }
    }
}

/// Reads a whole split; every problem of every record is collected before the error (exit 3) is returned.
pub fn load(data: &config::Data, path: &Path, needs: &Needs) -> Result<Vec<Record>> {
    let _ = (data, path, needs);
    todo!()
}

/// Reads a file in canonical form whatever `data.fields` says: what construct wrote.
pub fn load_canonical(path: &Path, needs: &Needs) -> Result<Vec<Record>> {
    load(&config::Data { format: config::DataFormat::Jsonl, ..config::Data::default() }, path, needs)
}

/// Records one at a time, in file order, for `predict`; `-` is stdin.
///
/// The outer error ends the run (the file cannot be read on, an id occurs twice); the inner one is a record's own.
pub type RecordStream = Box<dyn Iterator<Item = Result<Result<Record, RecordError>>> + Send>;

/// Opens `path` for [`RecordStream`]. Labels are optional; `fields` are the text fields the prompt names.
pub fn stream(data: &config::Data, path: &Path, fields: &[String]) -> Result<RecordStream> {
    let _ = (data, path, fields);
    todo!()
}

/// BLAKE3 of a file's bytes, in hex: the identity of an input.
pub fn source_hash(path: &Path) -> Result<String> {
    let _ = path;
    todo!()
}
