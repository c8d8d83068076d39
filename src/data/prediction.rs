//! A line of a prediction file: written by us, read from any tool.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    labels::{Class, Labels},
    metrics::evidence::Evidence,
};

use super::{ErrorKind, Record, RecordError};

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub label: Option<Class>,
    /// softmax(logits)[1]; null where there are more classes than two.
    pub probability: Option<f64>,
    /// The calibrator's probability, under `--calibrated`.
    pub calibrated_probability: Option<f64>,
    /// The head's raw logits, one a class.
    pub logits: Option<Vec<f64>>,
    /// What a line of a task of more than two classes has besides.
    #[serde(flatten)]
    pub over_classes: Option<OverClasses>,
    /// The class the generated text names.
    pub verbalized_label: Option<Class>,
    /// Whether the text named a class.
    pub parsable: Option<bool>,
    /// The explanation in the text.
    pub explanation: Option<String>,
    /// What of the explanation stands in the record, under `generate.evidence`, which the outer `Some` says; null
    /// without an explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Option<Vec<Evidence>>>,
    /// The raw generated text.
    pub text: Option<String>,
    /// Whether the head's class (of two: 1 where probability ≥ 0.5) is the verbalized one.
    pub agreement: Option<bool>,
    /// Group of the record (a patient, a trial): what intervals are clustered by.
    pub group: Option<String>,
    /// The columns of `eval.subgroups`, each a key of its own in the line.
    #[serde(flatten)]
    pub columns: BTreeMap<String, Option<String>>,
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
}

/// The head's answer over K > 2 classes, each key null on an error line.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct OverClasses {
    /// softmax(logits), K numbers.
    pub probabilities: Option<Vec<f64>>,
    /// softmax(logits / temperature), under `--calibrated`.
    pub calibrated_probabilities: Option<Vec<f64>>,
    /// The class of the largest probability, the lowest of those that share it.
    pub predicted: Option<Class>,
}

impl PredictionError {
    /// The error that ends a command which cannot go on without this record: exit 1 where the model is at fault, else
    /// 3.
    pub fn fatal(&self) -> Error {
        let kind = ErrorKind::named(&self.kind);
        let error =
            if kind == Some(ErrorKind::NotFinite) { Error::run(&self.message) } else { Error::data(&self.message) };
        match kind {
            Some(kind) => error.hint(kind.hint()),
            None => error,
        }
    }
}

impl Prediction {
    /// The line of a record that could not be read, of a task with these labels.
    pub fn from_error(error: &RecordError, labels: &Labels) -> Self {
        Self {
            over_classes: (!labels.are_two()).then(OverClasses::default),
            id: error.id.clone(),
            error: Some(PredictionError { kind: error.kind.as_str().into(), message: error.describe() }),
            record: Some(error.record),
            ..Self::default()
        }
    }

    /// What the head's classes are scored by: of two, class 1's probability alone; of more, each class's.
    pub fn scores(&self) -> Option<&[f64]> {
        match &self.over_classes {
            Some(over) => over.probabilities.as_deref(),
            None => self.probability.as_ref().map(std::slice::from_ref),
        }
    }

    /// The class that the head calls: of two, class 1 where its probability is at least 0.5.
    pub fn called(&self) -> Option<Class> {
        match &self.over_classes {
            Some(over) => over.predicted,
            None => self.probability.map(Class::of_probability),
        }
    }

    /// The class that its text names; none where the text is not parsable, whatever the line says of a class.
    pub fn parsed_label(&self) -> Option<Class> {
        self.verbalized_label.filter(|_| self.parsable != Some(false))
    }

    /// Gives the line every one of these columns: null where nothing is known.
    pub fn carry(&mut self, columns: &[String]) {
        for name in columns {
            self.columns.entry(name.clone()).or_default();
        }
    }

    /// Takes group and columns from the record that was predicted, where the line lacks them.
    pub fn complete(&mut self, record: &Record) {
        self.group = self.group.take().or_else(|| record.group.clone());
        self.columns.clone_from(&record.columns);
    }

