//! Names of others in our messages: of tensors, keys, columns, tokens. Printed so that a terminal shows them and does
//! not obey them, and no longer than a line.

use std::{borrow::Cow, fmt};

/// Characters of a name that are shown.
const SHOWN: usize = 120;
/// Names of a list that are shown.
const LISTED: usize = 5;

/// A foreign name as a message shows it: control characters escaped, the end of a long one left out.
pub fn name(text: &str) -> String {
    cut(text, SHOWN)
}

/// The first few of several foreign names, and how many there are beyond.
pub fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = all.into_iter();
    let shown: Vec<String> = all.by_ref().take(LISTED).map(name).collect();
    match all.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The message of a library about a foreign file, which may repeat what stands there.
pub fn reason(error: &dyn fmt::Display) -> String {
    cut(error.to_string().lines().next().unwrap_or_default(), 3 * SHOWN)
}

/// A text of several lines for a terminal: everything that one would obey is escaped, but for line breaks.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c != '\n' && is_obeyed(c)) {
        text.chars().fold(String::with_capacity(text.len() + 16), |told, c| push(told, c, c != '\n')).into()
    } else {
        text.into()
    }
}

fn cut(text: &str, most: usize) -> String {
    let shown = text.chars().take(most).fold(String::new(), |told, c| push(told, c, true));
    match text.chars().skip(most).count() {
        0 => shown,
        more => format!("{shown}… ({more} characters more)"),
    }
}

fn push(mut told: String, c: char, escape: bool) -> String {
    if escape && is_obeyed(c) {
        told.extend(c.escape_default())
    } else {
        told.push(c)
    }
    told
}

/// What a terminal does rather than shows: controls, and the marks that turn the direction of a line.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_and_not_obeyed() {
        assert_eq!(name("layers.0\x1b[2J\0é\u{202e}"), "layers.0\\u{1b}[2J\\u{0}é\\u{202e}");
        let long = name(&"x".repeat(1 << 20));
        assert!(long.len() < 200 && long.ends_with("… (1048456 characters more)"), "{long}");
        assert_eq!(names(["a", "b\n"]), "a, b\\n");
        assert_eq!(names(["a"; 7]), "a, a, a, a, a and 2 more");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(printable("a\n\tb\x07"), "a\n\\tb\\u{7}");
        assert!(matches!(printable("plain ü\nlines"), Cow::Borrowed(_)));
    }
}
