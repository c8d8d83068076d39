//! The LCD benchmark: `{"data": [{id, text, out_hospital_mortality_30, …}, …]}`, one element in memory at a time.
//!
//! The file is hundreds of megabytes, so it is not parsed as one value: a scanner that knows strings and brackets
//! finds where each element of `data` ends, and only that element is parsed. A document that is broken outside of its
//! elements (two of them, `data` twice, a comma or a bracket that lacks) ends the reading with an error.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use crate::{
    error::{Error, Result},
    storage::reason,
};

use super::{
    jsonl::cells_of_object,
    row::{LONGEST, RawRecord, ReadRows},
};

/// Rows of an LCD file.
pub(super) struct LcdRows<R> {
    input: R,
    columns: Vec<String>,
    number: usize,
    done: bool,
}

/// Why a document cannot be read on.
enum Fault {
    Unreadable(io::Error),
    /// It is no JSON document with one array `data`.
    Broken(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a value has over {} MB", LONGEST >> 20))
}

const ENDS: Fault = Fault::Broken("the file ends inside the document");
const NO_VALUE: Fault = Fault::Broken("a value is no JSON");

impl<R: BufRead> LcdRows<R> {
    /// Reads up to the `[` of `data`.
    pub fn open(input: R, columns: Vec<String>) -> Result<Self> {
        let mut rows = Self { input, columns, number: 0, done: false };
        match rows.find_data() {
            Ok(true) => Ok(rows),
            Ok(false) => Err(Error::data("is not an LCD file: no `data` array")
                .hint("one JSON object a line is `--set data.format=jsonl`")),
            Err(fault) => Err(rows.told(fault)),
        }
    }

    /// The error of a file that cannot be read on.
    fn told(&self, fault: Fault) -> Error {
        let place = match self.number {
            0 => "before the first record".to_owned(),
            number => format!("after record {number}"),
        };
        match fault {
            Fault::Unreadable(error) => Error::data(format!("cannot be read {place}: {}", reason(&error))),
            Fault::Broken(why) => Error::data(format!("broken JSON {place}: {why}"))
                .hint("an LCD file is one JSON document, `{\"data\": [RECORD, …]}`: is it whole, and one file?"),
        }
    }

    /// Walks the outer object's keys; whether it stands behind `"data": [`.
    fn find_data(&mut self) -> Result<bool, Fault> {
        if self.token()? != Some(b'{') {
            return Ok(false);
        }
        let mut next = self.token()?;
        loop {
            if next != Some(b'"') {
                return Ok(false);
            }
            let Some((data, first)) = self.key()? else { return Ok(false) };
            if data && first == b'[' {
                return Ok(true);
            }
            self.other(first)?;
            next = self.token()?;
            if next == Some(b',') {
                next = self.token()?;
            } else if next != Some(b'}') {
                return Ok(false);
            }
        }
    }

    /// A key behind its opening quote, and its colon: whether it is `data`, and the first byte of its value.
    fn key(&mut self) -> Result<Option<(bool, u8)>, Fault> {
        let mut key = vec![b'"'];
        self.string(&mut key)?;
        if self.token()? != Some(b':') {
            return Ok(None);
        }
        Ok(self.token()?.map(|first| (key == br#""data""#, first)))
    }

    /// Reads the value of another key than `data`.
    fn other(&mut self, first: u8) -> Result<(), Fault> {
        let mut value = Vec::new();
        if !self.value(first, &mut value)? {
            return Err(ENDS);
        }
        serde_json::from_slice::<IgnoredAny>(&value).map(drop).map_err(|_| NO_VALUE)
    }

    /// Reads what stands behind the array: other keys, the object's end, nothing more.
    fn finish(&mut self) -> Result<(), Fault> {
        loop {
            match self.token()?.ok_or(ENDS)? {
                b'}' => break,
                b',' => {}
                _ => return Err(Fault::Broken("neither `,` nor `}` behind the `data` array")),
            }
            if self.token()?.ok_or(ENDS)? != b'"' {
                return Err(Fault::Broken("no key behind a comma"));
            }
            let Some((data, first)) = self.key()? else { return Err(Fault::Broken("a key without a value")) };
            if data {
                return Err(Fault::Broken("`data` occurs twice"));
            }
            self.other(first)?;
        }
        if self.token()?.is_some() {
            return Err(Fault::Broken("something follows the document"));
        }
        Ok(())
    }

    /// The next byte, left in place.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(chunk) => return Ok(chunk.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next byte that is not white space, taken.
    fn token(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            self.input.consume(1);
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
        }
        Ok(None)
    }

    /// The rest of a string behind its opening quote; whether it ends. Notes are long, so this goes by chunks.
    fn string(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut escaped = false;
        while self.peek()?.is_some() {
            let chunk = self.input.fill_buf()?;
            let end = chunk.iter().position(|&byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            });
            let used = end.map_or(chunk.len(), |end| end + 1);
            if into.len() + used > LONGEST {
                return Err(too_long());
            }
            into.extend_from_slice(&chunk[..used]);
            self.input.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rest of a value that begins with `first`; whether it ends before the file does.
    fn value(&mut self, first: u8, into: &mut Vec<u8>) -> io::Result<bool> {
        into.push(first);
        let mut depth = 0usize;
        let mut byte = first;
        loop {
            match byte {
                b'"' if !self.string(into)? => return Ok(false),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            let Some(next) = self.peek()? else { return Ok(false) };
            // Outside of brackets a value ends before the separator; a bracketed one ends with its last bracket.
            if depth == 0 && (matches!(byte, b'}' | b']') || matches!(next, b',' | b'}' | b']')) {
                return Ok(true);
            }
            self.input.consume(1);
            if into.len() >= LONGEST {
                return Err(too_long());
            }
            into.push(next);
            byte = next;
        }
    }

    /// The bytes of the next element, counted; `Ok(None)` behind the document's end.
    pub fn element(&mut self) -> Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        let element = self.scan();
        self.done = !matches!(element, Ok(Some(_)));
        if matches!(element, Ok(Some(_))) {
            self.number += 1;
        }
        element.map_err(|fault| self.told(fault))
    }

    fn scan(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut first = self.token()?.ok_or(ENDS)?;
        if first == b']' {
            return self.finish().map(|()| None);
        }
        if self.number > 0 {
            if first != b',' {
                return Err(Fault::Broken("no comma between two records"));
            }
            first = self.token()?.ok_or(ENDS)?;
        }
        if matches!(first, b']' | b',' | b'}' | b':') {
            return Err(Fault::Broken("no record beside a comma"));
        }
        let mut bytes = Vec::new();
        if self.value(first, &mut bytes)? { Ok(Some(bytes)) } else { Err(ENDS) }
    }
}

impl<R: BufRead> Iterator for LcdRows<R> {
    type Item = Result<RawRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.element().transpose()?;
        let number = self.number;
        Some(element.map(|bytes| RawRecord { number, line: None, cells: cells_of_object(&bytes, &self.columns) }))
    }
}

impl<R: BufRead + Send> ReadRows for LcdRows<R> {
    fn pass_over(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            if self.element()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}
