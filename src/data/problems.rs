//! Collecting every problem of a file before the one error that lists them.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    path::Path,
};

use crate::error::{Error, Result};

/// Problems listed before "and N more".
const LISTED: usize = 20;

/// The problems of a file: the first few in words, all of them counted.
#[derive(Default)]
pub(super) struct Problems {
    listed: Vec<String>,
    hints: Vec<&'static str>,
    total: usize,
}

impl Problems {
    /// Counts a problem; `message` begins with the record's number.
    pub fn add(&mut self, message: String, hint: &'static str) {
        self.total += 1;
        if self.listed.len() < LISTED {
            self.listed.push(message);
            if !self.hints.contains(&hint) {
                self.hints.push(hint);
            }
        }
    }

    /// Counts each of the columns `carried` (`eval.subgroups`) that no record has a value in: a CSV header would lack
    /// it.
    pub fn add_absent<'a>(
        &mut self,
        carried: &[String],
        records: impl Iterator<Item = &'a BTreeMap<String, Option<String>>>,
    ) {
        let mut absent: Vec<&String> = if self.is_empty() { carried.iter().collect() } else { Vec::new() };
        for columns in records {
            if absent.is_empty() {
                return;
            }
            absent.retain(|name| !matches!(columns.get(*name), Some(Some(_))));
        }
        for name in absent {
            self.add(
                format!("field {name}: no record has it"),
                "`eval.subgroups` names columns of the records: correct it there, or take it out",
            );
        }
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The value, or one error that lists them.
    pub fn into_result<T>(self, path: &Path, value: T) -> Result<T> {
        let path = path.display();
        let lines: Vec<String> = self.listed.iter().map(|problem| format!("{path}, {problem}")).collect();
        let message = match (self.total, self.total - lines.len()) {
            (0, _) => return Ok(value),
            (1, _) => lines.concat(),
            (total, 0) => format!("{path}: {total} problems\n  {}", lines.join("\n  ")),
            (total, more) => format!("{path}: {total} problems\n  {}\n  and {more} more", lines.join("\n  ")),
        };
        Err(Error::data(message).hint(self.hints.join("; ")))
    }
}

/// Ids seen so far, as 128-bit hashes: the one thing a stream remembers of a record.
#[derive(Default)]
pub(super) struct Ids(HashMap<[u8; 16], usize>);

impl Ids {
    /// The number of an earlier record with this id, else remembers it.
    pub fn first_with(&mut self, id: &str, number: usize) -> Option<usize> {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        match self.0.entry(key) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(entry) => {
                entry.insert(number);
                None
            }
        }
    }
}
