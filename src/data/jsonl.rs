//! JSON Lines: one object a line; blank lines are not records.

use std::io::BufRead;

use serde_json::Value;

use crate::error::{Error, Result};

use super::{
    ErrorKind,
    row::{Cell, Row, RowProblem},
};

/// Rows of a JSONL file.
pub(super) struct JsonlRows<R> {
    input: R,
    columns: Vec<String>,
    number: usize,
    done: bool,
}

impl<R: BufRead> JsonlRows<R> {
    /// `columns` are the keys wanted; the first is the id's.
    pub fn new(input: R, columns: Vec<String>) -> Self {
        Self { input, columns, number: 0, done: false }
    }
}

impl<R: BufRead> Iterator for JsonlRows<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        while !self.done {
            line.clear();
            match self.input.read_until(b'\n', &mut line) {
                Ok(0) => self.done = true,
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => {
                    self.number += 1;
                    return Some(Ok(Row { number: self.number, cells: cells_of_object(&line, &self.columns) }));
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(Error::data(format!("cannot be read after record {}: {error}", self.number))));
                }
            }
        }
        None
    }
}

/// The wanted keys of one JSON object. Shared with the LCD reader.
pub(super) fn cells_of_object(bytes: &[u8], columns: &[String]) -> Result<Vec<Cell>, RowProblem> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(not_utf8(bytes, columns)) };
    let value: Value = serde_json::from_str(text).map_err(|error| RowProblem::broken(describe(&error)))?;
    // Into `Value` first: serde's "invalid type" message for anything else would quote the value.
    let Value::Object(object) = value else { return Err(RowProblem::broken("is not a JSON object")) };
    Ok(columns.iter().map(|column| object.get(column).map_or(Cell::Missing, cell)).collect())
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => number.as_i64().map_or(Cell::Other, Cell::Integer),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Cell::Other,
    }
}

/// Says where, in words of our own: nothing of the line is repeated.
fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "broken JSON: the line ends inside the object".into(),
        _ => format!("broken JSON near column {}", error.column()),
    }
}

/// Finds id and field of a line with stray bytes, so that its error line can still be matched to its record.
fn not_utf8(bytes: &[u8], columns: &[String]) -> RowProblem {
    let damaged = |value: &Value| value.as_str().is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER));
    let object: Option<Value> = serde_json::from_str(&String::from_utf8_lossy(bytes)).ok();
    let value = |column: &String| object.as_ref().and_then(|object| object.get(column));
    let id = columns.first().and_then(value).filter(|id| !damaged(id)).and_then(|id| match id {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => id.as_i64().map(|id| id.to_string()),
        _ => None,
    });
    let field = columns.iter().find(|column| value(column).is_some_and(damaged)).cloned();
    RowProblem { kind: ErrorKind::InvalidUtf8, id, field, message: "is not UTF-8".into() }
}
