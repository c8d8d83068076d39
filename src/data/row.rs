//! What every reader gives: numbered rows of the wanted columns.

use crate::error::{Error, Result};

use super::ErrorKind;

/// Bytes of a record at most. The longest notes have some megabytes.
pub(super) const LONGEST: usize = 256 << 20;

/// Why a file is not read on behind this record.
pub(super) fn too_long(number: usize) -> Error {
    Error::data(format!("record {number} has over {} MB", LONGEST >> 20))
        .hint("is it a file of records, one a line? Take that one out of it")
}

/// One value of a row.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// Absent or null.
    Missing,
    /// A string.
    Text(String),
    /// An integer.
    Integer(i128),
    /// A decimal, date, time or UUID, as it is written: it can be an id, and a class where it is a whole number.
    Written(String),
    /// A string whose bytes are not UTF-8.
    NotUtf8,
    /// A number with a fraction, a boolean, an array, an object.
    Other,
}

/// Why a row gives no cells at all.
pub(super) struct RowProblem {
    pub kind: ErrorKind,
    pub id: Option<String>,
    pub field: Option<String>,
    pub message: String,
}

impl RowProblem {
    /// A row that is not one record.
    pub fn broken(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidJson, id: None, field: None, message: message.into() }
    }
}

/// The cells of the wanted columns, in the order they were asked for.
pub(super) struct RawRecord {
    /// Position among the records of the file, from 1.
    pub number: usize,
    /// The line it begins on, where its number does not lead there.
    pub line: Option<usize>,
    pub cells: Result<Vec<Cell>, RowProblem>,
}

/// Rows in file order; an error (the file cannot be read on) is the last item.
pub(super) type Rows = Box<dyn ReadRows>;

/// What every reader is.
pub(super) trait ReadRows: Iterator<Item = Result<RawRecord>> + Send {
    /// Passes over the next `count` rows, or those that are left, without reading their cells.
    fn pass_over(&mut self, count: usize) -> Result<()>;
}
