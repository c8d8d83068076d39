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
    let said = |line: &str| percent(line.trim().strip_prefix("Probability: ")?);
    text.split('\n').rev().find_map(said).map(|percent| f64::from(percent) / 100.0)
}

/// One to three digits of at most 100.
fn percent(digits: &str) -> Option<u32> {
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&percent| plain && percent <= 100)
}

/// The line that [`probabilities`] reads of a class, `said` in the place of its number.
pub fn probability_line(label: &str, said: &str) -> String {
    format!("{OF_CLASS}{label}: {said}")
}

const OF_CLASS: &str = "Probability of ";

/// The last line of every class whose trim is `Probability of <class>: ` and one to three digits of at most 100, as
/// shares of their sum, by class.
///
/// Models seldom make the sum 100, so any sum but 0 will do; a class without a line leaves the others without a scale.
///
/// ```
/// use clsgen::{baselines::prompting::probabilities, labels::Labels};
/// let labels = Labels::new(["worse", "the same", "better"].map(String::from).to_vec()).unwrap();
/// let said = "Frail.\n\nProbability of worse: 60\nProbability of the same: 40\nProbability of better: 20\n";
/// assert_eq!(probabilities(said, &labels), Some(vec![0.5, 40.0 / 120.0, 20.0 / 120.0]));
/// assert_eq!(probabilities("Probability of worse: 60\nProbability of better: 40", &labels), None);
/// ```
pub fn probabilities(text: &str, labels: &Labels) -> Option<Vec<f64>> {
    let mut said = vec![None; labels.count()];
    for line in text.split('\n') {
        // No digit holds a colon, so that the label is all before the last one.
        let parts = line.trim().strip_prefix(OF_CLASS).and_then(|rest| rest.rsplit_once(": "));
        let read = parts.and_then(|(label, digits)| Some((labels.named(label)?, percent(digits)?)));
        if let Some((class, percent)) = read {
            said[class.index()] = Some(percent);
        }
    }
    let said: Vec<u32> = said.into_iter().collect::<Option<_>>()?;
    let sum: u32 = said.iter().sum();
    (sum > 0).then(|| said.iter().map(|&percent| f64::from(percent) / f64::from(sum)).collect())
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
    fn probabilities_of_class_1() {
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
    fn probabilities_of_classes() {
        let labels = Labels::new(["a", "b", "b: 5"].map(String::from).to_vec()).unwrap();
        let third = Some(vec![0.2, 0.3, 0.5]);
        for (text, expected) in [
            ("Probability of a: 20\nProbability of b: 30\nProbability of b: 5: 50", third.clone()),
            ("x\r\n  Probability of b: 5: 50 \r\nProbability of b: 30\nProbability of a: 20\t\r\nend", third.clone()),
            ("Probability of a: 2\nProbability of b: 3\nProbability of b: 5: 5", third.clone()),
            // The last line of a class counts, whatever is not one is passed over.
            (
                "Probability of a: 90\nProbability of b: 30\nProbability of b: 5: 50\nProbability of c: 7\n\
                Probability of a: 20\nProbability of a: 101\nProbability of b: <integer>",
                third,
            ),
            ("Probability of a: 100\nProbability of b: 0\nProbability of b: 5: 0", Some(vec![1.0, 0.0, 0.0])),
            ("Probability of a: 0\nProbability of b: 0\nProbability of b: 5: 0", None),
            ("Probability of a: 20\nProbability of b: 80", None),
            ("Probability of a: 20\nProbability of b: 30\nProbability of b: 5: 50%", None),
            ("Probability of a: 20\nProbability of b: 30\nProbability of b: 5: 0.5", None),
            ("Probability of a: 20\nProbability of b: 30\n- Probability of b: 5: 50", None),
            ("Probability of a:20\nProbability of b: 30\nProbability of b: 5: 50", None),
            ("probability of a: 20\nProbability of b: 30\nProbability of b: 5: 50", None),
            ("a: 20\nb: 30\nb: 5: 50", None),
            ("Probability: 20", None),
            ("", None),
        ] {
            assert_eq!(probabilities(text, &labels), expected, "{text:?}");
        }
        assert_eq!(probability_line("b: 5", "7"), "Probability of b: 5: 7");
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
            assert_eq!(label(text, &verdict, &labels), expected.and_then(Class::new), "{text:?}");
        }
    }
}
