//! The engine of chat templates under limits. A template is a program that came with a download: what it may nest,
//! repeat and write is bounded far beyond what any published one does, and nothing that it can be is waited for or
//! overflows the stack.

use std::collections::BTreeMap;

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, Value, context,
    machinery::{Token, tokenize},
    syntax::SyntaxConfig,
};

use crate::{
    error::{Error, Result},
    foreign,
    ops::cpu::confined::Limits,
};

/// What rendering may take in all. A published template takes some milliseconds and a megabyte.
pub(super) const LIMITS: Limits = Limits { bytes: 256 << 20, seconds: 20 };
/// Bytes of a template; the longest published ones have about 30,000.
const LONGEST: usize = 1 << 20;
/// Bytes of the words that a template puts around the messages.
const MOST_WRITTEN: usize = 1 << 17;
/// Steps of a rendering, each with 64 bytes of text; published templates take under 2,000.
const FUEL: u64 = 100_000;
/// Tokens between the brackets of one tag, which an expression may nest; published templates have under 200.
const MOST_IN_A_TAG: usize = 4_000;
/// `elif`s, each of which is nested in the one before; published templates have about 30.
const MOST_ELIFS: usize = 1_000;

/// A message to render.
#[derive(Clone, Copy)]
pub(super) struct Message {
    /// `system` or `user`.
    pub role: &'static str,
}

/// One rendering, as `apply_chat_template(messages, tokenize=False, add_generation_prompt=True)`.
pub(super) fn render_text(
    source: &str,
    special_tokens: &BTreeMap<&'static str, String>,
    messages: &[Message],
    contents: &[String],
    date: Option<&str>,
) -> Result<String> {
    if source.len() > LONGEST {
        return Err(refused(format!("has {} bytes, {LONGEST} at most are read", source.len())));
    }
    let source = without_generation_tags(source);
    let messages: Vec<Value> = messages
        .iter()
        .zip(contents)
        .map(|(message, content)| context! { role => message.role, content => content })
        .collect();
    let values = context! {
        messages => messages,
        tools => Value::from(()),
        documents => Value::from(()),
        add_generation_prompt => true,
        ..Value::from_pairs(special_tokens.iter().map(|(name, text)| (*name, text.as_str())))
    };
    let rendered = syntax().and_then(|syntax| {
        check_nesting(&source, &syntax)?;
        environment(syntax, date)?.render_str(&source, values)
    });
    match rendered {
        Ok(text) if text.len() > MOST_WRITTEN => {
            Err(refused(format!("writes {} bytes around the messages, {MOST_WRITTEN} at most are taken", text.len())))
        }
        Ok(text) => Ok(text),
        Err(e) if e.kind() == ErrorKind::OutOfFuel => {
            Err(refused(format!("takes more than {FUEL} steps, or text as long as that")))
        }
        Err(e) => Err(refused(format!("fails: {}", foreign::reason(&e)))),
    }
}

/// A template that is not used, and what else can be done.
pub(super) fn refused(what: impl std::fmt::Display) -> Error {
    Error::model(format!("the chat template {what}"))
        .hint("set format = \"plain\" in the prompt file, or give the model folder another chat_template.jinja")
}

fn syntax() -> Result<SyntaxConfig, JinjaError> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// The parser goes into `not not …`, `-- …` and the arms of an `if` by recursion, and what comes of a chain of filters
/// or operators is freed so: bounded before it begins.
fn check_nesting(source: &str, syntax: &SyntaxConfig) -> Result<(), JinjaError> {
    let mut in_tag = 0;
    let mut elifs = 0;
    for token in tokenize(source, false, syntax.clone()) {
        match token?.0 {
            Token::VariableStart | Token::BlockStart => in_tag = 0,
            Token::Ident("elif") => elifs += 1,
            _ => in_tag += 1,
        }
        if in_tag > MOST_IN_A_TAG || elifs > MOST_ELIFS {
            return Err(JinjaError::new(ErrorKind::SyntaxError, "an expression or an `if` is nested too deep"));
        }
    }
    Ok(())
}

fn environment(syntax: SyntaxConfig, date: Option<&str>) -> Result<Environment<'static>, JinjaError> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, JinjaError> {
        Err(JinjaError::new(ErrorKind::InvalidOperation, message))
    });
    let date = date.and_then(|date| date.parse::<jiff::civil::DateTime>().ok());
    environment.add_function("strftime_now", move |format: String| -> Result<String, JinjaError> {
        let failed = |what: &'static str| JinjaError::new(ErrorKind::InvalidOperation, what);
        // The machine's own clock would give another prompt tomorrow.
        let date = date.ok_or_else(|| failed("strftime_now: the prompt has no date"))?;
        jiff::fmt::strtime::format(&format, date).map_err(|_| failed("strftime_now: unknown format"))
    });
    Ok(environment)
}

/// HF's `{% generation %}` marks what an assistant wrote, for loss masks; it prints nothing.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}").map(|end| end + 2) else { break };
        let tag = &rest[start..start + length];
        let name = tag[2..length - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        result.push_str(&rest[..start]);
        if matches!(name, "generation" | "endgeneration") {
            // A comment keeps the tag's whitespace control.
            result.push_str(&tag.replacen("{%", "{#", 1).replacen("%}", "#}", 1));
        } else {
            result.push_str(tag);
        }
        rest = &rest[start + length..];
    }
    result + rest
}
