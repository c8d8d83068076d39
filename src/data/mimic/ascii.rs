//! JSON as Python's `json.dump(…, indent=2)` writes it: ASCII, indented by two.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{Formatter, PrettyFormatter},
};

use crate::error::{Error, Result};

/// serde_json's indentation, with every character outside of printable ASCII escaped.
#[derive(Default)]
struct Ascii(PrettyFormatter<'static>);

impl Formatter for Ascii {
    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }

    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }

    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| !matches!(c, ' '..='~')) {
            w.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(w, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        w.write_all(&fragment.as_bytes()[plain..])
    }
}

/// A value as it stands at this depth of a document, without the indentation of its first line.
pub fn indented(value: &impl Serialize, depth: usize) -> Result<Vec<u8>> {
    let mut flush = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut flush, Ascii::default()))
        .map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    let mut bytes = Vec::with_capacity(flush.len() + 64);
    // A line break inside of a string is escaped: each one here begins a line of the document.
    for byte in flush {
        bytes.push(byte);
        if byte == b'\n' {
            bytes.resize(bytes.len() + 2 * depth, b' ');
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_python_does() {
        let value = serde_json::json!({ "a": "é\u{7f}\u{1f600}\u{1}\n\"\\/", "b": [], "c": {} });
        let told = String::from_utf8(indented(&value, 1).unwrap()).unwrap();
        let python =
            "{\n    \"a\": \"\\u00e9\\u007f\\ud83d\\ude00\\u0001\\n\\\"\\\\/\",\n    \"b\": [],\n    \"c\": {}\n  }";
        assert_eq!(told, python);
    }
}
