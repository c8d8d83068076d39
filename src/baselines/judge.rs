//! LLM-as-a-judge (paper §5.3.2 and A.4.1): what does an explanation imply, and can it be read?
//!
//! The judge is any model of Llama's architecture and decodes greedily. For each parsable prediction it is asked which
//! label the explanation implies; for every generated text, whether it is readable. It sees the explanation (of an
//! unparsable prediction: the text) alone: never the record, the gold label, the probability, or a line that states the
//! label (such lines are removed).

use serde::{Deserialize, Serialize};

use super::prompting::{AnsweredPrompt, Asker};
use crate::{
    data::{Prediction, Record},
    error::Result,
    labels::{Class, Labels},
    metrics::judge::Judged,
    prompt::{Prompter, TextTokenizer, Verdict},
};

/// `max_new_tokens` for a judge without a reasoning phase: its answer line, and 24 tokens around it.
pub fn max_new_tokens(tokenizer: &TextTokenizer, labels: &Labels) -> Result<usize> {
    let lengths = labels.iter().map(|label| Ok(tokenizer.encode(&Verdict::default().line(label))?.len()));
    Ok(24 + lengths.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
}

/// The judge's answer to whether a text can be read: class 1 is readable.
fn readability_answer() -> (Verdict, Labels) {
    (Verdict::after("Readability: "), Labels::two("UNREADABLE", "READABLE"))
}

/// A line of `RUN/eval/judge.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeLine {
    /// The record's id.
    pub id: String,
    /// The label that the model verbalized; null where the text is unparsable and only its readability is asked.
    pub verbalized_label: Option<Class>,
    /// The label that its explanation implies; null where the judge's answer is unparsable.
    pub inferred_label: Option<Class>,
    /// Whether the explanation is readable; null where the judge's answer is unparsable.
    pub readable: Option<bool>,
}