    /// Reads back the line of a prediction, of a task with these labels and with these columns.
    pub fn from_line(line: &[u8], labels: &Labels, columns: &[String]) -> Result<Self> {
        parse_line(line, labels, columns).map_err(|(_, message)| Error::data(message))
    }

    /// The JSON object of this line, without its newline.
    pub fn to_line(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| crate::error::Error::run(format!("prediction cannot be written as JSON: {e}")))
    }
}

/// Prints what is present, never a text.
impl fmt::Debug for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prediction")
            .field("label", &self.label)
            .field("probability", &self.probability)
            .field("verbalized_label", &self.verbalized_label)
            .field("finish", &self.finish)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// The field at fault, if it is one, and a message without text of the line.
pub(super) type Fault = (Option<String>, &'static str);

/// A line of a prediction file; see [`Predictions::read`](super::Predictions::read).
pub(super) fn parse_line(bytes: &[u8], labels: &Labels, columns: &[String]) -> Result<Prediction, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| (None, "is not UTF-8"))?;
    let value: Value = serde_json::from_str(text).map_err(|_| (None, "broken JSON"))?;
    let Value::Object(object) = value else { return Err((None, "is not a JSON object")) };
    let keys = Keys { object: &object, labels };
    let error = keys.error()?;
    let probability = keys.probability("probability")?;
    let id = keys.identifier("id")?;
    if labels.are_two() && object.get("probabilities").and_then(Value::as_array).is_some_and(|p| p.len() > 2) {
        return Err((Some("probabilities".into()), "is of more classes than task.labels names"));
    }
    if error.is_none() {
        // Null says that a method gives no probability; absence says that this is not a prediction file.
        let key = if labels.are_two() { "probability" } else { "probabilities" };
        object.contains_key(key).then_some(()).ok_or((Some(key.into()), "is missing"))?;
        id.as_ref().ok_or((Some("id".into()), "is missing"))?;
    }
    let verbalized_label = keys.class("verbalized_label")?;
    let text = keys.string("text")?;
    // Neither text nor label: no text was asked for, or another tool kept none.
    let written = error.is_none() && (text.is_some() || verbalized_label.is_some());
    let parsable = keys.boolean("parsable")?.or_else(|| written.then_some(verbalized_label.is_some()));
    let mut prediction = Prediction {
        id,
        label: keys.class("label")?,
        probability,
        calibrated_probability: keys.probability("calibrated_probability")?,
        logits: keys.logits()?,
        over_classes: if labels.are_two() { None } else { Some(keys.over_classes()?) },
        verbalized_label,
        parsable,
        explanation: keys.string("explanation")?,
        evidence: keys.evidence()?,
        text,
        agreement: keys.boolean("agreement")?,
        group: keys.identifier("group")?,
        columns: columns.iter().map(|name| Ok((name.clone(), keys.identifier(name)?))).collect::<Result<_, Fault>>()?,
        prompt_tokens: keys.count("prompt_tokens")?,
        truncated_tokens: keys.count("truncated_tokens")?,
        generated_tokens: keys.count("generated_tokens")?,
        finish: match object.get("finish").and_then(Value::as_str) {
            Some("stop") => Some(Finish::Stop),
            Some("length") => Some(Finish::Length),
            _ => None,
        },
        error,
        record: keys.count("record")?,
    };
    let agreement = || Some(prediction.called()? == prediction.parsed_label()?);
    prediction.agreement = prediction.agreement.or_else(agreement);
    Ok(prediction)
}

/// Typed access to the keys of a line; absent and null are the same.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    labels: &'a Labels,
}

