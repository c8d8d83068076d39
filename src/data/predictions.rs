//! Prediction files as a whole: every line read, every bad one listed. Several are read as one, such as the parts that
//! processes under `--shard` wrote.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, Read},
    ops::Deref,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    foreign,
    labels::Labels,
    signals::{self, check_interrupted, or_stopped},
    storage,
};

use super::{
    prediction::{Prediction, parse_line},
    problems::Problems,
};

const HINT: &str = "a prediction line is a JSON object with at least `id` and `probability` (of more than two classes: \
                    `probabilities`, one for each of task.labels)";

/// The predictions of a file, or of several in the order given, and which files they were.
#[derive(Default)]
pub struct Predictions {
    /// Their lines, in their order.
    pub all: Vec<Prediction>,
    /// BLAKE3 of their bytes, one file's after another's: as of the one file that `cat` makes of them.
    pub blake3: String,
    files: Vec<Lines>,
}

/// Where the predictions of one file are.
struct Lines {
    path: PathBuf,
    /// Index of the first of them.
    first: usize,
    /// For each blank line, which is no prediction, how many of the file's come before.
    blank: Vec<usize>,
}

impl Predictions {
    /// Reads prediction files of ours or of another tool; every bad line is listed (exit 3).
    ///
    /// A line needs `id` and, unless it carries an `error`, `probability` (null where a method gives none). Other keys
    /// may be missing; `parsable` then follows from `verbalized_label`, `agreement` from both. Keys of other tools are
    /// ignored, but for these `columns` (`eval.subgroups`): strings or integers, null where a line has none. With more
    /// than two `labels` it is `probabilities` that a line needs; `predicted` follows from them.
    ///
    /// An id occurs once in all files; of several, a file may be empty or lack a column, but not every one.
    pub fn read(paths: &[PathBuf], labels: &Labels, columns: &[String]) -> Result<Self> {
        let mut reader = Reader::new(labels, columns);
        for path in paths {
            if path.is_dir() {
                return Err(Error::data(format!("{}: is a directory", path.display()))
                    .hint("name a file of predictions, one JSON object a line"));
            }
            let opened = signals::open(path).and_then(|mut file| {
                if foreign::is_endless(file.file(), path) {
                    return Err(io::Error::other("it is a device"));
                }
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map(|_| bytes)
            });
            let bytes = opened.map_err(|e| {
                or_stopped(Error::data(format!("{}: cannot be read: {}", path.display(), storage::reason(&e))))
            })?;
            reader.add(path, &bytes)?;
        }
        reader.finish(&display_path(paths))
    }

    /// The same of the bytes of one file.
    pub fn parse(path: &Path, bytes: &[u8], labels: &Labels, columns: &[String]) -> Result<Self> {
        let mut reader = Reader::new(labels, columns);
        reader.add(path, bytes)?;
        reader.finish(path)
    }

    /// Those of a file of ours.
    pub fn of(path: &Path, all: Vec<Prediction>, blake3: String) -> Self {
        Self { all, blake3, files: vec![Lines { path: path.to_owned(), first: 0, blank: Vec::new() }] }
    }

    /// How messages name the prediction at `index`: its file, its number there.
    pub fn place(&self, index: usize) -> String {
        match self.files.partition_point(|file| file.first <= index).checked_sub(1) {
            Some(file) => self.files[file].named(index - self.files[file].first + 1),
            None => format!("record {}", index + 1),
        }
    }
}

impl Lines {
    fn named(&self, number: usize) -> String {
        format!("{}, record {}", self.path.display(), self.place(number))
    }

    fn place(&self, number: usize) -> String {
        let before = self.blank.partition_point(|records| *records < number);
        super::record::place(number, (before > 0).then_some(number + before))
    }
}

impl Deref for Predictions {
    type Target = [Prediction];

    fn deref(&self) -> &[Prediction] {
        &self.all
    }
}

/// Reads file after file.
struct Reader<'a> {
    labels: &'a Labels,
    columns: &'a [String],
    read: Predictions,
    hasher: blake3::Hasher,
    /// Where each id is first: the file, the record's number there.
    ids: HashMap<String, (usize, usize)>,
}

impl<'a> Reader<'a> {
    fn new(labels: &'a Labels, columns: &'a [String]) -> Self {
        Self { labels, columns, read: Predictions::default(), hasher: blake3::Hasher::new(), ids: HashMap::new() }
    }

    /// The lines of a file, all of them sound (exit 3).
    fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        let mut problems = Problems::default();
        // A line that is bad has a number too.
        let mut number = 0;
        self.read.files.push(Lines { path: path.to_owned(), first: self.read.all.len(), blank: Vec::new() });
        let file = self.read.files.len() - 1;
        for line in bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).split_inclusive(|&byte| byte == b'\n') {
            let lines = &mut self.read.files[file];
            if line.iter().all(u8::is_ascii_whitespace) {
                lines.blank.push(number);
                continue;
            }
            number += 1;
            check_interrupted()?;
            let place = lines.place(number);
            match parse_line(line, self.labels, self.columns) {
                Ok(prediction) => {
                    if let Some(first) = self.first_with(prediction.id.as_deref(), (file, number)) {
                        problems.add(
                            format!("record {place}, field id: the same as {first}'s"),
                            "each record is predicted once",
                        );
                    }
                    self.read.all.push(prediction);
                }
                Err((None, message)) => problems.add(format!("record {place}: {message}"), HINT),
                Err((Some(field), message)) => problems.add(format!("record {place}, field {field}: {message}"), HINT),
            }
        }
        problems.into_result(path, ())
    }

    /// How a message at `place` (file, number) names the record that has this id already; else this one has it.
    fn first_with(&mut self, id: Option<&str>, place: (usize, usize)) -> Option<String> {
        match self.ids.entry(id?.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(place);
                None
            }
            Entry::Occupied(first) => {
                let (file, number) = *first.get();
                let lines = &self.read.files[file];
                let same = file == place.0;
                Some(if same { format!("record {}", lines.place(number)) } else { lines.named(number) })
            }
        }
    }

    /// All of them, under one name: there must be one, and each column must have a value.
    fn finish(mut self, name: &Path) -> Result<Predictions> {
        let mut problems = Problems::default();
        if self.read.all.is_empty() {
            let holds = if self.read.files.len() == 1 { "holds" } else { "hold" };
            problems.add(format!("{holds} no prediction"), HINT);
        }
        problems.add_absent(self.columns, self.read.all.iter().map(|prediction| &prediction.columns));
        self.read.blake3 = self.hasher.finalize().to_hex().to_string();
        problems.into_result(name, self.read)
    }
}

/// The files' names, for a title or a message: of many the first and the last.
#[must_use]
pub fn display_path(paths: &[PathBuf]) -> PathBuf {
    match paths {
        [] => PathBuf::new(),
        [path] => path.clone(),
        [first, .., last] => format!("{} … {} ({} files)", first.display(), last.display(), paths.len()).into(),
    }
}
