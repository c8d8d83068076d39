//! JSON Lines: one object a line. A blank line is no record; from then on messages name the line too.

use std::{
    fmt,
    io::{self, BufRead},
};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    storage::reason,
};

use super::{
    ErrorKind,
    row::{Cell, LONGEST, RawRecord, ReadRows, RowProblem, too_long},
};

/// Rows of a JSONL file.
pub(super) struct JsonlRows<R> {
    input: R,
    columns: Vec<String>,
    number: usize,
    /// Blank lines so far.
    blank: usize,
    done: bool,
}

impl<R: BufRead> JsonlRows<R> {
    /// `columns` are the keys wanted; the first is the id's.
    pub fn new(input: R, columns: Vec<String>) -> Self {
        Self { input, columns, number: 0, blank: 0, done: false }
    }

    /// Reads the next line that is a record; whether there is one.
    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        while !self.done {
            line.clear();
            match io::Read::take(&mut self.input, LONGEST as u64 + 1).read_until(b'\n', line) {
                Ok(0) => self.done = true,
                Ok(read) if read > LONGEST => {
                    self.done = true;
                    return Err(too_long(self.number + 1));
                }
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => self.blank += 1,
                Ok(_) => {
                    self.number += 1;
                    return Ok(true);
                }
                Err(error) => {
                    self.done = true;
                    let number = self.number;
                    return Err(Error::data(format!("cannot be read after record {number}: {}", reason(&error))));
                }
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Iterator for JsonlRows<R> {
    type Item = Result<RawRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.read_line(&mut line) {
            Ok(true) if self.number == 1 && goes_on(&line) => {
                self.done = true;
                Some(Err(Error::data("is one JSON document over several lines, not one object a line").hint(
                    "an LCD file, whose records stand under `data`, is read by `--set data.format=lcd`; \
                     `jq -c . FILE > FILE.jsonl` writes each object on a line of its own",
                )))
            }
            Ok(true) => {
                let line_number = (self.blank > 0).then_some(self.number + self.blank);
                Some(Ok(RawRecord {
                    number: self.number,
                    line: line_number,
                    cells: cells_of_object(&line, &self.columns),
                }))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<R: BufRead + Send> ReadRows for JsonlRows<R> {
    fn pass_over(&mut self, count: usize) -> Result<()> {
        let mut line = Vec::new();
        for _ in 0..count {
            if !self.read_line(&mut line)? {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a line ends where a program that indents JSON breaks it: behind a bracket or a comma, inside of the value.
fn goes_on(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    matches!(line.last(), Some(b'{' | b'[' | b','))
        && serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

/// The wanted keys of one JSON object. Shared with the LCD reader. What stands under other keys is skipped, not read:
/// only a field that is used can cost a record.
pub(super) fn cells_of_object(bytes: &[u8], columns: &[String]) -> Result<Vec<Cell>, RowProblem> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(not_utf8(bytes, columns)) };
    if !text.trim_start().starts_with('{') {
        let message =
            serde_json::from_str::<IgnoredAny>(text).map_or_else(|e| describe(&e), |_| "is not a JSON object".into());
        return Err(RowProblem::broken(message));
    }
    let read = |text: &str| {
        let mut json = serde_json::Deserializer::from_str(text);
        let cells = Wanted(columns).deserialize(&mut json)?;
        json.end().map(|()| cells)
    };
    // Python writes NaN and Infinity, which JSON has not.
    read(text)
        .or_else(|error| read(&without_nan(text).ok_or(error)?))
        .map_err(|error| RowProblem::broken(describe(&error)))
}

/// The text with null for each NaN outside of strings, which is how pandas writes what is missing, and for each
/// Infinity a number that no float holds: under a key that is skipped it passes, under one that is read it is an error.
/// `None` where there is neither.
fn without_nan(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside = false;
    let mut found = false;
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "Infinity"].into_iter().find(|word| !inside && rest.starts_with(word));
        let taken = match (word, c) {
            (Some(word), _) => word.len(),
            (None, '\\') if inside => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, c) => c.len_utf8(),
        };
        inside ^= c == '"';
        found |= word.is_some();
        out.push_str(match word {
            Some("NaN") => "null",
            Some(_) => "1e999",
            None => &rest[..taken],
        });
        rest = &rest[taken..];
    }
    found.then_some(out)
}

/// Reads an object into the cells of these columns.
struct Wanted<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Vec<Cell>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Cell>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Vec<Cell>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Cell>, A::Error> {
        let mut cells = vec![Cell::Missing; self.0.len()];
        let mut given = vec![false; self.0.len()];
        while let Some(key) = map.next_key::<Key>()? {
            if !self.0.contains(&key.0) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Read(cell) = map.next_value()?;
            // One column may be two fields (id and group).
            for i in (0..cells.len()).filter(|&i| self.0[i] == key.0) {
                if std::mem::replace(&mut given[i], true) {
                    return Err(serde::de::Error::custom("twice"));
                }
                cells[i].clone_from(&cell);
            }
        }
        Ok(cells)
    }
}

/// An object's key.
#[derive(serde::Deserialize)]
struct Key(String);

/// The value of a wanted key.
struct Read(Cell);

impl<'de> serde::Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadVisitor).map(Read)
    }
}

struct ReadVisitor;

impl<'de> Visitor<'de> for ReadVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Missing)
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Integer(value.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Cell, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other)
    }
}

/// Says where, in words of our own: nothing of the line is repeated.
fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        // The one error that is ours.
        serde_json::error::Category::Data => "a key that is read stands in the object twice".into(),
        serde_json::error::Category::Eof => "broken JSON: the line ends inside the object".into(),
        // A text with a raw line break in it.
        _ if error.column() == 0 => "broken JSON: the line ends inside the object".into(),
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
        Value::Number(id) => (id.is_i64() || id.is_u64()).then(|| id.to_string()),
        _ => None,
    });
    let field = columns.iter().find(|column| value(column).is_some_and(damaged)).cloned();
    RowProblem { kind: ErrorKind::InvalidUtf8, id, field, message: "is not UTF-8".into() }
}
