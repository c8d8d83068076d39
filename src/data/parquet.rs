//! Apache Parquet through the column readers of the `parquet` crate (no Arrow): only the wanted columns are decoded,
//! a small batch of rows at a time, and strings are checked for UTF-8 here.

use std::{collections::VecDeque, fs::File};

use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    file::{metadata::RowGroupMetaData, reader::FileReader, serialized_reader::SerializedFileReader},
    schema::types::TypePtr,
};

use crate::{
    error::{Error, Result},
    foreign,
    ops::cpu::confined::{self, Limits, Stopped},
};

use super::{
    annotation::{self, Meaning},
    row::{Cell, LONGEST, RawRecord, ReadRows},
};

/// Rows decoded at once.
const BATCH: usize = 64;
/// What reading a footer may take at most.
const FOOTER: Limits = Limits { bytes: 2 << 30, seconds: 60 };
/// What decoding a batch of rows may take at most: a page has 2 GB at most, and mostly one MB.
const PAGES: Limits = Limits { bytes: 6 << 30, seconds: 600 };
/// Seconds that a file without length may take; each of its MB earns it another. A list of two billion elements
/// without bytes of their own stands in six bytes, in a footer or a page's header, and the crate passes over them one
/// by one.
const SECONDS: u64 = 2;
/// Bytes of the texts that are decoded at once, at most: a dictionary gives its longest entry to any number of rows.
const MOST_TEXT: usize = 2 * LONGEST;

/// The file after its footer.
pub(super) struct ParquetFile {
    reader: SerializedFileReader<File>,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Their places among the file's leaf columns.
    leaves: Vec<usize>,
    /// Columns that no field can be read from, and what they are.
    refused: Vec<(String, String)>,
    /// What decoding a batch of its rows may take.
    pages: Limits,
}

impl ParquetFile {
    /// Reads the footer.
    pub fn open(file: File) -> Result<Self> {
        let footer = |stopped| unreadable("its footer", stopped);
        let length = file.metadata().map_err(|_| footer(None))?.len();
        // A footer of some bytes can announce lists of gigabytes.
        let reader = confined::run(limits(FOOTER, length), || SerializedFileReader::new(file).ok())
            .map_err(|stopped| stopped.into_error(|stopped| footer(Some(stopped))))?
            .ok_or_else(|| footer(None))?;
        let pages = limits(PAGES, length);
        let mut found = Self { header: Vec::new(), leaves: Vec::new(), refused: Vec::new(), pages, reader };
        let schema = found.reader.metadata().file_metadata().schema_descr_ptr();
        for (leaf, column) in schema.columns().iter().enumerate() {
            let flat = column.path().parts().len() == 1 && column.max_rep_level() == 0 && column.max_def_level() <= 1;
            let name = column.path().parts().first().cloned().unwrap_or_default();
            let refused = match (flat, Meaning::of(column)) {
                (true, Ok(_)) => unread_codec(&found.reader, leaf),
                (true, Err(what)) => Some(what.to_owned()),
                (false, _) => Some(
                    nested(&schema.root_schema().get_fields().iter().find(|field| field.name() == name)).to_owned(),
                ),
            };
            if !found.header.contains(&name) || flat {
                found.header.push(name.clone());
                found.leaves.push(leaf);
            }
            found.refused.extend(refused.map(|what| (name, what)));
        }
        Ok(found)
    }

    /// Refuses the first of these columns that no field can be read from.
    pub fn check(&self, columns: &[String]) -> Result<()> {
        match self.refused.iter().find(|(name, _)| columns.contains(name)) {
            Some((name, what)) => Err(Error::data(format!("column {} is {what}", foreign::name(name))).hint(
                "a field is text or a number; write that column anew, or map another with `--set \
                    data.fields.FIELD=COLUMN`",
            )),
            None => Ok(()),
        }
    }

    /// The rows, each with the cells of `columns`.
    pub fn rows(self, columns: &[String]) -> ParquetRows {
        let leaf = |column: &String| self.header.iter().position(|name| name == column).map(|place| self.leaves[place]);
        let leaves = columns.iter().map(leaf).collect();
        let decoder = Decoder { reader: self.reader, leaves, group: 0, left: 0, open: Vec::new() };
        ParquetRows { decoder: Some(decoder), limits: self.pages, ready: VecDeque::new(), number: 0 }
    }
}

/// Rows of a Parquet file.
pub(super) struct ParquetRows {
    /// Behind the end of the file, or of what can be read of it, there is none.
    decoder: Option<Decoder>,
    /// Of a batch.
    limits: Limits,
    ready: VecDeque<Vec<Cell>>,
    number: usize,
}

