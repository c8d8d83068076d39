//! The two ways to read a file: strictly and whole, or streaming and forgiving.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    config::{self, DataFormat},
    error::{Error, Result, ResultExt},
    foreign,
    labels::Labels,
    signals::{check_interrupted, or_stopped},
    storage,
};

use super::{
    Record, RecordError,
    columns::Columns,
    open::{open, unreadable},
    problems::{Ids, Problems},
    record::place,
    row::Rows,
};

/// What a strict [`load`] must find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Text fields every record must have (the fields the prompt names); empty means `text`.
    pub fields: Vec<String>,
    /// Every record must carry a label.
    pub label: bool,
    /// Every class must occur (the train split).
    pub every_class: bool,
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
        Self { fields: fields.to_vec(), label: true, every_class: split == "train", expect }
    }
}

/// Reads a whole split; every problem of every record is collected before the error (exit 3) is returned.
pub fn load(data: &config::Data, path: &Path, needs: &Needs) -> Result<Vec<Record>> {
    // A split is read more than once.
    foreign::check(path).map_err(|e| unreadable(&e).context(path.display()))?;
    let (columns, rows) = open(data, path, &needs.fields, needs.label)?;
    let mut problems = Problems::default();
    let mut records = Vec::new();
    let mut ids = Ids::default();
    let mut count = 0;
    for row in rows {
        count += 1;
        check_interrupted()?;
        let row = row.context(path.display())?;
        let number = row.number;
        let line = row.line;
        let read = columns.read(row, needs.label);
        let id = match &read {
            Ok(record) => Some(&record.id),
            Err(errors) => errors.first().and_then(|error| error.id.as_ref()),
        };
        if let Some(first) = id.and_then(|id| ids.first_with(id, number)) {
            problems.add(repeated(number, line, first), UNIQUE);
        }
        match read {
            Ok(record) => records.push(record),
            Err(errors) => errors.iter().for_each(|error| problems.add(error.describe(), error.kind.hint())),
        }
    }
    if let Some(expected) = needs.expect.filter(|&expected| expected != count) {
        problems.add(
            format!("holds {count} records, data.expect says {expected}"),
            "is the file complete? `data.expect` holds the counts",
        );
    }
    if count == 0 {
        problems.add("holds no record".into(), "is this the right file?");
    } else if needs.every_class && problems.is_empty() {
        let hint =
            if data.labels.are_two() { "a train split needs both classes" } else { "a train split needs every class" };
        for class in data.labels.classes().filter(|class| !records.iter().any(|record| record.label == Some(*class))) {
            problems.add(format!("field label: no record has class {class}"), hint);
        }
    }
    warn_of_absent(data, path, &records);
    problems.add_absent(&data.carried, records.iter().map(|record| &record.columns));
    problems.into_result(path, records)
}

/// Names each field of `data.fields` that no record has: a column is looked for in a header, but of JSON objects each
/// may lack a key.
fn warn_of_absent(data: &config::Data, path: &Path, records: &[Record]) {
    for (field, column) in &data.fields {
        let has = |record: &Record| match field.as_str() {
            // Told already; and dev and test need no explanations.
            "id" | "label" | "explanation" => true,
            "group" => record.group.is_some(),
            field => record.fields.contains_key(field),
        };
        if !records.is_empty() && !records.iter().any(has) {
            tracing::warn!("{}: no record has a `{column}`, which data.fields.{field} names", path.display());
        }
    }
}

/// Reads a file in canonical form whatever `data.fields` says: what construct wrote of a task with these labels.
pub fn load_canonical(path: &Path, labels: &Labels, needs: &Needs) -> Result<Vec<Record>> {
    let canonical = config::Data { format: DataFormat::Jsonl, labels: labels.clone(), ..config::Data::default() };
    load(&canonical, path, needs)
}

const UNIQUE: &str = "ids must be unique within a file; map another column with `--set data.fields.id=COLUMN`";

fn repeated(number: usize, line: Option<usize>, first: usize) -> String {
    format!("record {}, field id: the same as record {first}'s", place(number, line))
}

/// Records one at a time, in file order, for `predict`.
///
/// The outer error ends the run (the file cannot be read on, an id occurs twice); the inner one is a record's own.
pub type RecordStream = Box<dyn Iterator<Item = Result<Result<Record, RecordError>>> + Send>;

/// Opens `path` (`-` is stdin) for a [`RecordStream`]. Labels are optional; `fields` are the text fields the prompt
/// names.
pub fn stream(data: &config::Data, path: &Path, fields: &[String]) -> Result<RecordStream> {
    stream_after(data, path, fields, 0)
}

/// The same behind the first `skipped` records, which are neither read nor checked: an id that occurs among them and
/// again later is not found.
pub fn stream_after(data: &config::Data, path: &Path, fields: &[String], skipped: usize) -> Result<RecordStream> {
    let (columns, mut rows) = open(data, path, fields, false)?;
    rows.pass_over(skipped).map_err(or_stopped).context(path.display())?;
    Ok(Box::new(Stream { path: path.to_owned(), columns, rows, ids: Ids::default(), ended: false }))
}

struct Stream {
    path: PathBuf,
    columns: Columns,
    rows: Rows,
    ids: Ids,
    ended: bool,
}

impl Iterator for Stream {
    type Item = Result<Result<Record, RecordError>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.rows.next()?.map_err(or_stopped);
        let row = match check_interrupted().and(read) {
            Ok(row) => row,
            Err(error) => {
                self.ended = true;
                return Some(Err(error.context(self.path.display())));
            }
        };
        let number = row.number;
        let line = row.line;
        let item = self.columns.read(row, false).map_err(|errors| errors.into_iter().next());
        let id = match &item {
            Ok(record) => Some(&record.id),
            Err(error) => error.as_ref().and_then(|error| error.id.as_ref()),
        };
        if let Some(first) = id.and_then(|id| self.ids.first_with(id, number)) {
            self.ended = true;
            return Some(Err(
                Error::data(format!("{}, {}", self.path.display(), repeated(number, line, first))).hint(UNIQUE)
            ));
        }
        match item {
            Ok(record) => Some(Ok(Ok(record))),
            Err(error) => error.map(|error| Ok(Err(error))),
        }
    }
}

/// BLAKE3 of a file's bytes, in hex: the identity of an input.
pub fn source_hash(path: &Path) -> Result<String> {
    source_hash_of([path])
}

/// The same of several files, one after another, as of the one file that `cat` makes of them.
pub fn source_hash_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        let add = |file: File| storage::hash_into(&mut hasher, file);
        foreign::open(path).and_then(add).map_err(|e| or_stopped(unreadable(&e).context(path.display())))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
