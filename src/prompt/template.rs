//! The prompt file: `system`, `user`, `question`, `prefix`, `verdict`, `response`, `date` and what they may hold.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    TextTokenizer,
    prompt_file::{parse_prompt_file, read_prompt_file},
    verdict::{DEFAULT, Verdict},
};
use crate::error::{Error, Result};

/// The `response` of a prompt whose explanations are whole answers.
const WHOLE_ANSWER: &str = "{explanation}";
/// Fields of a record that a task's own prompt asks for.
const ASKED_FOR: [&str; 2] = ["label", "explanation"];

const KEYS: &str =
    "a prompt file has the keys system, user, question, prefix, verdict, response, document, format and date";

/// How the parts become one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptFormat {
    /// Messages through the model's own chat template.
    #[default]
    Chat,
    /// Parts joined by blank lines, for base models without a chat template.
    Plain,
}

/// A prompt file. `{document}` stands for the field that may be cut, `{name}` for any other field of the record but its
/// label and explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptTemplate {
    /// The system message; empty: none.
    #[serde(default)]
    pub system: String,
    /// The user's message, which holds the document.
    pub user: String,
    /// Follows `user` after a blank line; empty: nothing follows.
    #[serde(default)]
    pub question: String,
    /// Opens the assistant's turn; its last token is t_n.
    #[serde(default)]
    pub prefix: String,
    /// The line that names the class: words, then `{label}`.
    #[serde(default = "default_verdict", skip_serializing_if = "is_default_verdict")]
    pub verdict: String,
    /// What is learned: `{explanation}`, blank line, the verdict, blank line, which is what it is where it is not
    /// given; or `{explanation}` alone, where that is the whole answer.
    #[serde(default)]
    pub response: String,
    /// The field that is cut when a prompt is too long.
    #[serde(default = "default_document")]
    pub document: String,
    /// Chat template or plain text.
    #[serde(default)]
    pub format: PromptFormat,
    /// What a chat template that reads the clock takes for now: local time, `2026-11-28T07:46:13`. Absent where none
    /// reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

fn default_verdict() -> String {
    DEFAULT.into()
}

/// A prompt of the paper's verdict is written as it was before there were others.
fn is_default_verdict(verdict: &str) -> bool {
    verdict == DEFAULT
}

fn default_document() -> String {
    "text".into()
}

/// A stretch of a message: words of the prompt file, or a field of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Words of the prompt file.
    Literal(String),
    /// A record's field by name.
    Field(String),
}

impl PromptTemplate {
    /// Reads and checks a prompt file; anything wrong with it is a usage error (exit 2).
    pub fn load(path: &Path) -> Result<Self> {
        let template = Self::of_answers(path)?;
        template.check_task().map_err(|e| e.context(path.display()))?;
        Ok(template)
    }

    /// The same where answers are there, and nobody is shown a record: what it shows is not looked at.
    pub fn of_answers(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = read_prompt_file(path, "task.prompt")?;
        let mut template: Self = parse_prompt_file(&name.to_string(), &text, KEYS)?;
        template.check().map_err(|e| e.context(&name))?;
        if template.response.is_empty() {
            template.response = template.verdict()?.response("{explanation}", "{label}");
        }
        Ok(template)
    }

    /// The line that names the class (exit 2 where the key `verdict` is none).
    pub fn verdict(&self) -> Result<Verdict> {
        Verdict::new(&self.verdict)
    }

    /// As [`PromptTemplate::check`], of a task's own prompt: it shows nothing of what it asks for. A judge's shows the
    /// explanation that is judged.
    pub fn check_task(&self) -> Result<()> {
        self.check()?;
        match self.fields().into_iter().find(|field| ASKED_FOR.contains(&field.as_str())) {
            None => Ok(()),
            Some(field) => {
                Err(Error::usage(format!("it shows the field `{field}` of a record, which is what it asks for"))
                    .hint("give a field that is no answer another name in the prompt, and its column by data.fields"))
            }
        }
    }

    /// Checks placeholders, for templates that came from elsewhere than [`PromptTemplate::load`].
    pub fn check(&self) -> Result<()> {
        let hint = "`{document}` stands for the document, `{name}` for another field of the record";
        if self.document.is_empty() {
            return Err(Error::usage("key document is empty").hint("it names the field that may be cut, such as text"));
        }
        if !self.fields().contains(&self.document) {
            return Err(
                Error::usage("key user has neither `{document}` nor the field that key document names").hint(hint)
            );
        }
        if let Some(date) = &self.date {
            date.parse::<jiff::civil::DateTime>().map_err(|_| {
                Error::usage("key date is not a date").hint("write it as \"2026-11-28\" or \"2026-11-28T07:46:13\"")
            })?;
        }
        if self.parts(&self.prefix).into_iter().find_map(Part::into_field).is_some() {
            return Err(
                Error::usage("key prefix holds a field in braces, but none of a record may stand there").hint(hint)
            );
        }
        self.check_response()
    }

    fn check_response(&self) -> Result<()> {
        let derived = self.verdict()?.response("{explanation}", "{label}");
        // The explanation is the whole answer, its verdict line included: pretraining on somebody's finished answers.
        if [derived.as_str(), WHOLE_ANSWER, ""].contains(&self.response.as_str()) {
            return Ok(());
        }
        Err(Error::usage(format!("key response must be what follows from key verdict, or {WHOLE_ANSWER:?}"))
            .hint("leave it out: it follows from key verdict, whose line is how an answer is read back"))
    }

