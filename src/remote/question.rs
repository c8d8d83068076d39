//! What a server is sent.

use serde_json::{Map, Value, json};

use super::{PromptTransport, RemoteModel, RequestFailure, Server};
use crate::prompt::{Message, TextTokenizer};

/// How tokens are chosen, and how many.
#[derive(Clone, Copy)]
pub struct Choice {
    /// Cap on new tokens.
    pub max_tokens: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Of this one answer.
    pub seed: u32,
    /// What is wanted beside the answer, or instead of it.
    log_probabilities: LogProbabilities,
}

/// Whose log-probabilities are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LogProbabilities {
    None,
    Answer,
    Prompt,
}

impl Choice {
    /// An answer of at most `max_tokens`.
    pub fn new(max_tokens: usize, temperature: f64, top_p: f64, seed: u32) -> Self {
        Self { max_tokens, temperature, top_p, seed, log_probabilities: LogProbabilities::None }
    }

    /// The likeliest token, with log-probabilities.
    pub(super) fn scored(of: LogProbabilities) -> Self {
        Self { log_probabilities: of, ..Self::new(1, 0.0, 1.0, 0) }
    }
}

/// A prompt as it is sent.
enum Prompt {
    Ids(Vec<u32>),
    Text(String),
    Chat(Vec<Message>),
    /// Text that a chat template of its own repeats.
    Raw(String),
}

/// Repeats the message.
const REPEAT: &str = "{{ messages[0]['content'] }}";

/// A question, ready to be sent.
pub struct Question {
    prompt: Prompt,
    /// Tokens of the prompt as we count them.
    tokens: usize,
    choice: Choice,
}

impl Server {
    /// The question that a prompt of these ids is. `messages` are what a server that takes no prompts is sent instead.
    ///
    /// # Errors
    /// [`RequestFailure::ControlText`] where the prompt cannot be sent as it is.
    pub fn question(
        &self,
        ids: &[u32],
        messages: Option<Vec<Message>>,
        choice: Choice,
    ) -> Result<Question, RequestFailure> {
        let prompt = match self.transport() {
            PromptTransport::Ids => Prompt::Ids(ids.to_vec()),
            PromptTransport::Text { adds_bos } => Prompt::Text(spelled(self.tokenizer(), ids, adds_bos)?),
            PromptTransport::Chat => Prompt::Chat(messages.ok_or(RequestFailure::ControlText)?),
        };
        Ok(Question { prompt, tokens: ids.len(), choice })
    }
}

