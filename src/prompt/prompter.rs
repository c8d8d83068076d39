//! From a record to prompt and target ids.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{
    Parsed, PromptTemplate, TextTokenizer, Verdict,
    fit::Cuts,
    segments::{PromptSpan, Segments},
};
use crate::{
    config::Truncate,
    data::Record,
    error::{Error, Result},
    labels::{Class, Labels},
};

/// A prompt or a target, cut to its window. `Debug` prints counts only: ids are the note's text in another alphabet.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids; a prompt's last one is t_n, a target's EOG.
    pub ids: Vec<u32>,
    /// Tokens by which the document or the explanation was shortened.
    pub truncated_tokens: usize,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("tokens", &self.ids.len())
            .field("truncated_tokens", &self.truncated_tokens)
            .finish()
    }
}

/// A message of a chat. `Debug` prints its length only.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What it says.
    pub content: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("role", &self.role).field("bytes", &self.content.len()).finish()
    }
}

/// Makes prompts and targets for one task and one model.
#[derive(Debug)]
pub struct Prompter {
    template: PromptTemplate,
    tokenizer: Arc<TextTokenizer>,
    labels: Labels,
    verdict: Verdict,
    max_input_tokens: usize,
    max_output_tokens: usize,
    truncate: Truncate,
    segments: Segments,
    opens_thought: bool,
}

impl Prompter {
    /// Renders the template once and checks that it fits the windows without a document (exit 2 otherwise).
    pub fn new(
        template: PromptTemplate,
        tokenizer: Arc<TextTokenizer>,
        labels: Labels,
        max_input_tokens: usize,
        max_output_tokens: usize,
        truncate: Truncate,
    ) -> Result<Self> {
        template.check()?;
        let verdict = template.verdict()?;
        let segments = Segments::new(&template, &tokenizer)?;
        let opens_thought = false;
        let mut prompter = Self {
            template,
            tokenizer,
            labels,
            verdict,
            max_input_tokens,
            max_output_tokens,
            truncate,
            segments,
            opens_thought,
        };
        let named = prompter.tokenizer.clone();
        let own_words = |error: Error| match error.exit_code() {
            1 => Error::model(format!("{}: {error} of the prompt", named.name()))
                .hint("its vocabulary and its steps do not belong together: fetch the tokenizer's files again"),
            _ => error,
        };
        let empty = prompter.encode(&prompter.segments.assemble(|_| Ok(""))?).map_err(own_words)?;
        prompter.opens_thought = ends_in_thought(&prompter.tokenizer.decode(&empty)?, &prompter.template.prefix);
        let needed = empty.len();
        if needed == 0 {
            return Err(Error::usage("the prompt has no token without its document")
                .hint("give it a prefix: its last token is t_n"));
        }
        if needed > max_input_tokens {
            return Err(Error::usage(format!(
                "the prompt takes {needed} tokens without its document, model.max_input_tokens is {max_input_tokens}"
            ))
            .hint("raise model.max_input_tokens or shorten the prompt file"));
        }
        for class in prompter.labels.classes() {
            let needed = prompter.target_ids("", class).map_err(&own_words)?.len();
            if needed > max_output_tokens {
                return Err(Error::usage(format!(
                    "the target takes {needed} tokens without its explanation, model.max_output_tokens is \
                    {max_output_tokens}"
                ))
                .hint("raise model.max_output_tokens"));
            }
        }
        Ok(prompter)
    }

    /// The prompt of a record, its document cut where it does not fit.
    pub fn prompt(&self, record: &Record) -> Result<Tokens> {
        Ok(self.fitted(record)?.1)
    }

    /// The same as messages that a server renders with a chat template of its own; `None` where a field of the record
    /// holds the name of a control token, which the server would take for the token.
    pub fn messages(&self, record: &Record) -> Result<Option<Vec<Message>>> {
        let (document, _) = self.fitted(record)?;
        let template = &self.template;
        let fields = template.fields();
        let field = |name: &str| if name == template.document { Ok(&*document) } else { self.field(record, name) };
        for name in &fields {
            if self.tokenizer.names_control(field(name)?) {
                return Ok(None);
            }
        }
        let mut messages = Vec::new();
        let parts = [("system", &template.system), ("user", &template.user_message()), ("assistant", &template.prefix)];
        for (role, text) in parts.into_iter().filter(|(_, text)| !text.is_empty()) {
            messages.push(Message { role, content: template.filled(text, &field)? });
        }
        Ok(Some(messages))
    }