    /// The record's fields that this prompt needs, each once, the document among them.
    pub fn fields(&self) -> Vec<String> {
        let mut fields: Vec<String> = Vec::new();
        for part in [&self.system, &self.user, &self.question] {
            for field in self.parts(part).into_iter().filter_map(Part::into_field) {
                if !fields.contains(&field) {
                    fields.push(field);
                }
            }
        }
        fields
    }

    /// The same prompt with nothing put into the assistant's mouth (teachers, baselines).
    #[must_use]
    pub fn without_prefix(mut self) -> Self {
        self.prefix.clear();
        self
    }

    /// The prompt with `date` as now, where it is rendered by a chat template that reads the clock and has no date yet.
    ///
    /// A date is taken once a run and kept with the prompt: tomorrow's prompts are today's, token for token.
    #[must_use]
    pub fn dated(mut self, tokenizer: &TextTokenizer, date: &str) -> Self {
        if self.format == PromptFormat::Chat && self.date.is_none() && tokenizer.reads_clock() {
            self.date = Some(date.to_owned());
        }
        self
    }

    /// Refuses (exit 2) constructed explanations, which end before their verdict line, where they are to be learned as
    /// whole answers.
    pub fn check_constructed(&self) -> Result<()> {
        if self.response != WHOLE_ANSWER {
            return Ok(());
        }
        Err(Error::usage(format!(
            "task.prompt: key response = {WHOLE_ANSWER:?} is for answers that hold their verdict line, which \
             construct takes off: no text would name a label"
        ))
        .hint("leave key response out of the prompt file"))
    }

    /// The response for an explanation and a label.
    pub(super) fn respond(&self, explanation: &str, label: &str, verdict: &Verdict) -> String {
        if self.response == WHOLE_ANSWER { explanation.to_owned() } else { verdict.response(explanation, label) }
    }

    /// `text` cut at its placeholders, `{document}` resolved to the field's own name.
    pub(super) fn parts(&self, text: &str) -> Vec<Part> {
        split(text)
            .into_iter()
            .map(|part| match part {
                Part::Field(name) if name == "document" => Part::Field(self.document.clone()),
                part => part,
            })
            .collect()
    }

    /// `text` with this text for each of its placeholders.
    pub(super) fn filled<'a>(&self, text: &str, field: &dyn Fn(&str) -> Result<&'a str>) -> Result<String> {
        let filled = self.parts(text).into_iter().map(|part| match part {
            Part::Literal(text) => Ok(text),
            Part::Field(name) => field(&name).map(str::to_owned),
        });
        filled.collect()
    }

    /// The user's message: `user`, a blank line, `question`.
    pub(super) fn user_message(&self) -> String {
        if self.question.is_empty() { self.user.clone() } else { format!("{}\n\n{}", self.user, self.question) }
    }
}

impl Part {
    fn into_field(self) -> Option<String> {
        match self {
            Self::Field(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

/// Cuts at `{identifier}`; any other brace is itself, so JSON examples need no escapes.
pub(super) fn split(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        literal.push_str(&rest[..open]);
        let inner = &rest[open + 1..];
        let name_len = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, after) = inner.split_at(name_len);
        if after.starts_with('}') && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(name.to_owned()));
            rest = &after[1..];
        } else {
            literal.push('{');
            rest = inner;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(user: &str) -> PromptTemplate {
        toml::from_str(&format!("user = {user:?}")).unwrap()
    }

    #[test]
    fn placeholders_are_identifiers_in_braces_and_nothing_else() {
        let literal = |s: &str| Part::Literal(s.into());
        assert_eq!(
            split("a {b} {\"c\": 1} {} {d e} {9} {f_2}"),
            [literal("a "), Part::Field("b".into()), literal(" {\"c\": 1} {} {d e} {9} "), Part::Field("f_2".into())]
        );
        assert_eq!(split("{{x}}"), [literal("{"), Part::Field("x".into()), literal("}")]);
        assert_eq!(split(""), []);
    }

    #[test]
    fn document_is_its_field() {
        let mut template = template("{claim} {document}");
        template.document = "abstract".into();
        assert_eq!(template.fields(), ["claim", "abstract"]);
        template.check().unwrap();
    }

    #[test]
    fn a_task_does_not_show_what_it_asks_for() {
        for field in ASKED_FOR {
            let shown = format!("{{{field}}}");
            let plain = template("{document}");
            let document = PromptTemplate { document: field.to_owned(), ..plain.clone() };
            for wrong in [
                PromptTemplate { system: shown.clone(), ..plain.clone() },
                PromptTemplate { question: format!("Is it {shown}?"), ..plain },
                template(&format!("{{document}} {shown}")),
                document,
            ] {
                wrong.check().unwrap();
                let error = wrong.check_task().unwrap_err();
                assert!(error.exit_code() == 2 && error.to_string().contains(&format!("`{field}`")), "{error}");
            }
        }
    }

    #[test]
    fn wrong_templates_are_usage_errors() {
        let mut no_label = template("{document}");
        no_label.response = "{explanation}\n".into();
        // Not what the verdict gives.
        let mut other_line = template("{document}");
        other_line.response = "{explanation}\n\nAnswer: {label}\n\n".into();
        let mut right = other_line.clone();
        right.verdict = "Answer: {label}".into();
        right.check().unwrap();
        let mut label_first = template("{document}");
        label_first.verdict = "{label} it is".into();
        let mut prefix = template("{document}");
        prefix.prefix = "{document}".into();
        for wrong in [template("no document"), no_label, other_line, label_first, prefix] {
            assert_eq!(wrong.check().unwrap_err().exit_code(), 2);
        }
    }
}
