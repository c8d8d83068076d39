//! What one trial of the teacher is worth (paper §4.2: `isValid(e)` and `ŷ = y`).

use serde::{Deserialize, Serialize};

use crate::{
    generate::{Finish, Generation},
    labels::{Class, Labels},
    prompt::{Verdict, after_thoughts},
    remote::RequestFailure,
};

/// Why a trial was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No verdict line, no explanation before it, or a thought that never ends.
    Unparsable,
    /// The cap was reached before a verdict.
    Truncated,
    /// A verdict, but not the gold label.
    WrongLabel,
    /// Fewer words than `construct.min_words`.
    TooShort,
    /// The training target would exceed `model.max_output_tokens`.
    TooLong,
    /// More of it is copied from the document than `construct.max_copied` allows.
    NearDuplicate,
    /// Never asked: the teacher is on a server that takes no token ids, and would read a control token in this record.
    ControlText,
    /// The server refused this prompt.
    ServerRefused,
    // Under `remote.drop_failed` alone, the next four and some of the fifth: else such records stay open.
    /// The server was busy each time (HTTP 429).
    ServerBusy,
    /// The server failed each time (HTTP 5xx).
    ServerFailed,
    /// The server did not answer in time.
    TimedOut,
    /// The connection to the server ended before its answer did.
    ConnectionLost,
    /// What the server sent is no answer.
    NoAnswer,
}

impl From<RequestFailure> for Failure {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::ControlText => Self::ControlText,
            RequestFailure::Refused(_) => Self::ServerRefused,
            RequestFailure::Busy(_) => Self::ServerBusy,
            RequestFailure::Failed(..) => Self::ServerFailed,
            RequestFailure::TimedOut => Self::TimedOut,
            RequestFailure::Lost | RequestFailure::Unreachable | RequestFailure::Untrusted | RequestFailure::NoTls => {
                Self::ConnectionLost
            }
            RequestFailure::Garbled | RequestFailure::Unusable => Self::NoAnswer,
        }
    }
}

/// What an explanation must be, beyond parsable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Fewest words.
    pub min_words: usize,
    /// Largest share of its word 5-grams that may stand in the document; 1 allows any.
    pub max_copied: f64,
}

/// The document and gold label that a trial is held against.
#[derive(Clone, Copy)]
pub struct Gold<'a> {
    /// The record's text fields.
    pub texts: &'a [&'a str],
    /// Verbalized labels.
    pub labels: &'a Labels,
    /// The line that names the class.
    pub verdict: &'a Verdict,
    /// The base's generation prefix: teachers that repeat it have it removed.
    pub prefix: &'a str,
    /// The gold class.
    pub label: Class,
    /// Whether the prompt ended in an open `<think>`: an answer that never closes it is a thought alone.
    pub opened_thought: bool,
}

/// The explanation of a trial, or why it is refused. `too_long` is the caller's to find: it needs the base's tokenizer.
pub fn judge(generation: &Generation, gold: Gold<'_>, rules: Rules) -> Result<String, Failure> {
    let unfinished = if generation.finish == Finish::Length { Failure::Truncated } else { Failure::Unparsable };
    let answer = after_thoughts(&generation.text, gold.opened_thought).ok_or(unfinished)?;
    let parsed = gold.verdict.parse(answer, gold.labels, gold.prefix);
    let (Some(explanation), Some(label)) = (parsed.explanation, parsed.label) else { return Err(unfinished) };
    if label != gold.label {
        return Err(Failure::WrongLabel);
    }
    if explanation.split_whitespace().count() < rules.min_words {
        return Err(Failure::TooShort);
    }
    if rules.max_copied < 1.0 && copied(&explanation, gold.texts) > rules.max_copied {
        return Err(Failure::NearDuplicate);
    }
    Ok(explanation)
}

