//! How a server takes prompts, found by trying, once, with words of our own.

use std::cell::Cell;

use serde_json::Value;

use super::{PromptTransport, Question, RemoteModel, RequestFailure, answer::count, client::Client, patiently};
use crate::error::{Error, Result};

/// Words and signs that two tokenizers hardly ever cut into as many pieces.
const WORDS: &str = "The 83 y/o patient's creatinine rose 1.7 \u{2192} 2.35 mg/dL; f\u{e9}brile, na\u{ef}ve caf\u{e9}, \
    electroencephalographically unremarkable.\n\n\t{\"a\": [10, 2000]}  if (x != y) return; \u{5317}\u{4eac} \u{41c}\
    \u{43e}\u{441}\u{43a}\u{432}\u{430} \u{1f600} q.i.d. ICD-10 I50.9   Levothyroxine 112mcg";

/// The way that the server takes prompts, and whether it takes fields beyond OpenAI's.
pub(super) fn probe(
    client: &Client,
    model: &RemoteModel,
    longest: usize,
    retries: u32,
) -> Result<(PromptTransport, bool)> {
    let probe = Probe { client, model, retries };
    probe.check_models(longest)?;
    for all_fields in [true, false] {
        if let Some(transport) = probe.transport(all_fields)? {
            if !all_fields {
                tracing::warn!(
                    "{}: {} takes no sampler fields beyond OpenAI's: top_k, min_p and repetition penalties are as it \
                    has them",
                    model.key,
                    model.url
                );
            }
            return Ok((transport, all_fields));
        }
    }
    Err(Error::run(format!("{}: the server {} takes no prompt: not as ids, text or messages", model.key, model.url))
        .hint("see its log; its address must end where /completions and /chat/completions begin"))
}

struct Probe<'a> {
    client: &'a Client,
    model: &'a RemoteModel,
    retries: u32,
}

impl Probe<'_> {
    /// What comes of a trial; `None` where the server will have none of it.
    fn try_once(&self, question: &Question, all_fields: bool) -> Result<Option<Value>> {
        let body = question.body(self.model, all_fields);
        let failed = Cell::new(0);
        let attempt = || match self.client.post(question.path(), &body) {
            // Some say 500 to what they do not take, and say it again.
            Err(RequestFailure::Failed(status @ (500 | 501), _)) if failed.replace(1) == 1 => {
                Err(RequestFailure::Refused(status))
            }
            reply => reply,
        };
        match patiently(self.retries, attempt) {
            // With no attempt left it is not said again.
            Err(RequestFailure::Failed(500 | 501, _)) => Ok(None),
            reply => self.settled(reply),
        }
    }

    fn settled(&self, reply: Result<Value, RequestFailure>) -> Result<Option<Value>> {
        match reply {
            Ok(body) => Ok(Some(body)),
            Err(RequestFailure::Refused(400 | 404 | 405 | 415 | 422 | 500 | 501)) => Ok(None),
            Err(failure) => Err(failure.into_error(self.model.key, &self.model.url)),
        }
    }

    /// Refuses (exit 2) a name that the server does not list, and a window beyond what it says of the model.
    fn check_models(&self, longest: usize) -> Result<()> {
        // The first word to the server: that it is down is said at once.
        let listed = match self.client.get("/models") {
            Err(
                RequestFailure::Busy(_) | RequestFailure::Failed(..) | RequestFailure::TimedOut | RequestFailure::Lost,
            ) => patiently(self.retries, || self.client.get("/models")),
            reply => reply,
        };
        let Some(listed) = self.settled(listed)? else { return Ok(()) };
        let RemoteModel { key, url, name, .. } = self.model;
        let Some(models) = listed["data"].as_array().filter(|models| !models.is_empty()) else { return Ok(()) };
        let Some(model) = models.iter().find(|model| model["id"] == name.as_str()) else {
            let names: Vec<&str> = models.iter().filter_map(|model| model["id"].as_str()).take(8).collect();
            return Err(Error::usage(format!("{key}_name: {url} has no model {name:?}"))
                .hint(format!("it has {}", names.join(", "))));
        };
        // vLLM and SGLang; llama.cpp, of a slot.
        match model["max_model_len"].as_u64().or_else(|| model["meta"]["n_ctx"].as_u64()) {
            Some(window) if longest as u64 > window => Err(Error::usage(format!(
                "{key}: prompt and answer may take {longest} tokens, {name} on {url} is served with {window}"
            ))
            .hint("start it with a longer --max-model-len (llama.cpp: --ctx-size), or lower the windows of tokens")),
            _ => Ok(()),
        }
    }

    fn transport(&self, all_fields: bool) -> Result<Option<PromptTransport>> {
        let tokenizer = self.model.tokenizer();
        let plain = tokenizer.read(WORDS)?;
        let ids = self.try_once(&Question::trial(Ok(&plain)), all_fields)?;
        let takes_ids = ids.is_some_and(|body| count(&body, "prompt_tokens") == Some(plain.len()));
        let counted = |text: &str| -> Result<Option<usize>> {
            let body = self.try_once(&Question::trial(Err(text)), all_fields)?;
            Ok(body.and_then(|body| count(&body, "prompt_tokens")))
        };
        // By our own count of its tokens the server's tokenizer is ours; it may put a BOS before them.
        let words = counted(WORDS)?;
        let adds_bos = match words {
            Some(counted) if counted == plain.len() => false,
            Some(counted) if counted == plain.len() + 1 => true,
            Some(counted) => return Err(self.other_tokenizer(plain.len(), counted)),
            None if takes_ids => return Ok(Some(PromptTransport::Ids)),
            None => return self.chat(all_fields),
        };
        // The end of a turn, which the server must find in a text where it stands for itself.
        let named = tokenizer.control_name(tokenizer.eog()).unwrap_or_default();
        let turns = counted(&format!("{WORDS}{named}\n{WORDS}"))?;
        let expected = tokenizer.read(&format!("{WORDS}{named}\n{WORDS}"))?.len() + usize::from(adds_bos);
        if takes_ids {
            if turns != Some(expected) {
                tracing::warn!(
                    "{}: {} does not count {named:?} as we do: see that {}_tokenizer is its tokenizer",
                    self.model.key,
                    self.model.url,
                    self.model.key
                );
            }
            return Ok(Some(PromptTransport::Ids));
        }
        if turns == Some(expected) { Ok(Some(PromptTransport::Text { adds_bos })) } else { self.chat(all_fields) }
    }

    fn chat(&self, all_fields: bool) -> Result<Option<PromptTransport>> {
        if self.try_once(&Question::trial_chat(WORDS), all_fields)?.is_none() {
            return Ok(None);
        }
        tracing::warn!(
            "{}: {} takes neither token ids nor text whose tokens can be counted. Prompts go to /chat/completions, \
            where the SERVER'S chat template makes them: they are not ours byte for byte, and what it does with them \
            cannot be checked",
            self.model.key,
            self.model.url
        );
        Ok(Some(PromptTransport::Chat))
    }

    fn other_tokenizer(&self, ours: usize, theirs: usize) -> Error {
        let RemoteModel { key, url, name, .. } = self.model;
        Error::usage(format!(
            "{key}_tokenizer: {name} on {url} has another tokenizer than {}: a text of {ours} tokens has {theirs}",
            self.model.tokenizer_path().display()
        ))
        .hint(format!("name the folder or hub id of the model that is served: --set {key}_tokenizer=DIR"))
    }
}