/// Combines a prediction with the judge's answers, if it was asked, into what the metrics take, `label` a class of
/// theirs. An unjudged prediction counts as without a label.
pub fn judged<L>(prediction: &Prediction, line: Option<&JudgeLine>, label: impl Fn(Class) -> L) -> Judged<L> {
    let written = prediction.text.is_some();
    // An older clsgen asked which label the explanation of an unparsable text implies: that answer counts no more.
    let verbalized = line.and_then(|line| line.verbalized_label).filter(|_| prediction.parsed_label().is_some());
    Judged {
        verbalized: verbalized.map(&label),
        inferred: line.and_then(|line| line.inferred_label).map(&label),
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
    label: Option<Class>,
    /// Whether there is generated text: then its readability is asked for.
    written: bool,
}

/// The judge's input for a prediction, of its `number` from 1: its explanation if it is parsable, else its whole text;
/// `None` if no text is left. `verdict` is the task's own line, of which none is shown.
pub fn case(prediction: &Prediction, number: usize, verdict: &Verdict, labels: &Labels) -> Option<Case> {
    let explained = prediction.parsed_label().zip(prediction.explanation.as_deref());
    let judged = explained.map(|(_, explanation)| explanation).or(prediction.text.as_deref())?;
    let is_reasoning = |line: &&str| verdict.find(line, labels).is_none();
    let text = judged.split('\n').filter(is_reasoning).collect::<Vec<_>>().join("\n").trim().to_owned();
    let record = Record {
        id: prediction.id.clone()?,
        fields: [("explanation".to_owned(), text.clone()), ("text".to_owned(), text.clone())].into(),
        label: None,
        explanation: None,
        group: None,
        columns: [].into(),
        number,
        line: None,
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
    let (readable, values) = readability_answer();
    let mut cases = cases.iter().peekable();
    // Answers arrive in the order of the questions, one or two per case: `Some` between the two of a case, with the
    // label that the first one gave.
    let mut implied: Option<Option<Class>> = None;
    asker.ask(questions, &mut |asked| {
        let Some(case) = cases.peek() else { return Ok(()) };
        let inferred_label = match implied.take() {
            Some(label) => label,
            None if case.label.is_none() => None,
            None => {
                let label = answered_class(&asked, inconsistency.verdict(), inconsistency.labels());
                if case.written {
                    implied = Some(label);
                    return Ok(());
                }
                label
            }
        };
        let readable = if case.written {
            answered_class(&asked, &readable, &values).map(|class| class == Class::ONE)
        } else {
            None
        };
        let id = case.record.id.clone();
        let verbalized_label = case.label;
        cases.next();
        emit(JudgeLine { id, verbalized_label, inferred_label, readable })
    })
}

/// The class that the judge's answer names after any `<think>` block; `None` if it cannot be parsed.
fn answered_class(asked: &AnsweredPrompt, verdict: &Verdict, values: &Labels) -> Option<Class> {
    let said = asked.answers.first().and_then(|answer| asked.said(answer))?;
    verdict.find(said, values).map(|(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::Finish, generate::Generation};

    fn labels() -> Labels {
        Labels::two("FALSE", "TRUE")
    }

    fn case_of(prediction: &Prediction) -> Option<Case> {
        case(prediction, 1, &Verdict::default(), &labels())
    }

    fn prediction(explanation: &str) -> Prediction {
        Prediction {
            id: Some("a".into()),
            verbalized_label: Some(Class::ONE),
            explanation: Some(explanation.into()),
            ..Prediction::default()
        }
    }

    #[test]
    fn the_judge_never_sees_a_verdict() {
        let case = case_of(&prediction("It helps.\nClassification: FALSE\nStill.")).unwrap();
        assert_eq!(case.record.field("explanation"), Some("It helps.\nStill."));
        assert_eq!((case.record.label, case.record.explanation), (None, None));
        assert!(case_of(&prediction("Classification: TRUE")).is_none());
        // Unparsable: only whether it can be read is asked, of the text.
        let unparsable = Prediction {
            verbalized_label: None,
            explanation: None,
            text: Some("It\nClassification: TRUE".into()),
            ..prediction("")
        };
        let case = case_of(&unparsable).unwrap();
        assert_eq!((case.record.field("text"), case.label, case.written), (Some("It"), None, true));
        assert!(case_of(&Prediction { text: None, ..unparsable }).is_none());
    }

    /// Some tools write a label beside `parsable: false`: the metrics go by the latter, and so does the judge.
    #[test]
    fn an_unparsable_text_has_no_label_to_judge_even_where_its_line_names_one() {
        let text = Some("As it came.".to_owned());
        let unparsable = Prediction { parsable: Some(false), text, ..prediction("It helps.") };
        let case = case_of(&unparsable).unwrap();
        assert_eq!((case.record.field("text"), case.label, case.written), (Some("As it came."), None, true));
        // Nor where an older answer has one.
        let one = Some(Class::ONE);
        let line = JudgeLine { id: "a".into(), verbalized_label: one, inferred_label: one, readable: Some(true) };
        let of = |parsable| {
            let prediction = Prediction { parsable: Some(parsable), ..unparsable.clone() };
            judged(&prediction, Some(&line), |class| class == Class::ONE)
        };
        assert_eq!((of(false).verbalized, of(true).verbalized), (None, Some(true)));
        assert_eq!((of(false).asked, of(false).readable), (true, Some(true)));
    }

    #[test]
    fn answers_are_one_line_or_unparsable() {
        let read_after = |opened_thought: bool, text: &str, (verdict, values): &(Verdict, Labels)| {
            let answer = Generation { ids: Vec::new(), text: text.into(), finish: Finish::Stop, generated_tokens: 3 };
            let asked = AnsweredPrompt { prompt_tokens: 1, truncated_tokens: 0, opened_thought, answers: vec![answer] };
            answered_class(&asked, verdict, values).map(Class::index)
        };
        let label = (Verdict::default(), labels());
        let readability = readability_answer();
        assert_eq!(read_after(false, "Classification: TRUE", &label), Some(1));
        assert_eq!(read_after(false, "The claim is supported.", &label), None);
        assert_eq!(read_after(false, " Readability: UNREADABLE\n", &readability), Some(0));
        assert_eq!(read_after(false, "READABLE", &readability), None);
        let thinking = "Perhaps\nClassification: FALSE\nor not";
        assert_eq!(read_after(true, thinking, &label), None, "the thought is not over");
        assert_eq!(read_after(true, &format!("{thinking}</think>\nClassification: TRUE"), &label), Some(1));
        let only_thought = format!("{thinking}</think>Well.");
        assert_eq!(read_after(false, &only_thought, &label), None, "said in the thought alone");
    }
}