/// Share of the explanation's word 5-grams that occur in one of the texts; an explanation of fewer words counts as one
/// gram.
fn copied(explanation: &str, texts: &[&str]) -> f64 {
    let normal = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let words = normal(explanation);
    let width = words.len().clamp(1, 5);
    let known: std::collections::HashSet<Vec<String>> =
        texts.iter().flat_map(|text| normal(text).windows(width).map(<[String]>::to_vec).collect::<Vec<_>>()).collect();
    let grams = words.windows(width);
    let total = grams.len().max(1);
    grams.filter(|gram| known.contains(*gram)).count() as f64 / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, finish: Finish, rules: Rules) -> Result<String, Failure> {
        verdict_after(false, text, finish, rules)
    }

    fn verdict_after(opened_thought: bool, text: &str, finish: Finish, rules: Rules) -> Result<String, Failure> {
        let labels = Labels::two("0:alive", "1:death");
        let verdict = Verdict::default();
        let generation = Generation { ids: Vec::new(), text: text.into(), finish, generated_tokens: 9 };
        let texts = ["The patient walked home with family after a short stay for pneumonia."];
        judge(
            &generation,
            Gold {
                texts: &texts,
                labels: &labels,
                verdict: &verdict,
                prefix: "Reasoning: ",
                label: Class::ONE,
                opened_thought,
            },
            rules,
        )
    }

    const ANY: Rules = Rules { min_words: 1, max_copied: 1.0 };

    #[test]
    fn thoughts_are_stripped_and_unclosed_ones_refused() {
        let keep = |text| verdict(text, Finish::Stop, ANY);
        assert_eq!(
            keep("<think>maybe\nClassification: 0:alive</think>Frail.\n\nClassification: 1:death").as_deref(),
            Ok("Frail.")
        );
        assert_eq!(keep("thought without opening</think>\nFrail.\nClassification: 1:death").as_deref(), Ok("Frail."));
        assert_eq!(keep("<think>Frail.\nClassification: 1:death"), Err(Failure::Unparsable));
        assert_eq!(keep("<think>a</think><think>Frail.\nClassification: 1:death"), Err(Failure::Unparsable));
    }

    #[test]
    fn a_thought_that_the_template_opened_must_be_closed() {
        let keep = |text| verdict_after(true, text, Finish::Stop, ANY);
        assert_eq!(keep("Frail.\nClassification: 1:death"), Err(Failure::Unparsable));
        assert_eq!(
            keep("Well?\nClassification: 0:alive\n</think>\nFrail.\nClassification: 1:death").as_deref(),
            Ok("Frail.")
        );
        assert_eq!(
            verdict_after(true, "Frail.\nClassification: 1:death", Finish::Length, ANY),
            Err(Failure::Truncated)
        );
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let short = Rules { min_words: 3, ..ANY };
        let own_words = Rules { max_copied: 0.5, ..ANY };
        for (text, finish, rules, failure) in [
            ("I cannot say.", Finish::Stop, ANY, Failure::Unparsable),
            ("Frail and", Finish::Length, ANY, Failure::Truncated),
            ("<think>Frail", Finish::Length, ANY, Failure::Truncated),
            ("Well.\nClassification: 0:alive", Finish::Stop, ANY, Failure::WrongLabel),
            ("Frail.\nClassification: 1:death", Finish::Stop, short, Failure::TooShort),
            (
                "Patient walked home with family, after a short stay.\nClassification: 1:death",
                Finish::Stop,
                own_words,
                Failure::NearDuplicate,
            ),
        ] {
            assert_eq!(verdict(text, finish, rules), Err(failure));
        }
    }

    #[test]
    fn a_complete_verdict_at_the_cap_counts() {
        assert!(verdict("Frail.\nClassification: 1:death", Finish::Length, ANY).is_ok());
    }

    #[test]
    fn copying_is_measured_in_five_grams() {
        let own = Rules { max_copied: 0.5, ..ANY };
        assert!(
            verdict(
                "Pneumonia in an old and failing body leaves little reserve.\nClassification: 1:death",
                Finish::Stop,
                own
            )
            .is_ok()
        );
    }
}
