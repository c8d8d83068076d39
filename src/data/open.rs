//! From a path to rows: which format, which columns.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::Once,
};

use serde::de::IgnoredAny;

use crate::{
    config::{self, DataFormat},
    error::{Error, Result},
    foreign,
    signals::{self, Interruptible, or_stopped},
    storage::reason,
};

use super::{
    columns::{Columns, Layout},
    csv::CsvFile,
    jsonl::JsonlRows,
    lcd::LcdRows,
    parquet::ParquetFile,
    row::{Cell, RawRecord, ReadRows, Rows},
};

/// How LCD files begin, white space aside.
const LCD_START: &[u8] = br#"{"data":["#;
/// How Parquet files begin.
const PARQUET_MAGIC: &[u8] = b"PAR1";
/// The same with a footer that is encrypted.
const ENCRYPTED_PARQUET: &[u8] = b"PARE";
/// How compressed files begin.
const COMPRESSED: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
];
/// Byte order marks of other encodings than UTF-8; UTF-32's begin as UTF-16's do.
const MARKS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];
/// How much of a file is looked at for the `data` array of an LCD document.
const LCD_HEAD: u64 = 1 << 16;
/// The UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

type Input = Box<dyn BufRead + Send>;

/// Opens a record file (`-` is stdin) and resolves its columns. `fields` are the text fields needed.
pub(super) fn open(
    data: &config::Data,
    path: &Path,
    fields: &[String],
    label_required: bool,
) -> Result<(Columns, Rows)> {
    let named = |error: Error| error.context(path.display());
    let (format, head, input) = if path == Path::new("-") {
        let stdin = Interruptible::stdin().map_err(|e| named(unreadable(&e)))?;
        let (head, input) = sniff(Box::new(BufReader::new(stdin))).map_err(|e| or_stopped(named(unreadable(&e))))?;
        (format(data, path, &head), head, input)
    } else {
        let file = signals::open(path).map_err(|e| named(unreadable(&e)))?;
        if foreign::is_endless(file.file(), path) {
            return Err(Error::data(format!("{}: is a device", path.display()))
                .hint("name a .jsonl, .csv, .parquet or .json file, or a pipe"));
        }
        if file.file().metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Error::data(format!("{}: is a directory", path.display()))
                .hint("name a .jsonl, .csv, .parquet or .json file"));
        }
        let (head, input) =
            sniff(Box::new(BufReader::with_capacity(1 << 16, file))).map_err(|e| or_stopped(named(unreadable(&e))))?;
        (format(data, path, &head), head, input)
    };
    let compressed = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name);
    let encoding = MARKS.iter().find(|(mark, _)| head.starts_with(mark)).map(|(_, name)| *name);
    let array = head.iter().find(|byte| !BOM.contains(byte) && !byte.is_ascii_whitespace()) == Some(&b'[');
    match format {
        _ if compressed == Some("zip") => Err(Error::data("is a zip archive")
            .hint("unpack it with `unzip` and name the file in it; save a spreadsheet (.xlsx) as CSV or Parquet")),
        _ if compressed.is_some() => Err(Error::data(format!("is {}-compressed", compressed.unwrap_or_default()))
            .hint("unpack it first, or pipe it: `zcat FILE | clsgen predict --input - …` (zstdcat, bzcat, xzcat)")),
        Some(DataFormat::Jsonl | DataFormat::Auto | DataFormat::Lcd) | None if array => {
            Err(Error::data("is a JSON array, not one object a line")
                .hint("`jq -c '.[]' FILE > FILE.jsonl` writes it as JSON Lines"))
        }
        Some(format) if format != DataFormat::Parquet && head.starts_with(PARQUET_MAGIC) => {
            Err(Error::data("is a Parquet file")
                .hint("name it .parquet and leave data.format out, or set data.format = \"parquet\""))
        }
        _ if encoding.is_some() => {
            let encoding = encoding.unwrap_or_default();
            Err(Error::data(format!("is {encoding}"))
                .hint(format!("`iconv -f {encoding} -t UTF-8 FILE > NEW` writes it as UTF-8")))
        }
        Some(DataFormat::Parquet) if head.starts_with(ENCRYPTED_PARQUET) => {
            Err(Error::data("is an encrypted Parquet file").hint("write it again without encryption"))
        }
        Some(DataFormat::Parquet) if path != Path::new("-") => {
            let file = foreign::open(path).map_err(|e| named(unreadable(&e)))?;
            parquet(data, file, fields, label_required)
        }
        Some(DataFormat::Parquet) => {
            Err(Error::data("Parquet cannot be read from stdin").hint("give the file's path to `--input`"))
        }
        Some(DataFormat::Csv | DataFormat::Clinifact | DataFormat::Clinifact3) => {
            csv(data, input, fields, label_required)
        }
        Some(DataFormat::Lcd) => {
            let columns = Columns::new(data, Layout::Lcd(data.horizon), false, fields);
            lcd(data, path, input, columns.names()).map(|rows| (columns, rows))
        }
        Some(format @ (DataFormat::Jsonl | DataFormat::Auto | DataFormat::EvidenceInference)) => {
            let own = format == DataFormat::EvidenceInference;
            let layout = if own { Layout::EvidenceInference } else { Layout::Canonical };
            let columns = Columns::new(data, layout, false, fields);
            let rows = JsonlRows::new(input, columns.names());
            Ok((columns, Box::new(rows) as Rows))
        }
        None => Err(Error::data("its format cannot be told from name or content").hint(
            "say it with `--set data.format=jsonl` (or csv, parquet, lcd, clinifact, clinifact3, evidence-inference)",
        )),
    }
    .and_then(|(columns, rows)| columns.check().map(|()| (columns, rows)))
    .map_err(named)
}

