//! From generated text to a verdict (SPEC §6, Parsing).

/// What a generation says. Unparsable text leaves both `None`; parsable text has both.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The text before the verdict line, trimmed, without one leading prefix.
    pub explanation: Option<String>,
    /// The class that the verdict line names.
    pub label: Option<u8>,
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

/// Reads the last verdict of `text`: a line whose trim equals `Classification: ` + one of `labels`.
///
/// What follows that line is ignored. The explanation is what comes before it, trimmed, without one leading `prefix`
/// (models repeat the prefix they were given); when nothing is left, the text is unparsable.
pub fn parse(text: &str, labels: &[String; 2], prefix: &str) -> Parsed {
    let Some((start, class)) = verdict(text, "Classification: ", labels) else { return Parsed::default() };
    // Only the start is trimmed before the prefix is taken off: the prefix may itself end in a space.
    let before = text[..start].trim_start();
    let prefix = prefix.trim_start();
    let explanation = before.strip_prefix(prefix).unwrap_or(before).trim();
    if explanation.is_empty() {
        return Parsed::default();
    }
    Parsed { explanation: Some(explanation.to_owned()), label: Some(class) }
}

/// What a text says once its thoughts are over: what follows the last `</think>`, or all of it where nothing was
/// thought. `None` for a thought that never ends. `opened` tells that the prompt ended inside one
/// ([`super::Prompter::opens_thought`]).
///
/// ```
/// use clsgen::prompt::after_thoughts;
/// assert_eq!(after_thoughts("Is it A? No.</think>B", true), Some("B"));
/// assert_eq!(after_thoughts("B", false), Some("B"));
/// assert_eq!(after_thoughts("Is it A? No.", true), None);
/// assert_eq!(after_thoughts("<think>Is it A? No.", false), None);
/// ```
pub fn after_thoughts(text: &str, opened: bool) -> Option<&str> {
    match text.rfind("</think>") {
        Some(end) => {
            let rest = &text[end + "</think>".len()..];
            (!rest.contains("<think>")).then_some(rest)
        }
        None => (!opened && !text.contains("<think>")).then_some(text),
    }
}

/// The last line of `text` whose trim equals `key` + one of `values`: the byte at which it begins, and which value it
/// names.
pub fn verdict(text: &str, key: &str, values: &[impl AsRef<str>; 2]) -> Option<(usize, u8)> {
    let mut found = None;
    let mut start = 0;
    for line in text.split('\n') {
        if let Some(value) = line.trim().strip_prefix(key)
            && let Some(class) = (0..2u8).find(|&class| values[usize::from(class)].as_ref() == value)
        {
            found = Some((start, class));
        }
        start += line.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, u8)> {
        let labels = ["0:alive".to_owned(), "1:death".to_owned()];
        let parsed = parse(text, &labels, "Reasoning: ");
        assert_eq!(parsed.parsable(), parsed.explanation.is_some());
        parsed.explanation.zip(parsed.label)
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
        let labels = ["FALSE".to_owned(), "TRUE".to_owned()];
        let parsed = parse("Reasoning: x\nClassification: TRUE", &labels, "");
        assert_eq!((parsed.explanation.as_deref(), parsed.label), (Some("Reasoning: x"), Some(1)));
    }
}