/// The text that a server reads as these ids. One that puts its BOS before every text is not sent ours.
pub(super) fn spelled(tokenizer: &TextTokenizer, ids: &[u32], adds_bos: bool) -> Result<String, RequestFailure> {
    let text = tokenizer.spell(ids).ok_or(RequestFailure::ControlText)?;
    let first = ids.first().and_then(|&id| tokenizer.control_name(id));
    match first.filter(|_| adds_bos).and_then(|bos| text.strip_prefix(bos)) {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

impl Question {
    /// One token after these ids or this text.
    pub(super) fn trial(prompt: Result<&[u32], &str>) -> Self {
        let prompt = match prompt {
            Ok(ids) => Prompt::Ids(ids.to_vec()),
            Err(text) => Prompt::Text(text.to_owned()),
        };
        Self { prompt, tokens: 0, choice: Choice::new(1, 0.0, 1.0, 0) }
    }

    /// A prompt of so many tokens as a chat whose template repeats it.
    pub(super) fn raw(text: String, tokens: usize, choice: Choice) -> Self {
        Self { prompt: Prompt::Raw(text), tokens, choice }
    }

    /// One token after these words, as a chat.
    pub(super) fn trial_chat(words: &str) -> Self {
        let message = Message { role: "user", content: words.to_owned() };
        Self { prompt: Prompt::Chat(vec![message]), tokens: 0, choice: Choice::new(1, 0.0, 1.0, 0) }
    }

    /// The tokens that the server must have counted; `None` where the prompt is its own.
    pub(super) fn counts(&self, transport: PromptTransport) -> Option<(usize, PromptTransport)> {
        (transport != PromptTransport::Chat).then_some((self.tokens, transport))
    }

    /// Cap on new tokens.
    pub(super) fn max_tokens(&self) -> usize {
        self.choice.max_tokens
    }

    /// Where it is sent.
    pub fn path(&self) -> &'static str {
        match self.prompt {
            Prompt::Chat(_) | Prompt::Raw(_) => "/chat/completions",
            _ => "/completions",
        }
    }

    /// What is sent, as JSON.
    pub fn body(&self, model: &RemoteModel, all_fields: bool) -> Vec<u8> {
        serde_json::to_vec(&self.fields(model, all_fields)).unwrap_or_default()
    }

    /// The same as a value. Beside what decides an answer, every sampler field that a server would otherwise fill in
    /// (from the model's `generation_config.json`, say) has the value that changes nothing.
    pub fn fields(&self, model: &RemoteModel, all_fields: bool) -> Value {
        let choice = &self.choice;
        let tokenizer = model.tokenizer();
        let mut fields = Map::new();
        let mut set = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        set("model", json!(model.name));
        set("max_tokens", json!(choice.max_tokens));
        set("temperature", json!(choice.temperature));
        set("top_p", json!(choice.top_p));
        set("seed", json!(choice.seed));
        set("n", json!(1));
        set("stream", json!(false));
        set("presence_penalty", json!(0.0));
        set("frequency_penalty", json!(0.0));
        // OpenAI takes four.
        let stops = tokenizer.stop_ids().iter().filter_map(|&id| tokenizer.control_name(id)).take(4);
        set("stop", json!(stops.collect::<Vec<_>>()));
        if all_fields {
            neutral(tokenizer, &mut set);
        }
        match &self.prompt {
            Prompt::Ids(ids) => set("prompt", json!(ids)),
            Prompt::Text(text) => set("prompt", json!(text)),
            Prompt::Raw(text) => {
                set("messages", json!([{ "role": "user", "content": text }]));
                set("chat_template", json!(REPEAT));
                set("add_generation_prompt", json!(false));
            }
            Prompt::Chat(messages) => {
                set("messages", json!(messages));
                // vLLM and SGLang go on with a turn that has begun.
                if all_fields && messages.last().is_some_and(|last| last.role == "assistant") {
                    set("continue_final_message", json!(true));
                    set("add_generation_prompt", json!(false));
                }
            }
        }
        if choice.log_probabilities != LogProbabilities::None {
            set("logprobs", json!(1));
        }
        if choice.log_probabilities == LogProbabilities::Prompt {
            set("echo", json!(true));
        }
        fields.into()
    }
}

/// Sampler fields beyond OpenAI's, of vLLM, SGLang, llama.cpp and TGI, each at the value that changes nothing.
fn neutral(tokenizer: &TextTokenizer, set: &mut impl FnMut(&str, Value)) {
    // 0 and −1 switch it off here and are refused there; the whole vocabulary suits all.
    set("top_k", json!(tokenizer.vocab_size()));
    set("min_p", json!(0.0));
    set("typical_p", json!(1.0));
    set("tfs_z", json!(1.0));
    set("repetition_penalty", json!(1.0));
    set("repeat_penalty", json!(1.0));
    set("mirostat", json!(0));
    set("mirostat_mode", json!(0));
    set("dynatemp_range", json!(0.0));
    set("xtc_probability", json!(0.0));
    set("dry_multiplier", json!(0.0));
    set("length_penalty", json!(1.0));
    set("min_tokens", json!(0));
    set("ignore_eos", json!(false));
    set("stop_token_ids", json!(tokenizer.stop_ids()));
    set("skip_special_tokens", json!(true));
    // The prompt has its own.
    set("add_special_tokens", json!(false));
}