    /// The document as far as it fits, and the prompt with it.
    fn fitted<'a>(&self, record: &'a Record) -> Result<(Cow<'a, str>, Tokens)> {
        let document = self.field(record, &self.template.document)?;
        let full = self.with_document(record, document)?;
        if full.len() <= self.max_input_tokens {
            return Ok((Cow::Borrowed(document), Tokens { ids: full, truncated_tokens: 0 }));
        }
        let (boundaries, tokens) =
            self.tokenizer.boundaries(document).map_err(|error| self.name_field(record, error))?;
        let cuts = Cuts::new(document, boundaries, self.truncate);
        let share = room(full.len() - self.max_input_tokens, tokens);
        let keep =
            cuts.longest(self.max_input_tokens, share, |document| Ok(self.with_document(record, document)?.len()))?;
        let Some(keep) = keep else {
            let field = &self.template.document;
            return Err(Error::data(format!(
                "record {}: its prompt does not fit model.max_input_tokens even without field {field}",
                record.place()
            ))
            .hint("only that field may be cut; raise model.max_input_tokens or shorten the other fields"));
        };
        let kept = cuts.keep(keep);
        let ids = self.with_document(record, &kept)?;
        Ok((Cow::Owned(kept), Tokens { truncated_tokens: full.len() - ids.len(), ids }))
    }

    /// The target for an explanation and a class, the explanation's end cut where it does not fit.
    pub fn target(&self, explanation: &str, class: Class) -> Result<Tokens> {
        let full = self.target_ids(explanation, class)?;
        if full.len() <= self.max_output_tokens {
            return Ok(Tokens { ids: full, truncated_tokens: 0 });
        }
        let (boundaries, tokens) = self.tokenizer.boundaries(explanation)?;
        let cuts = Cuts::new(explanation, boundaries, Truncate::Tail);
        let share = room(full.len() - self.max_output_tokens, tokens);
        let keep =
            cuts.longest(self.max_output_tokens, share, |explanation| Ok(self.target_ids(explanation, class)?.len()))?;
        // `new` has seen the target without an explanation fit.
        let ids = self.target_ids(&cuts.keep(keep.unwrap_or(0)), class)?;
        Ok(Tokens { truncated_tokens: full.len() - ids.len(), ids })
    }

    /// Whether the prompt ends inside a thought that the answer must close: DeepSeek-R1's chat template ends in
    /// `<think>`, and a generation prefix behind that stands in the thought.
    pub fn opens_thought(&self) -> bool {
        self.opens_thought
    }

    /// Tokens of the longest prompt.
    pub fn max_input_tokens(&self) -> usize {
        self.max_input_tokens
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// The prompt file's keys.
    pub fn template(&self) -> &PromptTemplate {
        &self.template
    }

    /// What the task calls its classes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The line that names the class.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What a text that this prompt was answered with says.
    pub fn parse(&self, text: &str) -> Parsed {
        self.verdict.parse(text, &self.labels, &self.template.prefix)
    }

    fn field<'a>(&self, record: &'a Record, name: &str) -> Result<&'a str> {
        record.field(name).ok_or_else(|| {
            Error::data(format!("record {}: field {name} is missing", record.place()))
                .hint("the prompt file names it; map it to a column in [data.fields]")
        })
    }

    fn with_document(&self, record: &Record, document: &str) -> Result<Vec<u32>> {
        let runs = self
            .segments
            .assemble(|name| if name == self.template.document { Ok(document) } else { self.field(record, name) })?;
        self.encode(&runs).map_err(|error| self.name_field(record, error))
    }

    /// Says which record and field hold the word that is too long to encode.
    fn name_field(&self, record: &Record, error: Error) -> Error {
        if error.exit_code() != 3 {
            return error;
        }
        let alone = record.fields.iter().find(|(_, text)| self.tokenizer.encode(text).is_err()).map(|(name, _)| name);
        error.context(format!("record {}, field {}", record.place(), alone.unwrap_or(&self.template.document)))
    }

    fn encode(&self, runs: &[PromptSpan]) -> Result<Vec<u32>> {
        self.tokenizer.encode_runs(runs)
    }

    /// The response with its end token. An explanation is somebody's text: no control token is read in it.
    fn target_ids(&self, explanation: &str, class: Class) -> Result<Vec<u32>> {
        let label = self
            .labels
            .name(class)
            .ok_or_else(|| Error::data(format!("class {class}: the task has {} classes", self.labels.count())))?;
        let mut ids = self.tokenizer.encode_at(&self.template.respond(explanation, label, &self.verdict), true)?;
        ids.push(self.tokenizer.eog());
        Ok(ids)
    }
}

/// Whether a prompt that ends in `prefix` leaves a thought open.
fn ends_in_thought(prompt: &str, prefix: &str) -> bool {
    let opened = prefix.rfind("<think>");
    let closed = prefix.rfind("</think>");
    if opened.is_some() || closed.is_some() {
        return opened > closed;
    }
    // Some decoders drop the space that a prefix ends in.
    let prompt = prompt.trim_end();
    let prefix = prefix.trim();
    prompt.strip_suffix(prefix).unwrap_or(prompt).trim_end().ends_with("<think>")
}

/// The part of a text of `tokens` tokens that is left when `excess` of them go.
fn room(excess: usize, tokens: usize) -> f64 {
    1.0 - excess as f64 / tokens.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::ends_in_thought;

    #[test]
    fn a_thought_is_open_until_it_is_closed_whatever_prefix_follows() {
        for (prompt, prefix, open) in [
            ("<user>Think in <think> tags.<assistant>", "", false),
            ("<assistant><think>\n", "", true),
            ("<assistant><think>\nReasoning: ", "Reasoning: ", true),
            ("<assistant><think>\nReasoning:", "Reasoning: ", true),
            ("<assistant><think>\n\n</think>\n\nReasoning: ", "Reasoning: ", false),
            ("<assistant><think>\n</think>Reasoning: ", "</think>Reasoning: ", false),
            ("<assistant><think>\n", "<think>\n", true),
            ("<assistant>Reasoning: ", "Reasoning: ", false),
        ] {
            assert_eq!(ends_in_thought(prompt, prefix), open, "{prompt:?} {prefix:?}");
        }
    }
}
