//! From an untuned model's text to its answer. Strict: what is not in the format asked for is unparsable, and counted.

use crate::{
    labels::{Class, Labels},
    prompt::{Verdict, find_alone},
};

/// The last line whose trim is `Probability: ` and one to three digits of at most 100, as a share.
///
/// `Probability: 15%`, `Probability: 0.15`, `Probability: 150` and an answer in mid-line are not in the format.
///
/// ```
/// use clsgen::baselines::prompting::probability;
/// assert_eq!(probability("Frail.\n\nProbability: 60\n"), Some(0.6));
/// assert_eq!(probability("Frail.\n\nProbability: 60 %"), None);
/// ```
pub fn probability(text: &str) -> Option<f64> {
    text.split('\n').rev().find_map(|line| {
        let digits = line.trim().strip_prefix("Probability: ")?;
        let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|&percent| plain && percent <= 100).map(|percent| f64::from(percent) / 100.0)
    })
}

/// The class that the text names: its last line that is the task's verdict, or (the question asks to "answer with
/// exactly one of" the labels) a label alone. Unlike a tuned model's answer it needs no explanation.
///
/// ```
/// use clsgen::{baselines::prompting::label, labels::{Class, Labels}, prompt::Verdict};
/// let (labels, verdict) = (Labels::two("0:alive", "1:death"), Verdict::default());
/// assert_eq!(label("1:death", &verdict, &labels), Some(Class::ONE));
/// assert_eq!(label("Frail.\n\nClassification: 0:alive", &verdict, &labels), Some(Class::ZERO));
/// assert_eq!(label("It is 1:death.", &verdict, &labels), None);
/// ```
pub fn label(text: &str, verdict: &Verdict, labels: &Labels) -> Option<Class> {
    let found = [verdict.find(text, labels), find_alone(text, labels)];
    found.into_iter().flatten().max_by_key(|(start, _)| *start).map(|(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities() {
        for (text, expected) in [
            ("Probability: 0", Some(0.0)),
            ("Probability: 100", Some(1.0)),
            ("a\r\n  Probability: 7 \t\r\nb", Some(0.07)),
            ("Probability: 20\nor rather\nProbability: 35", Some(0.35)),
            ("Probability: 20\nProbability: 101", Some(0.2)),
            ("Probability: 05", Some(0.05)),
            ("", None),
            ("Probability: ", None),
            ("Probability:  5", None),
            ("probability: 5", None),
            ("Probability: -5", None),
            ("Probability: +5", None),
            ("Probability: 5.", None),
            ("Probability: 12.5", None),
            ("Probability: 101", None),
            ("Probability: 0005", None),
            ("Probability: <5>", None),
            ("**Probability: 5**", None),
            ("The Probability: 5", None),
            ("Probability: ٣", None),
        ] {
            assert_eq!(probability(text), expected, "{text:?}");
        }
    }

    #[test]
    fn labels() {
        let labels = Labels::two("FALSE", "TRUE");
        let verdict = Verdict::default();
        for (text, expected) in [
            ("TRUE", Some(1)),
            ("x\nClassification: TRUE\nFALSE", Some(0)),
            ("FALSE\nx\nClassification: TRUE\nend", Some(1)),
            ("True", None),
            ("TRUE.", None),
            ("TRUE FALSE", None),
            ("Classification:TRUE", None),
            ("", None),
        ] {
            assert_eq!(label(text, &verdict, &labels), expected.map(Class::from), "{text:?}");
        }
    }
}
