//! The lines of batch files: what `vllm run-batch` reads and writes.
//!
//! That runner takes `/v1/chat/completions` alone. A line therefore brings a chat template that repeats its one
//! message, which is the whole prompt as text: the tokens are ours, which the runner's own count must confirm. It
//! wants `--trust-request-chat-template`.

use serde_json::{Value, json};

use super::{
    Choice, Completion, PromptTransport, RemoteModel, RequestFailure, answer,
    question::{Question, spelled},
};

/// Why a line is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The runner says that it failed, or what it says is garbled: it may be asked again.
    Failed,
    /// Another model's.
    OtherModel,
    /// To another prompt, by the count of its tokens.
    OtherPrompt,
}

/// The line that asks for an answer to a prompt of these ids.
///
/// # Errors
/// [`RequestFailure::ControlText`] where no text stands for the ids.
pub fn request(model: &RemoteModel, id: &str, ids: &[u32], choice: Choice) -> Result<Value, RequestFailure> {
    let text = spelled(model.tokenizer(), ids, false)?;
    let question = Question::raw(text, ids.len(), choice);
    let url = format!("/v1{}", question.path());
    Ok(json!({ "custom_id": id, "method": "POST", "url": url, "body": question.fields(model, true) }))
}

/// Whether a line says that its request failed.
pub fn failed(line: &Value) -> bool {
    !line["error"].is_null() || line["response"]["status_code"].as_u64().is_some_and(|status| status != 200)
}

/// What a line answers to a prompt of so many tokens.
pub fn answer(model: &RemoteModel, line: &Value, tokens: usize, max_tokens: usize) -> Result<Completion, NoAnswer> {
    if failed(line) {
        return Err(NoAnswer::Failed);
    }
    let body = &line["response"]["body"];
    if body["model"].as_str().is_some_and(|name| name != model.name()) {
        return Err(NoAnswer::OtherModel);
    }
    answer::read(body, Some((tokens, PromptTransport::Text { adds_bos: false })), max_tokens).map_err(|failure| {
        match failure {
            RequestFailure::ControlText => NoAnswer::OtherPrompt,
            _ => NoAnswer::Failed,
        }
    })
}
