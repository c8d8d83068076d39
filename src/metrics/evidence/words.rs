//! The words of a text, and what of it stands in quotation marks.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Quotation marks: what opens, and what closes it. Single ones are apostrophes too, and are none here.
const MARKS: [(char, &[char]); 4] = [('"', &['"']), ('“', &['”']), ('„', &['“', '”']), ('«', &['»'])];

/// Letters and digits in a row, with the marks that combine with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// As words are compared: in Unicode's form NFKC, in lower case.
    pub text: String,
    /// Its first code point's place in the text.
    pub start: usize,
    /// The place behind its last.
    pub end: usize,
}

/// Every word; all that is between them counts for nothing.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut all = Vec::new();
    let mut open = String::new();
    let mut end = 0;
    let mut close = |open: &mut String, end: usize| {
        if !open.is_empty() {
            let start = end - open.chars().count();
            all.push(Word { text: open.nfkc().collect::<String>().to_lowercase(), start, end });
            open.clear();
        }
    };
    for letter in text.chars() {
        if letter.is_alphanumeric() || (!open.is_empty() && is_combining_mark(letter)) {
            open.push(letter);
        } else {
            close(&mut open, end);
        }
        end += 1;
    }
    close(&mut open, end);
    all
}

/// What stands between quotation marks, without them, in code points. From left to right a mark that opens goes with
/// the first that closes it on its line; one that nothing closes is none.
pub(super) fn quotes(text: &str) -> Vec<Range<usize>> {
    let letters: Vec<char> = text.chars().collect();
    let mut quotes = Vec::new();
    // Up to where nothing closes a mark: so that a line of many is read once.
    let mut hopeless = [0; MARKS.len()];
    let mut at = 0;
    while at < letters.len() {
        let mark = MARKS.iter().position(|(open, _)| *open == letters[at]).filter(|&mark| hopeless[mark] <= at);
        let Some(mark) = mark else {
            at += 1;
            continue;
        };
        let rest = &letters[at + 1..];
        let ends = |letter: &char| *letter == '\n' || MARKS[mark].1.contains(letter);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        if rest.get(length).is_some_and(|&letter| letter != '\n') {
            quotes.push(at + 1..at + 1 + length);
            at += length + 2;
        } else {
            hopeless[mark] = at + 1 + length;
            at += 1;
        }
    }
    quotes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_by_letters_alone() {
        let texts = |text| words(text).into_iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(texts("Pt's BP 7.5, ＡＢＣ ﬁne"), ["pt", "s", "bp", "7", "5", "abc", "fine"]);
        assert_eq!(texts("caf\u{e9}"), texts("cafe\u{301}"));
        let places: Vec<_> = words("  é-ß9 ").iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(places, [(2, 3), (4, 6)]);
    }

    #[test]
    fn quotes_end_on_their_line() {
        let inside = |text: &str| {
            let letters: Vec<char> = text.chars().collect();
            quotes(text).into_iter().map(|range| letters[range].iter().collect()).collect::<Vec<String>>()
        };
        assert_eq!(inside("a \"b c\" d “e” „f“ «g» 'h'"), ["b c", "e", "f", "g"]);
        assert_eq!(inside("open \" to the end\nand \"closed\" “no\n”"), ["closed"]);
        assert_eq!(inside(&"“".repeat(100_000)), Vec::<String>::new());
    }
}
