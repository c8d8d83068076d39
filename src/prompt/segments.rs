//! A prompt as a list of steps, made once for a task and a model, and run for each record.
//!
//! Words of the prompt file and of the chat template are searched for control tokens here, once; a record's text never
//! is. What a chat template does to a message by its content, stripping, becomes two marks around it.

use std::borrow::Cow;

use super::{
    chat::{Piece, render},
    jinja::Message,
    template::{Part, PromptFormat, PromptTemplate},
    tokenizer::TextTokenizer,
    vocab::ControlToken,
};
use crate::error::{Error, Result, ResultExt};

/// What makes up a prompt, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// An id that the tokenizer adds by itself: it has no place in the text.
    Default(u32),
    /// A control token of template or prompt file.
    Control(ControlToken),
    /// Plain words of template or prompt file.
    Literal(String),
    /// A field of the record.
    Field(String),
    /// Whitespace is stripped from here on.
    StripStart,
    /// Whitespace is stripped up to here, back to [`Step::StripStart`] at most.
    StripEnd,
}

/// A stretch of a record's prompt.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PromptSpan {
    /// A control token.
    Id(u32),
    /// Text, encoded as one piece. `begins` tells whether it opens the prompt.
    Text { text: String, begins: bool },
}

/// The steps of a prompt.
#[derive(Debug)]
pub(super) struct Segments {
    steps: Vec<Step>,
}

impl Segments {
    /// Renders the template for this model.
    pub(super) fn new(template: &PromptTemplate, tokenizer: &TextTokenizer) -> Result<Self> {
        let mut steps = Vec::new();
        match template.format {
            PromptFormat::Chat => chat_steps(template, tokenizer, &mut steps)?,
            PromptFormat::Plain => plain_steps(template, tokenizer, &mut steps),
        }
        Ok(Self { steps })
    }

    /// A text in which control tokens are found by their names.
    pub(super) fn of_text(text: &str, tokenizer: &TextTokenizer) -> Self {
        let mut steps = Vec::new();
        literal(text, tokenizer.controls(), &mut steps);
        Self { steps }
    }

    /// The prompt with this text for each field, in stretches.
    pub(super) fn assemble<'a>(&self, field: impl Fn(&str) -> Result<&'a str>) -> Result<Vec<PromptSpan>> {
        let mut assembly = Assembly::default();
        for step in &self.steps {
            match step {
                Step::Default(id) => assembly.spans.push(PromptSpan::Id(*id)),
                Step::Control(control) => assembly.control(control),
                Step::Literal(text) => assembly.text(text),
                Step::Field(name) => assembly.text(field(name)?),
                Step::StripStart => assembly.strip_start(),
                Step::StripEnd => assembly.strip_end(),
            }
        }
        assembly.flush();
        Ok(assembly.spans)
    }
}

fn chat_steps(template: &PromptTemplate, tokenizer: &TextTokenizer, steps: &mut Vec<Step>) -> Result<()> {
    let source = tokenizer.chat_template().ok_or_else(|| {
        Error::model("the model has no chat template")
            .hint("set format = \"plain\" in the prompt file, or put a chat_template.jinja into the model folder")
    })?;
    let mut messages = Vec::new();
    if !template.system.is_empty() {
        messages.push((Message { role: "system" }, template.parts(&template.system)));
    }
    messages.push((Message { role: "user" }, template.parts(&template.user_message())));
    let (messages, contents): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
    let rendered = render(source, tokenizer.special_tokens(), &messages, template.date.as_deref());
    for piece in rendered.context(tokenizer.template_place())? {
        match piece {
            Piece::Literal(text) => literal(&text, tokenizer.controls(), steps),
            Piece::Content { message, trim_start, trim_end } => {
                steps.extend(trim_start.then_some(Step::StripStart));
                parts(&contents[message], tokenizer.controls(), steps);
                steps.extend(trim_end.then_some(Step::StripEnd));
            }
        }
    }
    literal(&template.prefix, tokenizer.controls(), steps);
    Ok(())
}

fn plain_steps(template: &PromptTemplate, tokenizer: &TextTokenizer, steps: &mut Vec<Step>) {
    let (before, after) = tokenizer.default_special();
    steps.extend(before.iter().map(|&id| Step::Default(id)));
    let user = template.user_message();
    let system = if template.system.is_empty() { String::new() } else { format!("{}\n\n", template.system) };
    parts(&template.parts(&format!("{system}{user}\n\n{}", template.prefix)), tokenizer.controls(), steps);
    steps.extend(after.iter().map(|&id| Step::Default(id)));
}

fn parts(parts: &[Part], controls: &[ControlToken], steps: &mut Vec<Step>) {
    for part in parts {
        match part {
            Part::Literal(text) => literal(text, controls, steps),
            Part::Field(name) => steps.push(Step::Field(name.clone())),
        }
    }
}

