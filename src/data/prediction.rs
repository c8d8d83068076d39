//! A line of a prediction file: written by us, read from any tool.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;

use super::RecordError;

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// A stop token was written.
    Stop,
    /// The token budget ran out.
    Length,
}

/// What went wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PredictionError {
    /// One of [`super::ErrorKind`]'s names.
    pub kind: String,
    /// A sentence without text of the record.
    pub message: String,
}

/// One line, its keys in this order. An error line carries every key as null, plus `record`.
#[derive(Clone, PartialEq, Default, Serialize)]
pub struct Prediction {
    /// The record's id; null only when an error line's id could not be read.
    pub id: Option<String>,
    /// Gold class, where known.
    pub label: Option<u8>,
    /// softmax(logits)[1].
    pub probability: Option<f64>,
    /// The calibrator's probability, under `--calibrated`.
    pub calibrated_probability: Option<f64>,
    /// The head's two raw logits.
    pub logits: Option<[f64; 2]>,
    /// The class the generated text names.
    pub verbalized_label: Option<u8>,
    /// Whether the text named a class.
    pub parsable: Option<bool>,
    /// The explanation in the text.
    pub explanation: Option<String>,
    /// The raw generated text.
    pub text: Option<String>,
    /// (probability ≥ 0.5) == verbalized label.
    pub agreement: Option<bool>,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the document that did not fit.
    pub truncated_tokens: Option<usize>,
    /// Tokens written, the stop token included.
    pub generated_tokens: Option<usize>,
    /// Why generation ended.
    pub finish: Option<Finish>,
    /// What went wrong, on an error line.
    pub error: Option<PredictionError>,
    /// Position of a bad record in its file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<usize>,
    /// Group of the record, if a file of another tool names it; never written.
    #[serde(skip)]
    pub group: Option<String>,
}

impl Prediction {
    /// The line of a record that could not be read.
    pub fn from_error(error: &RecordError) -> Self {
        Self {
            id: error.id.clone(),
            error: Some(PredictionError { kind: error.kind.as_str().into(), message: error.describe() }),
            record: Some(error.record),
            ..Self::default()
        }
    }

    /// The JSON object of this line, without its newline.
    pub fn to_line(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| crate::error::Error::run(format!("prediction cannot be written as JSON: {e}")))
    }
}

/// Reads a prediction file of ours or of another tool; every bad line is listed (exit 3).
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>> {
    let _ = path;
    todo!()
}