struct Decoder {
    reader: SerializedFileReader<File>,
    /// Leaf column of each wanted column.
    leaves: Vec<Option<usize>>,
    /// The next row group.
    group: usize,
    /// Rows of the open row group that are not decoded yet.
    left: usize,
    open: Vec<Option<OpenColumn>>,
}

struct OpenColumn {
    reader: ColumnReader,
    optional: bool,
    meaning: Meaning,
}

impl Decoder {
    /// Decodes the next batch; nothing at the end of the file.
    fn batch(&mut self) -> parquet::errors::Result<Vec<Vec<Cell>>> {
        if !self.open_group()? {
            return Ok(Vec::new());
        }
        let rows = self.left.min(BATCH);
        let mut batch: Vec<Vec<Cell>> = (0..rows).map(|_| Vec::with_capacity(self.open.len())).collect();
        for column in &mut self.open {
            let cells = match column {
                Some(column) => column.cells(rows)?,
                None => vec![Cell::Missing; rows],
            };
            batch.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
        }
        self.left -= rows;
        Ok(batch)
    }

    /// Passes over rows that are not decoded yet: whole groups by what the footer says of them, the rest by the
    /// decoder's own way. Gives how many there were.
    fn pass(&mut self, count: usize) -> parquet::errors::Result<usize> {
        let mut passed = 0;
        while passed < count {
            while self.left == 0 && self.group < self.reader.num_row_groups() {
                let rows = usize::try_from(self.reader.metadata().row_group(self.group).num_rows());
                let rows = rows.map_err(|_| damage())?;
                if rows > count - passed {
                    break;
                }
                self.group += 1;
                passed += rows;
            }
            if passed == count || !self.open_group()? {
                break;
            }
            let rows = self.left.min(count - passed);
            for column in self.open.iter_mut().flatten() {
                column.pass(rows)?;
            }
            self.left -= rows;
            passed += rows;
        }
        Ok(passed)
    }

    /// Opens the next group that has rows, where the open one has none left; `false` at the end of the file.
    fn open_group(&mut self) -> parquet::errors::Result<bool> {
        while self.left == 0 {
            if self.group == self.reader.num_row_groups() {
                return Ok(false);
            }
            let group = self.reader.get_row_group(self.group)?;
            self.left = usize::try_from(group.metadata().num_rows()).map_err(|_| damage())?;
            self.group += 1;
            // The crate panics on a negative place; this refuses it first.
            let places = group
                .metadata()
                .columns()
                .iter()
                .flat_map(|c| [c.data_page_offset(), c.dictionary_page_offset().unwrap_or(0), c.compressed_size()]);
            if places.into_iter().any(|place| place < 0) {
                return Err(damage());
            }
            let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
            let open = |leaf: &Option<usize>| {
                leaf.map(|leaf| {
                    let column = schema.column(leaf);
                    let meaning = Meaning::of(&column).map_err(|_| damage())?;
                    Ok(OpenColumn {
                        reader: group.get_column_reader(leaf)?,
                        optional: column.max_def_level() > 0,
                        meaning,
                    })
                })
                .transpose()
            };
            self.open = self.leaves.iter().map(open).collect::<parquet::errors::Result<_>>()?;
        }
        Ok(true)
    }
}

impl ParquetRows {
    /// Lets the decoder work, confined: a page of some bytes can announce gigabytes. It may panic on bytes that no
    /// writer would make, and its messages may quote values: both end here.
    fn decode<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Decoder) -> parquet::errors::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
        let worked = confined::run(self.limits, move || work(&mut decoder).ok().map(|value| (decoder, value)));
        let what = || format!("what follows record {}", self.number);
        let (decoder, value) = worked
            .map_err(|stopped| stopped.into_error(|stopped| unreadable(&what(), Some(stopped))))?
            .ok_or_else(|| unreadable(&what(), None))?;
        self.decoder = Some(decoder);
        Ok(Some(value))
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RawRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            match self.decode(Decoder::batch) {
                Ok(batch) => self.ready.extend(batch.unwrap_or_default()),
                Err(error) => return Some(Err(error)),
            }
        }
        let Some(cells) = self.ready.pop_front() else {
            self.decoder = None;
            return None;
        };
        self.number += 1;
        Some(Ok(RawRecord { number: self.number, line: None, cells: Ok(cells) }))
    }
}

