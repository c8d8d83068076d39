//! The benchmark's text of a note, and its id. See [`super`] for the definition.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The constant part of every id.
const SEED: &str = "Landmark Center 401 park drive";
/// Characters of an id.
const ID: usize = 32;

/// White space as Python's `str.isspace`, `str.split` and `\s` have it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The text that the benchmark makes of a note.
pub fn text(note: &str) -> String {
    let mut marked = String::with_capacity(note.len() + note.len() / 8);
    for c in note.replace("&#039;", "'").chars() {
        match c {
            '\n' | '\r' => marked.push_str(" <cr> "),
            '\t' => marked.push(' '),
            '"' => {}
            c => marked.push(c),
        }
    }
    let mut words = String::with_capacity(marked.len());
    for word in without_blanks(&marked).split(is_space).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

/// Without what was blanked out, two or more `_`, and the white space behind it.
fn without_blanks(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("__") {
        kept.push_str(&rest[..at]);
        rest = rest[at..].trim_start_matches('_').trim_start_matches(is_space);
    }
    kept.push_str(rest);
    kept
}

/// The id of the note `note_id` with this cleaned text.
pub fn id(note_id: &str, text: &str) -> String {
    let [a, b, c] = [note_id, text, SEED].map(|part| Sha256::digest(part.as_bytes()));
    let mut digits = String::with_capacity(2 * ID);
    for ((a, b), c) in a.iter().zip(&b).zip(&c) {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{:02x}", a ^ b ^ c);
    }
    let number = digits.trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    format!("0x{number}").chars().take(ID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_becomes_one_line_of_words() {
        for (note, clean) in [
            ("Name:  ___    Unit No:   ___\n \nSex:\tF", "Name: Unit No: <cr> <cr> Sex: F"),
            ("a\r\nb", "a <cr> <cr> b"),
            ("he&#039;s \"well\"", "he's well"),
            ("_ __ _ a_b a__b _\"_ c", "_ _ a_b ab c"),
            // The break behind a blank is white space only until it is marked.
            ("___\nc", "<cr> c"),
            ("a\u{1c}b\u{a0}c\u{200b}d", "a b c\u{200b}d"),
            (" \u{85} ", ""),
        ] {
            assert_eq!(text(note), clean, "{note:?}");
        }
    }

    #[test]
    fn an_id_has_32_characters() {
        let ids: Vec<String> = (0..100).map(|n| id(&format!("{n}-DS-1"), "text")).collect();
        assert!(ids.iter().all(|id| id.len() == 32 && id.starts_with("0x") && &id[2..3] != "0"), "{ids:?}");
    }
}
