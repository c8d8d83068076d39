//! The model's own chat template, rendered as HF renders it, with placeholders where messages will stand.
//!
//! HF's environment: Jinja with `trim_blocks`, `lstrip_blocks`, loop controls, Python's string methods,
//! `raise_exception` and `strftime_now`; the template sees `messages`, `add_generation_prompt`, `tools = none`,
//! `documents = none` and the named special tokens. A template may strip its messages, which a second rendering with
//! padded placeholders shows. Any other change to a message is refused: what the template would do to a record's text
//! must be known beforehand.

use std::collections::BTreeMap;

use super::jinja::{LIMITS, Message, refused, render_text};
use crate::{
    error::{Error, Result},
    ops::cpu::confined,
};

/// A stretch of the rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words of the template, control tokens among them.
    Literal(String),
    /// The content of a message.
    Content {
        /// Which message.
        message: usize,
        /// The template strips its start.
        trim_start: bool,
        /// The template strips its end.
        trim_end: bool,
    },
}

// Private-use characters, which no template writes, and paddings that Python and Unicode both call whitespace.
const OPEN: char = '\u{E0C5}';
const CLOSE: char = '\u{E0C6}';
const PAD_START: char = '\u{2003}';
const PAD_END: char = '\u{3000}';

/// Not a character at either end that stripping takes off.
const SAMPLE: &str = "Ab \"c\" \\ 'd' <e> & {f} {{ g }} {% h %}\r\n\n\n\t  É\u{a0}\u{2028}§ **i** j.";

fn placeholder(message: usize) -> String {
    format!("{OPEN}message{message}{CLOSE}")
}

/// Renders `messages` and the opened assistant's turn into pieces.
///
/// `date` is now for `strftime_now`, local time; without one, a template that reads the clock is refused.
pub(super) fn render(
    source: &str,
    special_tokens: &BTreeMap<&'static str, String>,
    messages: &[Message],
    date: Option<&str>,
) -> Result<Vec<Piece>> {
    let source = source.to_owned();
    let special_tokens = special_tokens.clone();
    let messages = messages.to_vec();
    let date = date.map(str::to_owned);
    let work = move || pieces(&source, &special_tokens, &messages, date.as_deref());
    confined::run(LIMITS, work).unwrap_or_else(|stopped| Err(stopped.into_error(refused)))
}

fn pieces(
    source: &str,
    special_tokens: &BTreeMap<&'static str, String>,
    messages: &[Message],
    date: Option<&str>,
) -> Result<Vec<Piece>> {
    let render_text = |contents: &[String]| render_text(source, special_tokens, messages, contents, date);
    let bare: Vec<String> = (0..messages.len()).map(placeholder).collect();
    let padded: Vec<String> = bare.iter().map(|text| format!("{PAD_START}{text}{PAD_END}")).collect();
    let (literals, order) = cut(&render_text(&bare)?, messages)?;
    let (padded, padded_order) = cut(&render_text(&padded)?, messages)?;
    if order != padded_order {
        return Err(transforms());
    }
    let mut pieces = Vec::new();
    for (i, literal) in literals.iter().enumerate() {
        // The padding that is left around this literal belongs to its neighbours.
        let rest = padded[i].strip_prefix(PAD_END).unwrap_or(&padded[i]);
        let rest = rest.strip_suffix(PAD_START).unwrap_or(rest);
        if rest != literal {
            return Err(transforms());
        }
        pieces.push(Piece::Literal(literal.clone()));
        if let Some(&message) = order.get(i) {
            pieces.push(Piece::Content {
                message,
                trim_start: !padded[i].ends_with(PAD_START),
                trim_end: !padded[i + 1].starts_with(PAD_END),
            });
        }
    }
    // What templates do to quotes, newlines or capitals shows on a text that has them.
    let sample = vec![SAMPLE.to_owned(); messages.len()];
    let expected: Vec<&str> =
        pieces.iter().map(|piece| if let Piece::Literal(text) = piece { text } else { SAMPLE }).collect();
    if render_text(&sample)? != expected.concat() {
        return Err(transforms());
    }
    Ok(pieces)
}

