//! LLM-as-a-judge (paper §5.3.2 and A.4.1): what does an explanation imply, and can it be read?
//!
//! The judge is any model of Llama's architecture and decodes greedily. For each parsable prediction it is asked which
//! label the explanation implies; for every generated text, whether it is readable. It sees the explanation (of an
//! unparsable prediction: the text) alone: never the record, the gold label, the probability, or a line that states the
//! label (such lines are removed).

use serde::{Deserialize, Serialize};

use super::prompting::{Asked, Asker};
use crate::{
    data::{Prediction, Record},
    error::Result,
    metrics::judge::Verdict,
    prompt::{Prompter, TextTokenizer, verdict},
};

/// `max_new_tokens` for a judge without a reasoning phase: its answer line, and 24 tokens around it.
pub fn max_new_tokens(tokenizer: &TextTokenizer, labels: &[String; 2]) -> Result<usize> {
    let lengths = labels.iter().map(|label| Ok(tokenizer.encode(&format!("Classification: {label}"))?.len()));
    Ok(24 + lengths.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
}

const READABILITY: [&str; 2] = ["UNREADABLE", "READABLE"];

/// A line of `RUN/eval/judge.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeLine {
    /// The record's id.
    pub id: String,
    /// The label that the model verbalized; null where the text is unparsable and only its readability is asked.
    pub verbalized_label: Option<u8>,
    /// The label that its explanation implies; null where the judge's answer is unparsable.
    pub inferred_label: Option<u8>,
    /// Whether the explanation is readable; null where the judge's answer is unparsable.
    pub readable: Option<bool>,
}

/// Combines a prediction with the judge's answers, if it was asked, into what the metrics take. An unjudged prediction
/// counts as without a label.
pub fn verdict_of(prediction: &Prediction, line: Option<&JudgeLine>) -> Verdict {
    let written = prediction.text.is_some();
    Verdict {
        verbalized: line.and_then(|line| line.verbalized_label).map(|label| label == 1),
        inferred: line.and_then(|line| line.inferred_label).map(|label| label == 1),
        written,
        asked: written && line.is_some(),
        readable: line.and_then(|line| line.readable),
    }
}

/// One prediction prepared for the judge.
pub struct Case {
    /// The text to judge, as the fields `explanation` and `text` that the two prompt files name.
    record: Record,
    /// The verbalized label, if there is an explanation: then the label that this implies is asked for.
    label: Option<u8>,
    /// Whether there is generated text: then its readability is asked for.
    written: bool,
}

/// The judge's input for a prediction: its explanation if it is parsable, else its whole text; `None` if no text is
/// left.
pub fn case(prediction: &Prediction, labels: &[String; 2]) -> Option<Case> {
    let explained = prediction.verbalized_label.zip(prediction.explanation.as_deref());
    let judged = explained.map(|(_, explanation)| explanation).or(prediction.text.as_deref())?;
    let is_reasoning = |line: &&str| verdict(line, "Classification: ", labels).is_none();
    let text = judged.split('\n').filter(is_reasoning).collect::<Vec<_>>().join("\n").trim().to_owned();
    let record = Record {
        id: prediction.id.clone()?,
        fields: [("explanation".to_owned(), text.clone()), ("text".to_owned(), text.clone())].into(),
        label: None,
        explanation: None,
        group: None,
        columns: [].into(),
        number: 0,
    };
    let case = Case { record, label: explained.map(|(label, _)| label), written: prediction.text.is_some() };
    (!text.is_empty()).then_some(case)
}

