//! A prompt as one text, for a server that takes no token ids and finds control tokens in whatever it is sent.

use super::{
    TextTokenizer,
    segments::{PromptSpan, Segments},
};
use crate::error::Result;

impl TextTokenizer {
    /// Ids of a text as a server reads it, which takes the name of a control token for the token wherever it stands.
    /// Nothing is put before or after.
    pub fn read(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_runs(&Segments::of_text(text, self).assemble(|_| Ok(""))?)
    }

    /// The text that a server reads as exactly these ids; `None` where there is none. So it is where a record's text
    /// holds the name of a control token: a server would take it for the token.
    pub fn spell(&self, ids: &[u32]) -> Option<String> {
        let mut text = String::new();
        for run in ids.chunk_by(|a, b| !self.is_control(*a) && !self.is_control(*b)) {
            match self.controls().iter().find(|control| [control.id] == run) {
                Some(control) => text.push_str(&control.content),
                None => text.push_str(&self.decode(run).ok()?),
            }
        }
        self.read(&text).is_ok_and(|read| read == ids).then_some(text)
    }

    /// The name of a control token.
    pub fn control_name(&self, id: u32) -> Option<&str> {
        self.controls().iter().find(|control| control.id == id).map(|control| control.content.as_str())
    }

    /// Whether a text holds the name of a control token.
    pub fn names_control(&self, text: &str) -> bool {
        self.controls().iter().any(|control| text.contains(&control.content))
    }

    /// Ids of a prompt's stretches.
    pub(super) fn encode_runs(&self, runs: &[PromptSpan]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for run in runs {
            match run {
                PromptSpan::Id(id) => ids.push(*id),
                PromptSpan::Text { text, begins } => ids.extend(self.encode_at(text, *begins)?),
            }
        }
        Ok(ids)
    }
}