fn transforms() -> Error {
    refused("changes the text of its messages in a way other than stripping it")
}

/// The literals around the placeholders, and whose placeholders they are.
fn cut(rendered: &str, messages: &[Message]) -> Result<(Vec<String>, Vec<usize>)> {
    let mut literals = Vec::new();
    let mut order = Vec::new();
    let mut rest = rendered;
    while let Some(start) = rest.find(OPEN) {
        let Some(message) = (0..messages.len()).find(|&message| rest[start..].starts_with(&placeholder(message)))
        else {
            return Err(transforms());
        };
        literals.push(rest[..start].to_owned());
        order.push(message);
        rest = &rest[start + placeholder(message).len()..];
    }
    literals.push(rest.to_owned());
    for (i, message) in messages.iter().enumerate() {
        if !order.contains(&i) {
            return Err(Error::model(format!("the chat template leaves out the {} message", message.role))
                .hint("move its text into `user`, or set format = \"plain\" in the prompt file"));
        }
    }
    Ok((literals, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: [Message; 2] = [Message { role: "system" }, Message { role: "user" }];

    fn told(source: &str) -> Result<Vec<Piece>> {
        render(source, &BTreeMap::from([("bos_token", "<s>".to_owned())]), &MESSAGES, None)
    }

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.into())
    }

    #[test]
    fn stripping_is_seen_at_each_end() {
        let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{% endfor %}\n{%- \
            if add_generation_prompt %}[a]{% endif %}";
        let content = |message| Piece::Content { message, trim_start: true, trim_end: true };
        assert_eq!(
            told(source).unwrap(),
            [literal("<s>[system]"), content(0), literal("[user]"), content(1), literal("[a]")]
        );
        let source = "{{ messages[0].content }}{{ messages[1].content.lstrip() }} ";
        assert_eq!(
            told(source).unwrap(),
            [
                literal(""),
                Piece::Content { message: 0, trim_start: false, trim_end: false },
                literal(""),
                Piece::Content { message: 1, trim_start: true, trim_end: false },
                literal(" "),
            ]
        );
    }

    #[test]
    fn what_cannot_be_foreseen_is_refused() {
        for source in [
            "{{ messages[1].content }}",
            "{{ messages[0].content | tojson }}{{ messages[1].content }}",
            "{{ messages[0].content }}{{ messages[1].content.replace('\n\n', '\n') }}",
            "{{ messages[0].content | upper }}{{ messages[1].content }}",
            "{{ messages[0].content }}{{ messages[1].content | length }}{{ messages[1].content }}",
            "{{ raise_exception('no system role') }}",
            "{{ messages[0].content",
        ] {
            assert_eq!(told(source).unwrap_err().exit_code(), 4, "{source}");
        }
        assert!(told("{{ raise_exception('no system role') }}").unwrap_err().to_string().contains("no system role"));
    }

    #[test]
    fn hf_environment() {
        let source = "{% set ns = namespace(n=0) %}\n  {% for m in messages %}\n{% if loop.first %}{% continue %}{% \
            endif %}\n{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}\
                      {{ messages[0]['content'] }}{{ tools is none }}{{ strftime_now('%Y') }}{{ 'a-b'.split('-')[1] }}";
        let text =
            render_text(source, &BTreeMap::new(), &MESSAGES, &["S".into(), "U".into()], Some("2024-07-26")).unwrap();
        assert_eq!(text, "USTrue2024b");
    }

    #[test]
    fn now_is_the_prompts_date_or_nothing() {
        let source = "{{ messages[0].content }}{{ messages[1].content }}{{ strftime_now('%d %b %Y %H:%M') }}";
        let render = |date| render(source, &BTreeMap::new(), &MESSAGES, date);
        assert_eq!(render(Some("2024-07-26T23:59:58")).unwrap()[4], literal("26 Jul 2024 23:59"));
        assert!(render(None).unwrap_err().to_string().contains("the prompt has no date"));
    }
}
