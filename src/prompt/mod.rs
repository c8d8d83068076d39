//! From a record to token ids and from generated text to a verdict. Layer 2.
//!
//! ```text
//! prompts/<task>.toml ─▶ PromptTemplate ┐
//! chat_template.jinja ─▶ chat::render   ├▶ segments (control ids, text parts)
//! tokenizer.json      ─▶ TextTokenizer  ┘
//! segments, Record ─▶ Prompter ─▶ ids up to t_n
//! generated text ─▶ Verdict::parse ─▶ explanation, label
//! ```
//!
//! The chat template is rendered once, with placeholders where a record's text will stand, and cut at its control
//! tokens. These become ids there and then; what lies between them is text, and text is encoded by a tokenizer that
//! knows no control tokens. So `<|eot_id|>` in a note stays eleven harmless characters, and every other prompt has
//! exactly the ids that HF gives.

mod chat;
mod encoder;
mod files;
mod fit;
pub mod gguf;
mod jinja;
mod pieces;
#[cfg(test)]
mod pieces_tests;
mod prompt_file;
mod prompter;
mod segments;
mod spelled;
mod template;
mod thoughts;
mod tokenizer;
mod verdict;
mod vocab;

pub use files::TokenizerFiles;
pub use prompt_file::{of_keys, parse_prompt_file, read_prompt_file};
pub use prompter::{Message, Prompter, Tokens};
pub use template::{PromptFormat, PromptTemplate};
pub use thoughts::after_thoughts;
pub use tokenizer::TextTokenizer;
pub use verdict::{Parsed, Verdict, find_alone};