/// Cuts words at their control tokens: the leftmost first, of those that begin there the longest.
fn literal(text: &str, controls: &[ControlToken], steps: &mut Vec<Step>) {
    let mut rest = text;
    let next = |rest: &str| {
        rest.char_indices().find_map(|(start, _)| {
            Some((start, controls.iter().find(|control| rest[start..].starts_with(&control.content))?))
        })
    };
    while let Some((start, control)) = next(rest) {
        if start > 0 {
            steps.push(Step::Literal(rest[..start].to_owned()));
        }
        steps.push(Step::Control(control.clone()));
        rest = &rest[start + control.content.len()..];
    }
    if !rest.is_empty() {
        steps.push(Step::Literal(rest.to_owned()));
    }
}

/// What Python's `str.strip` takes off: Unicode's whitespace and the four information separators.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Spans under construction.
#[derive(Default)]
struct Assembly {
    spans: Vec<PromptSpan>,
    /// The text of the span being written.
    text: String,
    /// How much of `text` no stripping may touch.
    floor: usize,
    /// Whitespace is being skipped: since a [`Step::StripStart`], or since a control token that swallows it.
    skip: Option<fn(char) -> bool>,
    /// Something that has a place in the text came before.
    begun: bool,
}

impl Assembly {
    fn text(&mut self, text: &str) {
        let text = match self.skip {
            Some(space) => Cow::Borrowed(text.trim_start_matches(space)),
            None => Cow::Borrowed(text),
        };
        if !text.is_empty() {
            self.text.push_str(&text);
            self.skip = None;
        }
    }

    fn control(&mut self, control: &ControlToken) {
        if control.lstrip {
            self.text.truncate(self.text.trim_end().len());
        }
        self.flush();
        self.spans.push(PromptSpan::Id(control.id));
        self.begun = true;
        self.skip = control.rstrip.then_some(char::is_whitespace);
    }

    fn strip_start(&mut self) {
        self.floor = self.text.len();
        self.skip = Some(is_python_space);
    }

    fn strip_end(&mut self) {
        let kept = self.text[self.floor..].trim_end_matches(is_python_space).len();
        self.text.truncate(self.floor + kept);
        self.skip = None;
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.spans.push(PromptSpan::Text { text: std::mem::take(&mut self.text), begins: !self.begun });
            self.begun = true;
        }
        self.floor = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(id: u32, content: &str) -> ControlToken {
        ControlToken { id, content: content.into(), special: true, lstrip: false, rstrip: false }
    }

    fn show(runs: &[PromptSpan]) -> Vec<String> {
        runs.iter()
            .map(|run| match run {
                PromptSpan::Id(id) => format!("#{id}"),
                PromptSpan::Text { text, begins } => format!("{}{text}", if *begins { "^" } else { "" }),
            })
            .collect()
    }

    #[test]
    fn control_tokens_are_found_leftmost_longest() {
        let controls = [control(2, "<|ab|>"), control(1, "<|a"), control(3, "|>")];
        let mut steps = Vec::new();
        literal("x<|ab|><|a|>é", &controls, &mut steps);
        let control = |i: usize| Step::Control(controls[i].clone());
        assert_eq!(steps, [Step::Literal("x".into()), control(0), control(1), control(2), Step::Literal("é".into())]);
    }

    #[test]
    fn a_record_is_plain_text_and_is_stripped_with_its_message() {
        let steps = vec![
            Step::Control(control(1, "<s>")),
            Step::Literal("\n".into()),
            Step::StripStart,
            Step::Literal(" ".into()),
            Step::Field("a".into()),
            Step::Literal(" b ".into()),
            Step::Field("a".into()),
            Step::Literal("\n".into()),
            Step::StripEnd,
            Step::Control(control(1, "<s>")),
        ];
        let segments = Segments { steps };
        assert_eq!(show(&segments.assemble(|_| Ok("<s>")).unwrap()), ["#1", "\n<s> b <s>", "#1"]);
        assert_eq!(show(&segments.assemble(|_| Ok("\u{1f} ")).unwrap()), ["#1", "\nb", "#1"]);
        assert_eq!(show(&segments.assemble(|_| Ok(" c ")).unwrap()), ["#1", "\nc  b  c", "#1"]);
    }

    #[test]
    fn tokens_that_swallow_whitespace() {
        let both = ControlToken { lstrip: true, rstrip: true, ..control(1, "<x>") };
        let segments = Segments {
            steps: vec![
                Step::Default(9),
                Step::Field("a".into()),
                Step::Control(both),
                Step::Literal(" ".into()),
                Step::Field("a".into()),
            ],
        };
        assert_eq!(show(&segments.assemble(|_| Ok(" c ")).unwrap()), ["#9", "^ c", "#1", "c "]);
    }
}