impl ReadRows for ParquetRows {
    fn pass_over(&mut self, count: usize) -> Result<()> {
        let decoded = count.min(self.ready.len());
        self.ready.drain(..decoded);
        self.number += decoded;
        self.number += self.decode(move |decoder| decoder.pass(count - decoded))?.unwrap_or_default();
        Ok(())
    }
}

impl OpenColumn {
    /// Passes over the next rows.
    fn pass(&mut self, rows: usize) -> parquet::errors::Result<()> {
        let passed = match &mut self.reader {
            ColumnReader::Int32ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::Int64ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::BoolColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::Int96ColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::FloatColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::DoubleColumnReader(reader) => reader.skip_records(rows),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(rows),
        }?;
        if passed == rows { Ok(()) } else { Err(damage()) }
    }

    fn cells(&mut self, rows: usize) -> parquet::errors::Result<Vec<Cell>> {
        let meaning = self.meaning;
        match &mut self.reader {
            ColumnReader::Int32ColumnReader(reader) => read(reader, self.optional, rows, |value| meaning.int32(value)),
            ColumnReader::Int64ColumnReader(reader) => read(reader, self.optional, rows, |value| meaning.int64(value)),
            ColumnReader::ByteArrayColumnReader(reader) => {
                read(reader, self.optional, rows, |value| meaning.bytes(value.data(), true))
            }
            ColumnReader::BoolColumnReader(reader) => read(reader, self.optional, rows, |_| Cell::Other),
            ColumnReader::Int96ColumnReader(reader) => {
                read(reader, self.optional, rows, |value| annotation::int96(value.data()))
            }
            ColumnReader::FloatColumnReader(reader) => {
                read(reader, self.optional, rows, |value| annotation::float(value.is_nan()))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                read(reader, self.optional, rows, |value| annotation::float(value.is_nan()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                read(reader, self.optional, rows, |value| meaning.bytes(value.data(), false))
            }
        }
    }
}

/// What a column with columns inside is.
fn nested(field: &Option<&TypePtr>) -> &'static str {
    let Some(field) = field else { return "nested" };
    match (field.get_basic_info().logical_type_ref(), field.get_basic_info().converted_type()) {
        (Some(LogicalType::List), _) | (_, ConvertedType::LIST) => "a list",
        (Some(LogicalType::Map), _) | (_, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE) => "a map",
        _ if field.get_basic_info().has_repetition() && field.get_basic_info().repetition() == Repetition::REPEATED => {
            "a list"
        }
        _ => "a struct",
    }
}

/// A column's codec, where this program does not read it.
fn unread_codec(reader: &SerializedFileReader<File>, leaf: usize) -> Option<String> {
    let codec = |group: &RowGroupMetaData| group.columns().get(leaf).map(|column| column.compression());
    let lzo = reader.metadata().row_groups().iter().any(|group| codec(group) == Some(Compression::LZO));
    lzo.then(|| "compressed with LZO, which is not read here".to_owned())
}

/// `rows` cells of one column: nulls are where the definition level says so.
fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    optional: bool,
    rows: usize,
    cell: impl Fn(T::T) -> Cell,
) -> parquet::errors::Result<Vec<Cell>> {
    let mut levels = Vec::with_capacity(rows);
    let mut values = Vec::with_capacity(rows);
    let (read, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if read != rows {
        return Err(damage());
    }
    let mut bytes = 0usize;
    let mut values = values.into_iter().map(|value| {
        let cell = cell(value);
        if let Cell::Text(text) = &cell {
            bytes += text.len();
        }
        (bytes <= MOST_TEXT).then_some(cell)
    });
    let cells = (0..rows)
        .map(|row| if optional && levels.get(row) != Some(&1) { Some(Cell::Missing) } else { values.next().flatten() });
    cells.collect::<Option<_>>().ok_or_else(damage)
}

/// What a file of so many bytes may take of `most`.
fn limits(most: Limits, length: u64) -> Limits {
    Limits { seconds: most.seconds.min(SECONDS + (length >> 20)), ..most }
}

fn unreadable(what: &str, stopped: Option<Stopped>) -> Error {
    match stopped {
        Some(stopped @ (Stopped::Memory | Stopped::Time(_))) => damaged(&format!("{what} {stopped}")),
        _ => damaged(&format!("{what} cannot be read")),
    }
}

fn damage() -> parquet::errors::ParquetError {
    parquet::errors::ParquetError::General("rows are missing".into())
}

fn damaged(what: &str) -> Error {
    Error::data(format!("damaged Parquet file: {what}"))
        .hint("write the file again, without encryption; `parquet-tools` or pandas can check it")
}
