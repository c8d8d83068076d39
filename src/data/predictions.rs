//! A prediction file as a whole: every line read, every bad one listed.

use std::{ops::Deref, path::Path};

use crate::{
    error::{Error, Result},
    labels::Labels,
    storage,
};

use super::{
    prediction::{Prediction, parse_line},
    problems::{Ids, Problems},
};

const HINT: &str = "a prediction line is a JSON object with at least `id` and `probability` (of more than two classes: \
                    `probabilities`, one for each of task.labels)";

/// The predictions of one file, and which file it was.
#[derive(Default)]
pub struct Predictions {
    /// Its lines, in their order.
    pub all: Vec<Prediction>,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// For each blank line, which is none, how many lines of `all` come before.
    blank: Vec<usize>,
}

impl Predictions {
    /// Reads a prediction file of ours or of another tool; every bad line is listed (exit 3).
    ///
    /// A line needs `id` and, unless it carries an `error`, `probability` (null where a method gives none). Other keys
    /// may be missing; `parsable` then follows from `verbalized_label`, `agreement` from both. Keys of other tools are
    /// ignored, but for these `columns` (`eval.subgroups`): strings or integers, null where a line has none. With more
    /// than two `labels` it is `probabilities` that a line needs; `predicted` follows from them.
    pub fn read(path: &Path, labels: &Labels, columns: &[String]) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|e| Error::data(format!("{}: cannot be read: {}", path.display(), storage::reason(&e))))?;
        Self::parse(path, &bytes, labels, columns)
    }

    /// The same of the file's bytes.
    pub fn parse(path: &Path, bytes: &[u8], labels: &Labels, columns: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        let mut problems = Problems::default();
        let mut ids = Ids::default();
        let mut number = 0;
        let mut blank = Vec::new();
        for line in bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).split_inclusive(|&byte| byte == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                blank.push(number);
                continue;
            }
            number += 1;
            let place = place(number, &blank);
            match parse_line(line, labels, columns) {
                Ok(prediction) => {
                    if let Some(first) = prediction.id.as_ref().and_then(|id| ids.first_with(id, number)) {
                        problems.add(
                            format!("record {place}, field id: the same as record {first}'s"),
                            "each record is predicted once",
                        );
                    }
                    all.push(prediction);
                }
                Err((None, message)) => problems.add(format!("record {place}: {message}"), HINT),
                Err((Some(field), message)) => problems.add(format!("record {place}, field {field}: {message}"), HINT),
            }
        }
        if number == 0 {
            problems.add("holds no prediction".into(), HINT);
        }
        problems.add_absent(columns, all.iter().map(|prediction| &prediction.columns));
        problems.into_result(path, Self { all, blake3: storage::hash_bytes(bytes), blank })
    }

    /// Those of a file of ours.
    pub fn of(all: Vec<Prediction>, blake3: String) -> Self {
        Self { all, blake3, blank: Vec::new() }
    }

    /// How messages name the prediction at `index`.
    pub fn place(&self, index: usize) -> String {
        place(index + 1, &self.blank)
    }
}

/// How messages name record `number` behind so many blank lines.
fn place(number: usize, blank: &[usize]) -> String {
    let before = blank.partition_point(|records| *records < number);
    super::record::place(number, (before > 0).then_some(number + before))
}

impl Deref for Predictions {
    type Target = [Prediction];

    fn deref(&self) -> &[Prediction] {
        &self.all
    }
}
