//! The line that names the class, `Classification: <label>`: written, found, and opened in this one place
//! (the prompt file's `verdict` may name another line).
//!
//! ```text
//! {explanation}
//!                                blank line
//! Classification: 1:death        the verdict: opening "Classification:", ending " 1:death"
//!                                blank line
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    labels::{Class, Labels},
};

/// The paper's verdict line, as a prompt file writes it.
pub const DEFAULT: &str = "Classification: {label}";

/// How a verdict line is written: words, then the label to the end of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What stands before the label, the blank before it included.
    key: String,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { key: DEFAULT.trim_end_matches("{label}").to_owned() }
    }
}

/// What a generation says. Unparsable text leaves both `None`; parsable text has both.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The text before the verdict line, trimmed, without one leading prefix.
    pub explanation: Option<String>,
    /// The class that the verdict line names.
    pub label: Option<Class>,
}

impl Parsed {
    /// Whether there was a verdict with an explanation before it.
    pub fn parsable(&self) -> bool {
        self.label.is_some()
    }
}

impl std::fmt::Debug for Parsed {
    /// No text: an explanation quotes its record.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parsed")
            .field("label", &self.label)
            .field("explanation_bytes", &self.explanation.as_ref().map(String::len))
            .finish()
    }
}

impl Verdict {
    /// The line that `line` describes: words, then `{label}` and nothing more (exit 2 otherwise).
    pub fn new(line: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Err(Error::usage(format!("key verdict {what}")).hint(format!("the paper's line is {DEFAULT:?}")))
        };
        let Some(key) = line.strip_suffix("{label}") else {
            return wrong("must be one line that ends in `{label}`");
        };
        if key.contains(['\n', '\r']) || key.contains("{label}") || key.trim_start() != key {
            return wrong("must be one line, without a blank at its start, with `{label}` once at its end");
        }
        if key.trim().is_empty() {
            return wrong("needs words before `{label}`: a label alone on a line may be part of an explanation");
        }
        Ok(Self { key: key.to_owned() })
    }

    /// A line of `key` and then the label: what somebody else's prompt asks for. Nothing is checked: lines are trimmed
    /// before they are read, so that a `key` with a blank at its start is never found.
    pub fn after(key: &str) -> Self {
        Self { key: key.to_owned() }
    }

    /// The line for a label, without its line break.
    pub fn line(&self, label: &str) -> String {
        format!("{}{label}", self.key)
    }

    /// The line as a prompt file writes it.
    pub fn template(&self) -> String {
        self.line("{label}")
    }

    /// What is learned: explanation, blank line, verdict, blank line.
    pub fn response(&self, explanation: &str, label: &str) -> String {
        format!("{explanation}{}", self.closing(label))
    }

    /// What follows an explanation.
    pub fn closing(&self, label: &str) -> String {
        format!("\n\n{}\n\n", self.line(label))
    }

    /// What a verdict line begins with, up to the point where only a label may follow: a byte-level BPE gives a word
    /// its leading space, so the blank belongs to the ending.
    pub fn opening(&self) -> &str {
        self.key.trim_end()
    }

    /// What follows [`Verdict::opening`] for a label.
    pub fn ending(&self, label: &str) -> String {
        format!("{}{label}", &self.key[self.opening().len()..])
    }

    /// The last line of `text` whose trim is this line with one of `labels`: the byte at which it begins, and the
    /// class it names.
    pub fn find(&self, text: &str, labels: &Labels) -> Option<(usize, Class)> {
        find(text, &self.key, labels)
    }

    /// Reads the last verdict of `text`.
    ///
    /// What follows its line is ignored. The explanation is what comes before it, trimmed, without one leading
    /// `prefix`, the blank at its end included (models repeat the prefix they were given); when nothing is left, the
    /// text is unparsable.
    pub fn parse(&self, text: &str, labels: &Labels, prefix: &str) -> Parsed {
        let Some((start, class)) = self.find(text, labels) else { return Parsed::default() };
        // Only the start is trimmed before the prefix is taken off: the prefix may itself end in a space.
        let before = text[..start].trim_start();
        let prefix = prefix.trim_start();
        let explanation = before.strip_prefix(prefix).unwrap_or(before).trim();
        if explanation.is_empty() {
            return Parsed::default();
        }
        Parsed { explanation: Some(explanation.to_owned()), label: Some(class) }
    }
}

