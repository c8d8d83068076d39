//! RFC 4180 with the slack of real files: quoted newlines, CRLF or LF, blank lines skipped, quotes inside bare cells.
//!
//! Strict where slack would lose records silently: text after a closing quote and a row of another width than the
//! header are problems of that record. A quote that never closes ends the reading, for it took all that follows; and so
//! does one out of place in a row that took lines, for they may be records.

use std::io::{self, BufRead};

use crate::{
    error::{Error, Result},
    storage::reason,
};

use super::{
    record::place,
    row::{Cell, LONGEST, RawRecord, ReadRows, RowProblem, too_long},
};

/// Columns of a file at most.
const MOST_COLUMNS: usize = 1 << 16;
/// The problem of a row that the file ends in.
const NEVER_CLOSED: &str = "a quoted cell is never closed";
/// The same where the cell has taken lines that may be records.
const TOOK_LINES: &str = "a quoted cell is never closed, and took the lines behind it";
/// The problem of a row in which a quoted cell ended at a quote that may open another, some records further on.
const MISPLACED: &str = "a quote is out of place in a record of several lines";
/// How cells are quoted.
const QUOTES: &str = "a quoted cell ends in a quote, and a quote within it is doubled: \"a \"\"b\"\" c\"";

/// A row as bytes, and what is wrong with it.
struct RawRow {
    /// The line it begins on, from 1.
    line: usize,
    cells: Vec<Vec<u8>>,
    /// Cells beyond those that are kept, and bytes of those that are.
    more: usize,
    bytes: usize,
    problem: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    CellStart,
    Bare,
    Quoted,
    QuoteInQuoted,
}

/// The reader after its header.
pub(super) struct CsvFile<R> {
    input: R,
    /// A `\r` ended the last row: a `\n` right after it belongs to it.
    after_cr: bool,
    /// The line that the next byte is on, from 1, and whether a `\r` has just begun it.
    line: usize,
    new_line: bool,
    /// Column names.
    pub header: Vec<String>,
}

impl<R: BufRead> CsvFile<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<Self> {
        let mut file = Self { input, after_cr: false, line: 1, new_line: false, header: Vec::new() };
        let row = file.next_row(MOST_COLUMNS).map_err(|e| Error::data(format!("cannot be read: {}", reason(&e))))?;
        let row = row.ok_or_else(|| {
            Error::data("is empty: a CSV file starts with a header").hint("name the columns in the first line")
        })?;
        if row.more > 0 || row.bytes > LONGEST {
            return Err(Error::data(format!("header: it has over {MOST_COLUMNS} columns, or {} MB", LONGEST >> 20))
                .hint("name the columns in the first line"));
        }
        if let Some(problem) = row.problem {
            return Err(Error::data(format!("header: {problem}")).hint(QUOTES));
        }
        let names = row.cells.into_iter().map(|name| String::from_utf8(name).map(|name| name.trim().to_owned()));
        file.header = names
            .collect::<Result<_, _>>()
            .map_err(|_| Error::data("header: is not UTF-8").hint("save the file as UTF-8"))?;
        Ok(file)
    }

    /// The rows, each with the cells of `columns`.
    pub fn rows(self, columns: &[String]) -> CsvRows<R> {
        let places = columns.iter().map(|column| self.header.iter().position(|name| name == column)).collect();
        CsvRows { file: self, places, number: 0, done: false }
    }

    /// One row, blank lines skipped, and of it so many cells; `None` at the end of the file. A row too long ends
    /// where it is.
    fn next_row(&mut self, cells: usize) -> io::Result<Option<RawRow>> {
        let mut builder = RowBuilder::new(cells);
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(builder.end_of_file());
            }
            let mut used = 0;
            let mut ended = false;
            for &byte in chunk {
                used += 1;
                let second_half = std::mem::replace(&mut self.new_line, byte == b'\r') && byte == b'\n';
                if builder.is_blank() {
                    builder.row.line = self.line;
                }
                self.line += usize::from(matches!(byte, b'\r' | b'\n') && !second_half);
                if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                    continue;
                }
                ended = builder.push(byte);
                self.after_cr = byte == b'\r' && builder.state != State::Quoted;
                if ended {
                    break;
                }
            }
            self.input.consume(used);
            if ended || builder.row.bytes > LONGEST {
                return Ok(Some(builder.row));
            }
        }
    }
}

/// A row while its bytes arrive.
struct RowBuilder {
    row: RawRow,
    cell: Vec<u8>,
    state: State,
    /// A quoted cell has taken lines.
    took_lines: bool,
    /// Cells that are kept.
    kept: usize,
}

impl RowBuilder {
    fn new(kept: usize) -> Self {
        let row = RawRow { line: 1, cells: Vec::new(), more: 0, bytes: 0, problem: None };
        Self { row, cell: Vec::new(), state: State::CellStart, took_lines: false, kept }
    }