/// Rows of an LCD file.
fn lcd(data: &config::Data, path: &Path, input: Input, mut names: Vec<String>) -> Result<Rows> {
    let wanted = names.get(1).cloned().unwrap_or_default();
    let others = if data.fields.contains_key("label") { Vec::new() } else { data.horizons_in_doubt.clone() };
    // More cells than `Columns::read` takes.
    let label = names.len();
    names.push("label".into());
    names.extend(others.iter().map(|days| Layout::Lcd(*days).column("label")));
    Ok(Box::new(Lcd { rows: LcdRows::open(input, names)?, path: path.to_owned(), wanted, label, others }))
}

/// Rows of an LCD file, and a warning where a record has its label under the name that other files have it under.
struct Lcd {
    rows: LcdRows<Input>,
    path: PathBuf,
    /// The column of the label.
    wanted: String,
    /// The place of the cell `label`; behind it are the labels of `others`.
    label: usize,
    /// Horizons that may be the model's just as well.
    others: Vec<u32>,
}

impl Lcd {
    /// Refuses (exit 2) a record with the label of another horizon, where nobody said which is the model's.
    fn check_horizon(&self, number: usize, cells: &[Cell]) -> Result<()> {
        let labels = self.others.iter().zip(cells.iter().skip(self.label + 1));
        let days = labels.filter(|(_, cell)| **cell != Cell::Missing).map(|(days, _)| days.to_string());
        let days: Vec<String> = days.collect();
        if days.is_empty() {
            return Ok(());
        }
        Err(Error::usage(format!(
            "record {number}, field label: it has one of {} days, and neither the command nor a run of the model says \
             which horizon the model predicts",
            days.join(" and one of ")
        ))
        .hint("say it: --set data.horizon=30, --set data.horizon=60 or --set data.horizon=90"))
    }
}

impl Iterator for Lcd {
    type Item = Result<RawRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        static TOLD: Once = Once::new();
        let row = self.rows.next();
        if let Some(Ok(RawRecord { number, cells: Ok(cells), .. })) = &row
            && let Err(error) = self.check_horizon(*number, cells)
        {
            return Some(Err(error));
        }
        if let Some(Ok(RawRecord { cells: Ok(cells), .. })) = &row
            && cells.get(1) == Some(&Cell::Missing)
            && cells.get(self.label) != Some(&Cell::Missing)
        {
            TOLD.call_once(|| {
                tracing::warn!(
                    "{}: an LCD file's labels are read from {}, which its records lack; they have a `label`: \
                     --set data.fields.label=label reads it",
                    self.path.display(),
                    self.wanted
                );
            });
        }
        row
    }
}

impl ReadRows for Lcd {
    fn pass_over(&mut self, count: usize) -> Result<()> {
        self.rows.pass_over(count)
    }
}