/// The last line of `text` whose trim is a label alone.
pub fn find_alone(text: &str, labels: &Labels) -> Option<(usize, Class)> {
    find(text, "", labels)
}

fn find(text: &str, key: &str, labels: &Labels) -> Option<(usize, Class)> {
    let mut found = None;
    let mut start = 0;
    for line in text.split('\n') {
        if let Some(class) = line.trim().strip_prefix(key).and_then(|name| labels.named(name)) {
            found = Some((start, class));
        }
        start += line.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, usize)> {
        let labels = Labels::two("0:alive", "1:death");
        let parsed = Verdict::default().parse(text, &labels, "Reasoning: ");
        assert_eq!(parsed.parsable(), parsed.explanation.is_some());
        parsed.explanation.zip(parsed.label.map(Class::index))
    }

    #[test]
    fn verdicts() {
        for (text, expected) in [
            ("Stable.\n\nClassification: 0:alive\n\n", Some(("Stable.", 0))),
            ("Frail.\n\nClassification: 1:death", Some(("Frail.", 1))),
            (
                "Frail.\nClassification: 1:death\nClassification: 0:alive\n",
                Some(("Frail.\nClassification: 1:death", 0)),
            ),
            ("a\nClassification: 1:death\n\nClassification: 2:other", Some(("a", 1))),
            ("a\r\n  Classification: 1:death \t\r\nand more", Some(("a", 1))),
            ("Reasoning: Stable.\nClassification: 0:alive", Some(("Stable.", 0))),
            ("\n Reasoning: Reasoning: b\nClassification: 0:alive", Some(("Reasoning: b", 0))),
            ("Reasoning is hard\nClassification: 0:alive", Some(("Reasoning is hard", 0))),
            ("ångström ☂\nClassification: 1:death", Some(("ångström ☂", 1))),
        ] {
            assert_eq!(read(text), expected.map(|(e, l)| (e.to_owned(), l)), "{text:?}");
        }
    }

    #[test]
    fn unparsable() {
        for text in [
            "",
            "Stable.",
            "Classification: 0:alive",
            "\n \nClassification: 0:alive\n",
            "Reasoning: \n\nClassification: 0:alive",
            "a\nClassification: 0:aliv",
            "a\nClassification: 0:alive.",
            "a\nclassification: 0:alive",
            "a\nClassification:0:alive",
            "a\nClassification:  0:alive",
            "a\n**Classification: 0:alive**",
            "a\nClassification: 0",
            "a\nThe Classification: 0:alive",
            "a\nClassification: 0:alive 1:death",
            "a\nClassification: ",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_empty_prefix_removes_nothing() {
        let parsed = Verdict::default().parse("Reasoning: x\nClassification: TRUE", &Labels::two("FALSE", "TRUE"), "");
        assert_eq!((parsed.explanation.as_deref(), parsed.label), (Some("Reasoning: x"), Some(Class::ONE)));
    }

    #[test]
    fn another_line_is_written_as_it_is_read() {
        let labels = Labels::new(["lower", "same", "higher"].map(String::from).to_vec()).unwrap();
        for line in ["Answer: {label}", "Answer:{label}", "The verdict ({a}) is {label}"] {
            let verdict = Verdict::new(line).unwrap();
            assert_eq!(verdict.template(), line);
            for class in labels.classes() {
                let label = labels.name(class).unwrap();
                assert_eq!(verdict.line(label), format!("{}{}", verdict.opening(), verdict.ending(label)));
                let parsed = verdict.parse(&verdict.response("Because.", label), &labels, "");
                assert_eq!((parsed.explanation.as_deref(), parsed.label), (Some("Because."), Some(class)));
                assert_eq!(Verdict::default().find(&verdict.line(label), &labels), None);
            }
        }
        for wrong in ["", "{label}", "  {label}", "Answer", "Answer: {label}.", "a\n{label}", "{label}: {label}"] {
            assert_eq!(Verdict::new(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
