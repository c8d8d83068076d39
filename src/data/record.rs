//! One record of a split, whatever file it came from.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

use crate::labels::Class;

/// A document with its label: the canonical form every reader produces.
///
/// `Debug` prints numbers and field names only: a note's text must not reach a log or a panic message.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Unique within its file.
    pub id: String,
    /// Text fields by the name the prompt template uses: `text`, or `claim` and `abstract`, …
    pub fields: BTreeMap<String, String>,
    /// Gold class, where known.
    pub label: Option<Class>,
    /// Gold explanation, where known.
    pub explanation: Option<String>,
    /// What must not be split between train and test (a patient, a trial).
    pub group: Option<String>,
    /// The columns of `eval.subgroups` by name; null where the record has none.
    pub columns: BTreeMap<String, Option<String>>,
    /// Position among the records of its file, from 1.
    pub number: usize,
    /// The line it begins on, where its number does not lead there; see [`place`].
    pub line: Option<usize>,
}

/// How messages name a record: `3`, or `3 (line 5)` where lines that are no record's, or more than one of a record's,
/// come before.
pub fn place(number: usize, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{number} (line {line})"),
        None => number.to_string(),
    }
}

impl Record {
    /// How messages name it.
    pub fn place(&self) -> String {
        place(self.number, self.line)
    }

    /// The text of a field, if the record has it.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The canonical JSON object: `id`, the text fields, `label`, `group` and `explanation` where present.
    ///
    /// A caller (construct) may append keys of its own, such as `trial`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("id".into(), self.id.clone().into());
        for (name, text) in &self.fields {
            object.insert(name.clone(), text.clone().into());
        }
        if let Some(label) = self.label {
            object.insert("label".into(), label.index().into());
        }
        if let Some(group) = &self.group {
            object.insert("group".into(), group.clone().into());
        }
        if let Some(explanation) = &self.explanation {
            object.insert("explanation".into(), explanation.clone().into());
        }
        for (name, value) in &self.columns {
            object.entry(name.clone()).or_insert_with(|| value.clone().into());
        }
        object
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> =
            self.fields.iter().map(|(name, text)| format!("{name} ({} bytes)", text.len())).collect();
        f.debug_struct("Record")
            .field("number", &self.number)
            .field("fields", &fields)
            .field("label", &self.label)
            .field("explained", &self.explanation.is_some())
            .field("grouped", &self.group.is_some())
            .finish_non_exhaustive()
    }
}

/// What is wrong with a record: the `kind` of a prediction line's `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The row is not one record: broken JSON, or a CSV row of another width than the header.
    InvalidJson,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// A text field without a single visible character.
    EmptyText,
    /// A label that is none of the task's classes.
    BadLabel,
    /// A field that is absent, null or not a string.
    MissingField,
    /// A prompt that does not fit the window even without its document, or a word of over 1 MB.
    TooLong,
    /// A text that the tokenizer cannot encode.
    Tokenizer,
    /// Logits that are infinite or NaN.
    NotFinite,
}

impl ErrorKind {
    /// The name written to prediction files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::EmptyText => "empty_text",
            Self::BadLabel => "bad_label",
            Self::MissingField => "missing_field",
            Self::TooLong => "too_long",
            Self::Tokenizer => "tokenizer",
            Self::NotFinite => "not_finite",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        use ErrorKind::*;
        let all = [InvalidJson, InvalidUtf8, EmptyText, BadLabel, MissingField, TooLong, Tokenizer, NotFinite];
        all.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What to do about it, for a `hint:` line.
    pub fn hint(self) -> &'static str {
        match self {
            Self::InvalidJson => {
                "each record must be one JSON object on one line, or a CSV row as wide as the header (RFC 4180 quoting)"
            }
            Self::InvalidUtf8 => "save the file as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`",
            Self::EmptyText => "give the record a text or leave it out of the file",
            Self::BadLabel => {
                "a label is the number of a class, from 0, or its name in task.labels; map another column with \
                `--set data.fields.label=COLUMN`"
            }
            Self::TooLong => "shorten the field, or raise model.max_input_tokens where it is one that is not cut",
            Self::Tokenizer => "the tokenizer has no token for something in that text",
            Self::NotFinite => "weights of adapter, head or base are damaged or too large for their dtype",
            Self::MissingField => "map the field to its column with `--set data.fields.FIELD=COLUMN`",
        }
    }
}

/// A record that could not be read: one line of `predict`'s output, one line of a strict load's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Position among the records of the file, from 1.
    pub record: usize,
    /// The line it begins on, as [`Record::line`].
    pub line: Option<usize>,
    /// The record's id, if that much could be read.
    pub id: Option<String>,
    /// Which rule was broken.
    pub kind: ErrorKind,
    /// The field concerned, if it is one.
    pub field: Option<String>,
    /// What is wrong, without a word of the record.
    pub message: String,
}

impl RecordError {
    /// `record 3, field label: is not an integer`.
    pub fn describe(&self) -> String {
        let place = place(self.record, self.line);
        match &self.field {
            Some(field) => format!("record {place}, field {field}: {}", self.message),
            None => format!("record {place}: {}", self.message),
        }
    }
}
