//! The tasks: which note is in which split, and its label in each task.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{SPLITS, files};
use crate::{
    data::{open::unreadable, problems::Problems},
    error::{Error, Result},
    foreign,
};

/// A task folder's file.
const FILE: &str = "labels.json";
/// The key of a note's split.
const SPLIT: &str = "data_type";
const FORM: &str = "each id has a `data_type` (train, dev, test) and the task's label, 0 or 1, under the task's name";
const AGREE: &str = "tasks that are built together have the same notes in the same splits; build others by themselves";

/// What the tasks say of a note.
pub struct Entry {
    /// Its place in [`SPLITS`].
    pub split: usize,
    /// Its label in each task.
    pub labels: Vec<u8>,
    /// Its place among the notes found.
    pub found: Option<usize>,
}

/// An id, and what stands under it.
type Labelled = (String, Map<String, Value>);

/// All tasks of a build.
pub struct Tasks {
    /// Their names, in the order given.
    pub names: Vec<String>,
    /// Notes by id.
    pub notes: HashMap<String, Entry>,
    /// Path and SHA-1 of each task's file.
    pub files: Vec<(PathBuf, String)>,
}

impl Tasks {
    /// Reads the folders' `labels.json`.
    pub fn read(dirs: &[PathBuf]) -> Result<Self> {
        let mut tasks = Self { names: Vec::new(), notes: HashMap::new(), files: Vec::new() };
        for dir in dirs {
            tasks.add(&file(dir))?;
        }
        Ok(tasks)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let named = |error: Error| error.context(path.display());
        let bytes = foreign::read(path, foreign::LARGE).map_err(|e| named(unreadable(&e)))?;
        let entries = entries(&bytes).map_err(|e| {
            let place = format!("line {}, column {}", e.line(), e.column());
            named(Error::data(format!("is not one JSON object of objects: {place}")).hint(FORM))
        })?;
        let name = entries.first().and_then(|(_, entry)| entry.keys().find(|key| *key != SPLIT)).cloned();
        let name = name.ok_or_else(|| named(Error::data("holds no note with a label").hint(FORM)))?;
        if self.names.contains(&name) {
            return Err(named(Error::data(format!("holds task {} again", foreign::name(&name))))
                .hint("give each --task a folder of its own"));
        }
        let first = self.names.is_empty();
        let mut problems = Problems::default();
        for (number, (id, entry)) in entries.iter().enumerate() {
            let place = format!("record {} ({})", number + 1, foreign::name(id));
            let split = entry.get(SPLIT).and_then(Value::as_str);
            let Some(split) = split.and_then(|split| SPLITS.iter().position(|known| *known == split)) else {
                problems.add(format!("{place}, field {SPLIT}: is not train, dev or test"), FORM);
                continue;
            };
            let label = entry.get(&name).and_then(Value::as_u64).and_then(|label| u8::try_from(label).ok());
            let Some(label) = label.filter(|label| *label < 2) else {
                problems.add(format!("{place}, field {}: is not 0 or 1", foreign::name(&name)), FORM);
                continue;
            };
            if let Some(other) = entry.iter().find(|(key, value)| *key != SPLIT && **key != name && value.is_u64()) {
                problems.add(format!("{place}, field {}: is a second label", foreign::name(other.0)), FORM);
                continue;
            }
            match self.notes.get_mut(id) {
                None if first => {
                    self.notes.insert(id.clone(), Entry { split, labels: vec![label], found: None });
                }
                None => problems.add(format!("{place}: is in no other task"), AGREE),
                Some(note) if note.labels.len() > self.names.len() => {
                    problems.add(format!("{place}: occurs twice"), FORM);
                }
                Some(note) if note.split != split => {
                    let other = SPLITS[note.split];
                    problems.add(format!("{place}, field {SPLIT}: is {other} in another task"), AGREE);
                }
                Some(note) => note.labels.push(label),
            }
        }
        if problems.is_empty() {
            let lacking = self.notes.values().filter(|note| note.labels.len() == self.names.len()).count();
            if lacking > 0 {
                problems.add(format!("lacks {lacking} of the notes of another task"), AGREE);
            }
        }
        self.names.push(name);
        self.files.push((path.to_owned(), files::sha1(&bytes)));
        problems.into_result(path, ())
    }
}

/// The file of a task's folder.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The object's entries as they stand, repeated keys too.
fn entries(bytes: &[u8]) -> Result<Vec<Labelled>, serde_json::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<Labelled>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    let mut json = serde_json::Deserializer::from_slice(bytes);
    let entries = json.deserialize_map(Entries)?;
    json.end().map(|()| entries)
}
