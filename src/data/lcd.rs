//! The LCD benchmark: `{"data": [{id, text, out_hospital_mortality_30, …}, …]}`, one element in memory at a time.
//!
//! The file is hundreds of megabytes, so it is not parsed as one value: a scanner that knows strings and brackets
//! finds where each element of `data` ends, and only that element is parsed.

use std::io::{self, BufRead};

use crate::{
    error::{Error, Result},
    storage::reason,
};

use super::{
    jsonl::cells_of_object,
    row::{ReadRows, Row, RowProblem},
};

/// Rows of an LCD file.
pub(super) struct LcdRows<R> {
    input: R,
    columns: Vec<String>,
    number: usize,
    done: bool,
}

/// An element of `data`.
enum Element {
    /// Its bytes.
    Whole(Vec<u8>),
    /// The file ends inside it.
    Torn,
}

impl<R: BufRead> LcdRows<R> {
    /// Reads up to the `[` of `data`.
    pub fn open(input: R, columns: Vec<String>) -> Result<Self> {
        let mut rows = Self { input, columns, number: 0, done: false };
        match rows.find_data() {
            Ok(true) => Ok(rows),
            Ok(false) => Err(Error::data("is not an LCD file: no `data` array")
                .hint("one JSON object a line is `--set data.format=jsonl`")),
            Err(error) => Err(Error::data(format!("cannot be read: {}", reason(&error)))),
        }
    }

    /// Walks the outer object's keys; whether it stands behind `"data": [`.
    fn find_data(&mut self) -> io::Result<bool> {
        if self.token()? != Some(b'{') {
            return Ok(false);
        }
        loop {
            match self.token()? {
                Some(b',') => continue,
                Some(b'"') => {}
                _ => return Ok(false),
            }
            let mut key = vec![b'"'];
            self.string(&mut key)?;
            if self.token()? != Some(b':') {
                return Ok(false);
            }
            let Some(first) = self.token()? else { return Ok(false) };
            if key == br#""data""# && first == b'[' {
                return Ok(true);
            }
            if !self.value(first, &mut Vec::new())? {
                return Ok(false);
            }
        }
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
            into.push(next);
            byte = next;
        }
    }

    /// The bytes of the next element, counted; `Ok(None)` behind the array's end.
    fn element(&mut self) -> Result<Option<Element>> {
        self.scan().map_err(|error| {
            self.done = true;
            Error::data(format!("cannot be read after record {}: {}", self.number, reason(&error)))
        })
    }

    fn scan(&mut self) -> io::Result<Option<Element>> {
        if self.done {
            return Ok(None);
        }
        let mut first = self.token()?;
        if first == Some(b',') && self.number > 0 {
            first = self.token()?;
        }
        self.number += 1;
        let Some(first) = first else {
            self.done = true;
            return Ok(Some(Element::Torn));
        };
        if first == b']' {
            self.done = true;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        if !self.value(first, &mut bytes)? {
            self.done = true;
            return Ok(Some(Element::Torn));
        }
        Ok(Some(Element::Whole(bytes)))
    }
}

impl<R: BufRead> Iterator for LcdRows<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.element().transpose()?;
        Some(element.map(|element| Row {
            number: self.number,
            line: None,
            cells: match element {
                Element::Whole(bytes) => cells_of_object(&bytes, &self.columns),
                Element::Torn => Err(RowProblem::broken("broken JSON: the file ends inside the `data` array")),
            },
        }))
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