/// Asks about every case; `emit` receives one line per case, in their order.
pub fn ask(
    asker: &Asker<'_>,
    inconsistency: &Prompter,
    readability: &Prompter,
    cases: &[Case],
    emit: &mut dyn FnMut(JudgeLine) -> Result<()>,
) -> Result<()> {
    let questions = cases.iter().flat_map(|case| {
        let asked =
            [case.label.map(|_| (inconsistency, &case.record)), case.written.then_some((readability, &case.record))];
        asked.into_iter().flatten()
    });
    let mut cases = cases.iter().peekable();
    // Answers arrive in the order of the questions, one or two per case: `Some` between the two of a case, with the
    // label that the first one gave.
    let mut implied: Option<Option<u8>> = None;
    asker.ask(questions, &mut |asked| {
        let Some(case) = cases.peek() else { return Ok(()) };
        let inferred_label = match implied.take() {
            Some(label) => label,
            None if case.label.is_none() => None,
            None => {
                let label = answered_class(&asked, "Classification: ", inconsistency.labels());
                if case.written {
                    implied = Some(label);
                    return Ok(());
                }
                label
            }
        };
        let readable = if case.written {
            answered_class(&asked, "Readability: ", &READABILITY).map(|class| class == 1)
        } else {
            None
        };
        let (id, verbalized_label) = (case.record.id.clone(), case.label);
        cases.next();
        emit(JudgeLine { id, verbalized_label, inferred_label, readable })
    })
}

/// The class that the judge's answer names after any `<think>` block; `None` if it cannot be parsed.
fn answered_class(asked: &Asked, key: &str, values: &[impl AsRef<str>; 2]) -> Option<u8> {
    let said = asked.answers.first().and_then(|answer| asked.said(answer))?;
    verdict(said, key, values).map(|(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::Finish, generate::Generation};

    fn labels() -> [String; 2] {
        ["FALSE", "TRUE"].map(String::from)
    }

    fn prediction(explanation: &str) -> Prediction {
        Prediction {
            id: Some("a".into()),
            verbalized_label: Some(1),
            explanation: Some(explanation.into()),
            ..Prediction::default()
        }
    }

    #[test]
    fn the_judge_never_sees_a_verdict() {
        let case = case(&prediction("It helps.\nClassification: FALSE\nStill."), &labels()).unwrap();
        assert_eq!(case.record.field("explanation"), Some("It helps.\nStill."));
        assert_eq!((case.record.label, case.record.explanation), (None, None));
        assert!(super::case(&prediction("Classification: TRUE"), &labels()).is_none());
        // Unparsable: only whether it can be read is asked, of the text.
        let unparsable = Prediction {
            verbalized_label: None,
            explanation: None,
            text: Some("It\nClassification: TRUE".into()),
            ..prediction("")
        };
        let case = super::case(&unparsable, &labels()).unwrap();
        assert_eq!((case.record.field("text"), case.label, case.written), (Some("It"), None, true));
        assert!(super::case(&Prediction { text: None, ..unparsable }, &labels()).is_none());
    }

    #[test]
    fn answers_are_one_line_or_unparsable() {
        let read_after = |opened_thought: bool, text: &str, key: &str, values: &[String; 2]| {
            let answer = Generation { ids: Vec::new(), text: text.into(), finish: Finish::Stop, generated_tokens: 3 };
            answered_class(
                &Asked { prompt_tokens: 1, truncated_tokens: 0, opened_thought, answers: vec![answer] },
                key,
                values,
            )
        };
        let read = |text: &str, key: &str, values: &[String; 2]| read_after(false, text, key, values);
        assert_eq!(read("Classification: TRUE", "Classification: ", &labels()), Some(1));
        assert_eq!(read("The claim is supported.", "Classification: ", &labels()), None);
        let readability = READABILITY.map(String::from);
        assert_eq!(read(" Readability: UNREADABLE\n", "Readability: ", &readability), Some(0));
        assert_eq!(read("READABLE", "Readability: ", &readability), None);
        let thinking = "Perhaps\nClassification: FALSE\nor not";
        assert_eq!(read_after(true, thinking, "Classification: ", &labels()), None, "the thought is not over");
        let thought = format!("{thinking}</think>\nClassification: TRUE");
        assert_eq!(read_after(true, &thought, "Classification: ", &labels()), Some(1));
        assert_eq!(
            read(&format!("{thinking}</think>Well."), "Classification: ", &labels()),
            None,
            "said in the thought alone"
        );
    }
}
