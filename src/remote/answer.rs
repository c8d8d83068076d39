//! What a server sent back.

use serde_json::Value;

use super::{PromptTransport, RequestFailure};
use crate::data::Finish;

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Completion {
    /// What was written.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens written, as the server counts them.
    pub generated_tokens: usize,
}

impl std::fmt::Debug for Completion {
    /// No text: an answer can quote its record.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion").field("finish", &self.finish).finish_non_exhaustive()
    }
}

/// The one answer of a completion, whose prompt must have had so many tokens.
pub(super) fn read(
    body: &Value,
    counts: Option<(usize, PromptTransport)>,
    max_tokens: usize,
) -> Result<Completion, RequestFailure> {
    let choice = only_choice(body)?;
    if let Some((tokens, transport)) = counts {
        match (count(body, "prompt_tokens"), transport) {
            (Some(counted), _) if counted == tokens => {}
            // It read other tokens in the text than were meant.
            (Some(_), PromptTransport::Text { .. }) => return Err(RequestFailure::ControlText),
            _ => return Err(RequestFailure::Unusable),
        }
    }
    let finish = match choice["finish_reason"].as_str() {
        Some("stop" | "eos_token" | "stop_sequence") => Finish::Stop,
        Some("length") => Finish::Length,
        // Cut off by a filter, aborted, a call of a tool: not an answer.
        _ => return Err(RequestFailure::Unusable),
    };
    let text = match choice.get("message") {
        Some(message) => said(message)?,
        None => choice["text"].as_str().ok_or(RequestFailure::Unusable)?.to_owned(),
    };
    let generated_tokens = count(body, "completion_tokens").filter(|&written| written <= max_tokens);
    Ok(Completion { text, finish, generated_tokens: generated_tokens.ok_or(RequestFailure::Unusable)? })
}

/// A chat's message; thoughts that the server took out of it stand before it again.
fn said(message: &Value) -> Result<String, RequestFailure> {
    let thought = ["reasoning_content", "reasoning"].into_iter().find_map(|key| message[key].as_str());
    match (message["content"].as_str(), thought.filter(|thought| !thought.is_empty())) {
        (Some(text), None) => Ok(text.to_owned()),
        (text, Some(thought)) => Ok(format!("<think>{thought}</think>{}", text.unwrap_or_default())),
        (None, None) => Err(RequestFailure::Unusable),
    }
}

/// `usage.<name>`
pub(super) fn count(body: &Value, name: &str) -> Option<usize> {
    usize::try_from(body["usage"][name].as_u64()?).ok()
}

fn only_choice(body: &Value) -> Result<&Value, RequestFailure> {
    match body["choices"].as_array().map(Vec::as_slice) {
        Some([choice]) => Ok(choice),
        _ => Err(RequestFailure::Garbled),
    }
}

/// The log-probabilities of the last `wanted` of a prompt's `tokens` tokens, of a completion that repeats its prompt.
pub(super) fn log_probabilities(body: &Value, tokens: usize, wanted: usize) -> Result<Vec<f64>, RequestFailure> {
    if count(body, "prompt_tokens") != Some(tokens) {
        return Err(RequestFailure::Garbled);
    }
    let all = token_logprobs(only_choice(body)?)?;
    // The prompt's, and perhaps that of a token after it.
    if all.len() != tokens && all.len() != tokens + 1 {
        return Err(RequestFailure::Garbled);
    }
    all[..tokens].iter().skip(tokens - wanted.min(tokens)).map(log_probability).collect()
}

/// An answer of one token, with its log-probability.
pub(super) fn one_token(body: &Value) -> Result<(String, f64), RequestFailure> {
    let choice = only_choice(body)?;
    let text = choice["text"].as_str().ok_or(RequestFailure::Garbled)?;
    match token_logprobs(choice)? {
        [number] => Ok((text.to_owned(), log_probability(number)?)),
        _ => Err(RequestFailure::Garbled),
    }
}

fn token_logprobs(choice: &Value) -> Result<&[Value], RequestFailure> {
    choice["logprobs"]["token_logprobs"].as_array().map(Vec::as_slice).ok_or(RequestFailure::Garbled)
}

fn log_probability(number: &Value) -> Result<f64, RequestFailure> {
    number.as_f64().filter(|number| number.is_finite() && *number <= 1e-3).ok_or(RequestFailure::Garbled)
}
