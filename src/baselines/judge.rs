//! LLM-as-a-judge (paper §5.3.2 and A.4.1): what does an explanation imply, and can it be read?
//!
//! The judge is any model of Llama's architecture, asked twice a record, greedily. It sees the explanation alone: never the
//! record, the gold label, the probability or the verdict (lines of the explanation that are a verdict are taken out).

use serde::{Deserialize, Serialize};

use super::prompting::{Asked, Asker};
use crate::{
    data::{Prediction, Record},
    error::Result,
    metrics::judge::Verdict,
    prompt::{Prompter, TextTokenizer, verdict},
};

/// Tokens that the judge may write: its one line, and a little talk around it.
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
    /// The label that the model verbalized.
    pub verbalized_label: u8,
    /// The label that its explanation implies; null where the judge's answer is unparsable.
    pub inferred_label: Option<u8>,
    /// Whether the explanation is readable; null where the judge's answer is unparsable.
    pub readable: Option<bool>,
}

impl JudgeLine {
    /// As the metrics want it.
    pub fn verdict(&self) -> Verdict {
        Verdict { verbalized: self.verbalized_label == 1, inferred: self.inferred_label.map(|label| label == 1), readable: self.readable }
    }
}

/// Something to judge.
pub struct Case {
    /// The explanation, under the names of both prompts' fields.
    record: Record,
    label: u8,
}

/// What there is to judge of a prediction: `None` without a verbalized label or without an explanation beside it.
pub fn case(prediction: &Prediction, labels: &[String; 2]) -> Option<Case> {
    let (label, explanation) = (prediction.verbalized_label?, prediction.explanation.as_deref()?);
    let reasons = |line: &&str| verdict(line, "Classification: ", labels).is_none();
    let text = explanation.split('\n').filter(reasons).collect::<Vec<_>>().join("\n").trim().to_owned();
    let record = Record {
        id: prediction.id.clone()?,
        fields: [("explanation".to_owned(), text.clone()), ("text".to_owned(), text.clone())].into(),
        label: None,
        explanation: None,
        group: None,
        columns: [].into(),
        number: 0,
    };
    (!text.is_empty()).then_some(Case { record, label })
}

/// Asks about every case; `emit` gets a line a case, in their order.
pub fn ask(
    asker: &Asker<'_>,
    inconsistency: &Prompter,
    readability: &Prompter,
    cases: &[Case],
    emit: &mut dyn FnMut(JudgeLine) -> Result<()>,
) -> Result<()> {
    let questions = cases.iter().flat_map(|case| [(inconsistency, &case.record), (readability, &case.record)]);
    let mut first: Option<Option<u8>> = None;
    let mut cases = cases.iter();
    asker.ask(questions, &mut |asked| match first.take() {
        None => {
            first = Some(line(&asked, "Classification: ", inconsistency.labels()));
            Ok(())
        }
        Some(inferred_label) => {
            let readable = line(&asked, "Readability: ", &READABILITY).map(|class| class == 1);
            let Some(case) = cases.next() else { return Ok(()) };
            emit(JudgeLine { id: case.record.id.clone(), verbalized_label: case.label, inferred_label, readable })
        }
    })
}

/// The class that the judge's answer names.
fn line(asked: &Asked, key: &str, values: &[impl AsRef<str>; 2]) -> Option<u8> {
    asked.answers.first().and_then(|answer| verdict(&answer.text, key, values)).map(|(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::Finish, generate::Generation};

    fn labels() -> [String; 2] {
        ["FALSE", "TRUE"].map(String::from)
    }

    fn prediction(explanation: &str) -> Prediction {
        Prediction { id: Some("a".into()), verbalized_label: Some(1), explanation: Some(explanation.into()), ..Prediction::default() }
    }

    #[test]
    fn the_judge_never_sees_a_verdict() {
        let case = case(&prediction("It helps.\nClassification: FALSE\nStill."), &labels()).unwrap();
        assert_eq!(case.record.field("explanation"), Some("It helps.\nStill."));
        assert_eq!((case.record.label, case.record.explanation), (None, None));
        assert!(super::case(&prediction("Classification: TRUE"), &labels()).is_none());
        assert!(super::case(&Prediction { verbalized_label: None, ..prediction("It helps.") }, &labels()).is_none());
    }

    #[test]
    fn answers_are_one_line_or_unparsable() {
        let read = |text: &str, key: &str, values: &[String; 2]| {
            let answer = Generation { ids: Vec::new(), text: text.into(), finish: Finish::Stop, generated_tokens: 3 };
            line(&Asked { prompt_tokens: 1, truncated_tokens: 0, answers: vec![answer] }, key, values)
        };
        assert_eq!(read("Classification: TRUE", "Classification: ", &labels()), Some(1));
        assert_eq!(read("The claim is supported.", "Classification: ", &labels()), None);
        let readability = READABILITY.map(String::from);
        assert_eq!(read(" Readability: UNREADABLE\n", "Readability: ", &readability), Some(0));
        assert_eq!(read("READABLE", "Readability: ", &readability), None);
    }
}