fn csv(data: &config::Data, input: Input, fields: &[String], label_required: bool) -> Result<(Columns, Rows)> {
    let file = CsvFile::open(input)?;
    let layout = match data.format {
        DataFormat::Clinifact => Layout::Clinifact,
        DataFormat::Clinifact3 => Layout::Clinifact3,
        DataFormat::Auto => Layout::of_header(&file.header, &data.labels),
        _ => Layout::Canonical,
    };
    let columns = Columns::new(data, layout, true, fields);
    columns.check_header(&file.header, label_required)?;
    let rows = file.rows(&columns.names());
    Ok((columns, Box::new(rows)))
}

fn parquet(data: &config::Data, file: File, fields: &[String], label_required: bool) -> Result<(Columns, Rows)> {
    let file = ParquetFile::open(file)?;
    let columns = Columns::new(data, Layout::of_header(&file.header, &data.labels), false, fields);
    columns.check_header(&file.header, label_required)?;
    file.check(&columns.names())?;
    let rows = file.rows(&columns.names());
    Ok((columns, Box::new(rows)))
}

/// Why a file of records, or of answers, cannot be opened or read.
pub(crate) fn unreadable(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::data("no such file")
            .hint("paths are relative to the working directory, those in a config file first to that file's directory"),
        _ => Error::data(format!("cannot be read: {}", reason(error))),
    }
}

/// The configured format, else the extension's, else what the first bytes say.
fn format(data: &config::Data, path: &Path, head: &[u8]) -> Option<DataFormat> {
    match data.format {
        DataFormat::Auto => by_extension(path).or_else(|| match by_content(head, path == Path::new("-")) {
            Some(DataFormat::Jsonl) if is_lcd(path) => Some(DataFormat::Lcd),
            format => format,
        }),
        format => Some(format),
    }
}

fn by_extension(path: &Path) -> Option<DataFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => Some(DataFormat::Jsonl),
        "csv" => Some(DataFormat::Csv),
        "parquet" | "pq" => Some(DataFormat::Parquet),
        _ => None,
    }
}

fn by_content(head: &[u8], stdin: bool) -> Option<DataFormat> {
    let head = head.strip_prefix(BOM).unwrap_or(head);
    let mut dense = head.iter().filter(|byte| !byte.is_ascii_whitespace());
    match dense.clone().next() {
        None => Some(DataFormat::Jsonl),
        Some(b'{') if dense.by_ref().take(LCD_START.len()).eq(LCD_START) => Some(DataFormat::Lcd),
        Some(b'{' | b'[') => Some(DataFormat::Jsonl),
        _ if head.starts_with(PARQUET_MAGIC) => Some(DataFormat::Parquet),
        Some(_) if stdin => Some(DataFormat::Csv),
        Some(_) => None,
    }
}

/// Whether a file is one document whose `data` array has other keys before it. In JSON Lines another line follows a
/// whole object.
fn is_lcd(path: &Path) -> bool {
    // Of a FIFO nobody writes it a second time: even to open it would wait for ever.
    if !path.metadata().is_ok_and(|meta| meta.is_file()) {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LCD_HEAD).read_to_end(&mut head));
    let head = head.strip_prefix(BOM).unwrap_or(&head);
    let mut lines = head.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let whole = lines.next().is_some_and(|line| serde_json::from_slice::<IgnoredAny>(line).is_ok());
    let is_lines = whole && lines.next().is_some();
    read.is_ok() && !is_lines && LcdRows::open(head, Vec::new()).is_ok()
}

/// Reads just enough bytes to tell a format, and gives an input that has them again (without a byte order mark).
fn sniff(mut input: Input) -> io::Result<(Vec<u8>, Input)> {
    let mut head = Vec::new();
    let mut dense = Vec::new();
    // Stops at the first byte that decides: an interactive pipe must not wait for a full buffer.
    let begins = |known: &[u8], bytes: &[u8]| known.len() > bytes.len() && known.starts_with(bytes);
    while COMPRESSED.iter().any(|(magic, _)| begins(magic, &head))
        || begins(BOM, &head)
        || MARKS.iter().any(|(mark, _)| begins(mark, &head))
        || begins(LCD_START, &dense)
        || begins(PARQUET_MAGIC, &dense)
    {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            break;
        }
        head.push(byte[0]);
        if head == BOM {
            dense.clear();
        } else if !byte[0].is_ascii_whitespace() {
            dense.push(byte[0]);
        }
    }
    let rest = Cursor::new(head.strip_prefix(BOM).unwrap_or(&head).to_vec()).chain(input);
    Ok((head, Box::new(rest)))
}