    fn keep(&mut self, byte: u8) {
        self.row.bytes += 1;
        self.cell.push(byte);
    }

    /// Takes a byte; whether it ended the row.
    fn push(&mut self, byte: u8) -> bool {
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::QuoteInQuoted,
            (State::Quoted, b'\r' | b'\n') => {
                self.keep(byte);
                self.took_lines = true;
            }
            (State::Quoted, _) => self.keep(byte),
            (State::CellStart, b'"') => self.state = State::Quoted,
            (State::QuoteInQuoted, b'"') => {
                self.keep(byte);
                self.state = State::Quoted;
            }
            (_, b',') => self.end_cell(),
            (_, b'\r' | b'\n') if self.is_blank() => {}
            (_, b'\r' | b'\n') => {
                self.end_cell();
                return true;
            }
            (State::QuoteInQuoted, _) => {
                let problem = if self.took_lines { MISPLACED } else { "text follows a closing quote" };
                self.row.problem = Some(problem);
                self.state = State::Bare;
            }
            (State::Bare, b'"') if self.took_lines => self.row.problem = Some(MISPLACED),
            (State::CellStart | State::Bare, _) => {
                self.keep(byte);
                self.state = State::Bare;
            }
        }
        false
    }

    fn end_cell(&mut self) {
        let cell = std::mem::take(&mut self.cell);
        if self.row.cells.len() < self.kept {
            self.row.cells.push(cell);
        } else {
            self.row.more += 1;
        }
        self.state = State::CellStart;
    }

    /// Nothing but the line's end so far.
    fn is_blank(&self) -> bool {
        self.state == State::CellStart && self.row.cells.is_empty()
    }

    /// What the file's end leaves: a last row without a newline, a quote that never closed, or nothing.
    fn end_of_file(mut self) -> Option<RawRow> {
        if self.is_blank() {
            return None;
        }
        if self.state == State::Quoted {
            let took_lines = self.cell.trim_ascii_end().iter().any(|byte| matches!(byte, b'\r' | b'\n'));
            self.row.problem = Some(if took_lines { TOOK_LINES } else { NEVER_CLOSED });
        }
        self.end_cell();
        Some(self.row)
    }
}

/// The line that record `number` begins on, where its number does not lead there: the header is line 1.
fn line(number: usize, row: &RawRow) -> Option<usize> {
    Some(row.line).filter(|line| *line != number + 1)
}

/// Rows of a CSV file.
pub(super) struct CsvRows<R> {
    file: CsvFile<R>,
    places: Vec<Option<usize>>,
    number: usize,
    done: bool,
}

impl<R: BufRead> Iterator for CsvRows<R> {
    type Item = Result<RawRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.raw().transpose()?;
        Some(row.map(|row| RawRecord { number: self.number, line: line(self.number, &row), cells: self.cells(row) }))
    }
}

impl<R: BufRead + Send> ReadRows for CsvRows<R> {
    fn pass_over(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            if self.raw()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl<R: BufRead> CsvRows<R> {
    /// The next row's bytes, counted.
    fn raw(&mut self) -> Result<Option<RawRow>> {
        if self.done {
            return Ok(None);
        }
        let read = self.file.next_row(self.file.header.len());
        self.done = !matches!(read, Ok(Some(_)));
        if matches!(&read, Ok(Some(row)) if row.bytes > LONGEST) {
            self.done = true;
            return Err(too_long(self.number + 1));
        }
        if let Ok(Some(row)) = &read
            && let Some(problem @ (TOOK_LINES | MISPLACED)) = row.problem
        {
            self.done = true;
            let number = self.number + 1;
            let place = place(number, line(number, row));
            let what = match problem {
                MISPLACED => format!("{MISPLACED}: records behind line {} may have been taken into this one", row.line),
                _ => format!("{NEVER_CLOSED}: everything from line {} on was taken into this record", row.line),
            };
            return Err(Error::data(format!("record {place}: {what}")).hint(QUOTES));
        }
        self.number += usize::from(!self.done);
        read.map_err(|error| Error::data(format!("cannot be read after record {}: {}", self.number, reason(&error))))
    }

    fn cells(&self, row: RawRow) -> Result<Vec<Cell>, RowProblem> {
        if let Some(problem) = row.problem {
            return Err(RowProblem::broken(problem));
        }
        let cells = row.cells.len() + row.more;
        let columns = self.file.header.len();
        if cells != columns {
            return Err(RowProblem::broken(format!("has {cells} cells where the header has {columns}")));
        }
        let cell = |place: &Option<usize>| match place {
            None => Cell::Missing,
            Some(place) => String::from_utf8(row.cells[*place].clone()).map_or(Cell::NotUtf8, Cell::Text),
        };
        Ok(self.places.iter().map(cell).collect())
    }
}