impl Keys<'_> {
    fn typed<T>(&self, key: &str, what: &'static str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, Fault> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| (Some(key.to_owned()), what)),
        }
    }

    fn string(&self, key: &str) -> Result<Option<String>, Fault> {
        self.typed(key, "is not a string", |value| value.as_str().map(String::from))
    }

    /// A string or an integer; a blank one says that there is none, as in a file of records.
    fn identifier(&self, key: &str) -> Result<Option<String>, Fault> {
        let read = |value: &Value| {
            value.as_str().map(String::from).or_else(|| (value.is_i64() || value.is_u64()).then(|| value.to_string()))
        };
        Ok(self.typed(key, "is not a string or an integer", read)?.filter(|name| !name.trim().is_empty()))
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.typed(key, "is not true or false", Value::as_bool)
    }

    fn class(&self, key: &str) -> Result<Option<Class>, Fault> {
        let what = if self.labels.are_two() { "is not 0, 1 or null" } else { "is not the number of a class or null" };
        self.typed(key, what, |value| {
            value.as_u64().and_then(|class| usize::try_from(class).ok()).and_then(|class| self.labels.class(class))
        })
    }

    fn probability(&self, key: &str) -> Result<Option<f64>, Fault> {
        self.typed(key, "is not a number from 0 to 1", |value| value.as_f64().filter(|p| (0.0..=1.0).contains(p)))
    }

    fn count(&self, key: &str) -> Result<Option<usize>, Fault> {
        self.typed(key, "is not a whole number", |value| value.as_u64().and_then(|count| usize::try_from(count).ok()))
    }

    fn evidence(&self) -> Result<Option<Option<Vec<Evidence>>>, Fault> {
        let what = "is not a list of {field, start, end, explanation_start, explanation_end, quoted, words, found}, \
                    with found up to words";
        let possible = |all: &Vec<Evidence>| all.iter().all(|one| one.found <= one.words);
        let read = |value: &Value| serde_json::from_value(value.clone()).ok().filter(possible);
        self.object.get("evidence").map(|_| self.typed("evidence", what, read)).transpose()
    }

    fn logits(&self) -> Result<Option<Vec<f64>>, Fault> {
        let two = self.labels.are_two();
        let what = if two { "is not a list of two numbers" } else { "is not a list of one number a class" };
        self.typed("logits", what, |value| self.of_classes(value, |_| true))
    }

    fn over_classes(&self) -> Result<OverClasses, Fault> {
        let what = "is not a list of one number from 0 to 1 a class";
        let shares = |key| self.typed(key, what, |value| self.of_classes(value, |p| (0.0..=1.0).contains(&p)));
        let probabilities = shares("probabilities")?;
        let calibrated_probabilities = shares("calibrated_probabilities")?;
        // As far as three decimals each can tell.
        let tolerance = 1e-3 * self.labels.count() as f64;
        if probabilities.as_ref().is_some_and(|p| (p.iter().sum::<f64>() - 1.0).abs() > tolerance) {
            return Err((Some("probabilities".into()), "do not add up to 1"));
        }
        let largest = probabilities.as_ref().map(|p| Class::of_largest(p.iter().copied()));
        let predicted = self.class("predicted")?.or(largest);
        if largest.is_some() && predicted != largest {
            return Err((Some("predicted".into()), "is not the class of the largest probability"));
        }
        Ok(OverClasses { probabilities, calibrated_probabilities, predicted })
    }

    /// A list of one number a class.
    fn of_classes(&self, value: &Value, fits: impl Fn(f64) -> bool) -> Option<Vec<f64>> {
        let numbers: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
        (numbers.len() == self.labels.count() && numbers.iter().all(|&number| fits(number))).then_some(numbers)
    }

    fn error(&self) -> Result<Option<PredictionError>, Fault> {
        self.typed("error", "is not null or {kind, message}", |value| {
            let part = |key: &str| value.get(key).and_then(Value::as_str).map(String::from);
            match value {
                Value::String(message) => Some(PredictionError { kind: "error".into(), message: message.clone() }),
                _ => Some(PredictionError { kind: part("kind")?, message: part("message").unwrap_or_default() }),
            }
        })
    }
}
