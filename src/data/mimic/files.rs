//! The tables of MIMIC: where they lie, CSV or CSV packed by gzip, hashed while they are read.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;
use sha1::{Digest, Sha1};

use crate::{
    data::{
        csv::{CsvFile, CsvRows},
        open::unreadable,
        problems::Problems,
        record::place,
        row::Cell,
    },
    error::{Error, Result, ResultExt},
    foreign,
    signals::{check_interrupted, or_stopped},
};

/// How gzip files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes read at once.
const BUFFER: usize = 1 << 18;

/// A table of a MIMIC folder, packed or not, in the folder itself or in the one below it that PhysioNet has.
pub fn find(dir: &Path, below: &str, table: &str) -> Result<PathBuf> {
    let names = [format!("{table}.csv"), format!("{table}.csv.gz")];
    let places = [dir.to_owned(), dir.join(below)];
    let mut paths = places.iter().flat_map(|place| names.iter().map(|name| place.join(name)));
    paths.find(|path| path.exists()).ok_or_else(|| {
        Error::data(format!("{}: neither {} nor {} is there, or in {below}/", dir.display(), names[0], names[1]))
            .hint("name the unpacked folder of MIMIC-IV-Note 2.2 or of MIMIC-IV, as PhysioNet has it")
    })
}

/// A reader that tells a bar how far it is.
struct Counted(File, ProgressBar);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.inc(read as u64);
        Ok(read)
    }
}

/// A reader that hashes what passes.
struct Hashed(Box<dyn Read>, Rc<RefCell<Sha1>>);

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// A table being read.
pub struct MimicTable {
    path: PathBuf,
    columns: &'static [&'static str],
    rows: CsvRows<BufReader<Hashed>>,
    sha1: Rc<RefCell<Sha1>>,
}

impl MimicTable {
    /// Opens a table whose header has these columns, whatever else it has.
    pub fn open(path: &Path, columns: &'static [&'static str], bar: &ProgressBar) -> Result<Self> {
        let named = |error: Error| error.context(path.display());
        let mut file = foreign::open(path).map_err(|e| named(unreadable(&e)))?;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(2).read_to_end(&mut head).map_err(|e| named(unreadable(&e)))?;
        file.rewind().map_err(|e| named(unreadable(&e)))?;
        let counted = Counted(file, bar.clone());
        let input: Box<dyn Read> =
            if head == GZIP { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
        let sha1 = Rc::new(RefCell::new(Sha1::new()));
        let file = CsvFile::open(BufReader::with_capacity(BUFFER, Hashed(input, Rc::clone(&sha1)))).map_err(named)?;
        let lacking: Vec<&str> = columns
            .iter()
            .filter(|column| file.header.iter().filter(|name| name == column).count() != 1)
            .copied()
            .collect();
        if !lacking.is_empty() {
            return Err(named(Error::data(format!("the header has not one column `{}`", lacking.join("`, `"))))
                .hint("is it the table of MIMIC-IV of this name, as PhysioNet has it?"));
        }
        let names: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let rows = file.rows(&names);
        Ok(Self { path: path.to_owned(), columns, rows, sha1 })
    }

    /// The next row whose cells are text, with the words for its place; what is wrong with others is listed.
    pub fn next(&mut self, problems: &mut Problems) -> Result<Option<(String, Vec<String>)>> {
        loop {
            check_interrupted()?;
            let Some(row) = self.rows.next() else { return Ok(None) };
            let row =
                row.map_err(or_stopped).context(self.path.display()).or_hint("is the file whole? Fetch it again")?;
            let place = format!("record {}", place(row.number, row.line));
            let cells = match row.cells {
                Ok(cells) => cells,
                Err(problem) => {
                    problems.add(format!("{place}: {}", problem.message), WHOLE);
                    continue;
                }
            };
            let named = self.columns.iter().zip(&cells);
            let bad: Vec<_> = named.filter(|(_, cell)| !matches!(cell, Cell::Text(_))).map(|(name, _)| name).collect();
            if bad.is_empty() {
                let text = |cell| if let Cell::Text(text) = cell { text } else { String::new() };
                return Ok(Some((place, cells.into_iter().map(text).collect())));
            }
            bad.iter().for_each(|name| problems.add(format!("{place}, field {name}: is not UTF-8"), WHOLE));
        }
    }

    /// SHA-1 of all that was read, unpacked: of the whole file once [`MimicTable::next`] has come to its end.
    pub fn sha1(&self) -> String {
        hex(&self.sha1.borrow().clone().finalize())
    }
}

const WHOLE: &str = "is it the file that PhysioNet has? Its SHA256SUMS.txt tells";

/// SHA-1 of bytes.
pub fn sha1(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
