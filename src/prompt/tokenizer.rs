//! Text to ids and back.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde_json::Value;
use tokenizers::{
    Encoding, Model, OffsetType, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, Token, Tokenizer,
};

use super::{
    encoder::{self, Encoder, Following, PiecePosition},
    files::TokenizerFiles,
    pieces::Pieces,
    vocab::{self, ControlToken, Vocabulary},
};
use crate::{
    error::{Error, Result},
    foreign,
};

/// A model's tokenizer with its control tokens kept apart from text: [`TextTokenizer::encode`] knows none of them.
pub struct TextTokenizer {
    /// Knows no control tokens.
    encoder: Encoder,
    /// Cuts long texts.
    pub(super) pieces: Pieces,
    /// Longest first.
    controls: Vec<ControlToken>,
    /// Text of control tokens by id, for decoding; special ones are `None`.
    control_text: HashMap<u32, Option<String>>,
    /// What HF puts before and after a text by default.
    default_special: (Vec<u32>, Vec<u32>),
    special_tokens: BTreeMap<&'static str, String>,
    chat_template: Option<String>,
    /// The file that it stands in.
    template_place: String,
    vocab_size: usize,
    eog: u32,
    stop_ids: Vec<u32>,
    hash: String,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("stop_ids", &self.stop_ids)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads a model folder, or a `.gguf` file.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_files(&TokenizerFiles::load(path)?)
    }

    /// From bytes in memory.
    pub fn from_files(files: &TokenizerFiles) -> Result<Self> {
        let owned = files.clone();
        let bytes = files.named().map(|(_, bytes)| bytes.len()).sum();
        encoder::build(bytes, move || Self::build(&owned))
            .and_then(|tokenizer| tokenizer.encoder.try_out().map(|()| tokenizer))
            .map_err(|e| if e.to_string().contains(&files.name) { e } else { e.context(&files.name) })
    }

    fn build(files: &TokenizerFiles) -> Result<Self> {
        let settings = files.settings()?;
        let specials: Vec<&str> = settings.special_tokens.values().map(String::as_str).collect();
        let json = files.json("tokenizer.json", Some(&files.tokenizer))?;
        let Vocabulary { plain, controls, post_processor, size } =
            vocab::take_apart(json, &settings.added_tokens, &specials)?;
        encoder::check(&plain, controls.len())?;
        let failed = |e: &dyn std::fmt::Display| Error::model(format!("tokenizer.json: {}", foreign::reason(e)));
        let later = later_pre_tokenizer(&plain["pre_tokenizer"])?;
        let (pieces, normalizer) = Pieces::of(&plain)?;
        let following = Following { normalizer, pre_tokenizer: following_pre_tokenizer(&plain["pre_tokenizer"])? };
        let bytes = serde_json::to_vec(&plain).map_err(|e| failed(&e))?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| failed(&e))?;
        let encoder = Encoder::new(&plain, tokenizer, later, following, &files.name);
        drop(plain);

        let id_of = |text: &String| {
            let control = controls.iter().find(|control| control.content == *text).map(|control| control.id);
            control.or_else(|| encoder.plain().token_to_id(text))
        };
        // Without a named end of turn, the first `eos_token_id` is one.
        let eog =
            settings.special_tokens.get("eos_token").and_then(id_of).or_else(|| settings.stop_ids.first().copied());
        let eog = eog.ok_or_else(|| {
            Error::model("no end-of-turn token")
                .hint("tokenizer_config.json must name eos_token, and tokenizer.json must hold it")
        })?;
        let mut stop_ids = settings.stop_ids;
        stop_ids.push(eog);
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let control_text =
            controls.iter().map(|control| (control.id, (!control.special).then(|| control.content.clone()))).collect();
        Ok(Self {
            default_special: default_special(post_processor)?,
            encoder,
            pieces,
            controls,
            control_text,
            special_tokens: settings.special_tokens,
            chat_template: settings.chat_template,
            template_place: settings.template_place,
            vocab_size: size,
            eog,
            stop_ids,
            hash: files.hash(),
        })
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a generation: `tokenizer_config.eos_token`.
    pub fn eog(&self) -> u32 {
        self.eog
    }

    /// Every token that stops a generation, [`TextTokenizer::eog`] among them, ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Whether only the prompt may hold this id.
    pub fn is_control(&self, id: u32) -> bool {
        self.control_text.contains_key(&id)
    }

    /// Refuses a tokenizer with ids beyond the model's vocabulary (exit 4).
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        let last = self.stop_ids.iter().map(|&id| id as usize + 1).max().unwrap_or(0).max(self.vocab_size);
        if last > model_vocab {
            return Err(Error::model(format!(
                "the tokenizer has ids up to {}, but the model's vocabulary ends at {model_vocab}",
                last - 1
            ))
            .hint("tokenizer and model are not a pair"));
        }
        Ok(())
    }

    /// Ids of a text that stands for itself behind others (sentencepiece puts a blank before it): no control tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_at(text, false)
    }

    /// Ids of a text that goes on within what is written already: nothing is put before it.
    pub fn encode_within(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let place = PiecePosition { begins: false, follows: true };
        self.each_piece(text, place, OffsetType::None, |_, piece| ids.extend_from_slice(piece.get_ids()))?;
        Ok(ids)
    }

    /// Ids of a text by itself, behind what HF puts before one by default (BOS): no control tokens within.
    pub fn encode_alone(&self, text: &str) -> Result<Vec<u32>> {
        Ok([self.default_special().0, &self.encode_at(text, true)?].concat())
    }

    /// Ids of a text in which nothing is a control token. `begins` says that the text opens its prompt.
    pub(super) fn encode_at(&self, text: &str, begins: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let place = PiecePosition { begins, follows: false };
        self.each_piece(text, place, OffsetType::None, |_, piece| ids.extend_from_slice(piece.get_ids()))?;
        Ok(ids)
    }

    /// Byte offsets at which a text may be cut so that no token of its own encoding is split, from 0 to its length, and
    /// the number of its tokens. Tokens that share a character have no boundary between them.
    pub(super) fn boundaries(&self, text: &str) -> Result<(Vec<usize>, usize)> {
        let mut boundaries = vec![0];
        let mut end = 0;
        let mut tokens = 0;
        let place = PiecePosition { begins: true, follows: false };
        self.each_piece(text, place, OffsetType::Byte, |first, piece| {
            for (start, token_end) in piece.get_offsets().iter().map(|(start, end)| (first + start, first + end)) {
                if start >= end && start > boundaries[boundaries.len() - 1] && text.is_char_boundary(start) {
                    boundaries.push(start);
                }
                end = token_end.max(end);
            }
            tokens += piece.len();
        })?;
        if text.len() > boundaries[boundaries.len() - 1] {
            boundaries.push(text.len());
        }
        Ok((boundaries, tokens))
    }

    /// Encodes a text piece by piece: `take` gets where each piece begins (in bytes) and its encoding. `place` is the
    /// first one's. A piece of over 1 MB is an error (exit 3).
    fn each_piece(
        &self,
        text: &str,
        mut place: PiecePosition,
        offsets: OffsetType,
        mut take: impl FnMut(usize, Encoding),
    ) -> Result<()> {
        let mut start = 0;
        while start < text.len() {
            let length = self.first_piece(&text[start..])?;
            take(start, self.encoder.encode(&text[start..start + length], place, offsets)?);
            place = PiecePosition { begins: false, follows: true };
            start += length;
        }
        Ok(())
    }

    /// Length in bytes of a text's first piece.
    pub(super) fn first_piece(&self, text: &str) -> Result<usize> {
        self.pieces.first(self.encoder.plain(), text)
    }

    /// The text of ids, special tokens left out; fails (exit 4, 5) where the tokenizer's decoder does.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let plain = self.encoder.plain();
        let model = plain.get_model();
        let tokens: Vec<String> = ids
            .iter()
            .filter_map(|id| match self.control_text.get(id) {
                Some(text) => text.clone(),
                None => plain.get_added_vocabulary().simple_id_to_token(*id).or_else(|| model.id_to_token(*id)),
            })
            .collect();
        self.encoder.decode(tokens)
    }

    /// Control tokens, longest first.
    pub(super) fn controls(&self) -> &[ControlToken] {
        &self.controls
    }

    /// What HF puts before and after a text by default: BOS, mostly.
    pub(super) fn default_special(&self) -> (&[u32], &[u32]) {
        (&self.default_special.0, &self.default_special.1)
    }

    /// What messages call it: the folder, mostly.
    pub(super) fn name(&self) -> &str {
        self.encoder.name()
    }

    /// [`TokenizerFiles::hash`] of the files that it was made from.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether the chat template asks what day it is.
    pub fn reads_clock(&self) -> bool {
        self.chat_template().is_some_and(|source| source.contains("strftime_now"))
    }

    /// The chat template's source.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The file that the chat template stands in.
    pub(super) fn template_place(&self) -> &str {
        &self.template_place
    }

    /// `bos_token` → its text, and so on, as a chat template sees them.
    pub(super) fn special_tokens(&self) -> &BTreeMap<&'static str, String> {
        &self.special_tokens
    }
}

/// The pre-tokenizer of text that does not begin a prompt, where that differs.
fn later_pre_tokenizer(json: &Value) -> Result<Option<PreTokenizerWrapper>> {
    let mut json = json.clone();
    replace_scheme(&mut json).then(|| pre_tokenizer(json)).transpose()
}

/// Of a Metaspace that puts a blank before every text: the same without. One among others may need it, for words that
/// were split from their blanks before it.
fn following_pre_tokenizer(json: &Value) -> Result<Option<PreTokenizerWrapper>> {
    let mut json = json.clone();
    let prepends = json["type"] == "Metaspace" && json["prepend_scheme"] != "never";
    prepends
        .then(|| {
            json["prepend_scheme"] = "never".into();
            pre_tokenizer(json)
        })
        .transpose()
}

fn pre_tokenizer(json: Value) -> Result<PreTokenizerWrapper> {
    serde_json::from_value(json)
        .map_err(|e| Error::model(format!("tokenizer.json, pre_tokenizer: {}", foreign::reason(&e))))
}

fn replace_scheme(json: &mut Value) -> bool {
    if json["prepend_scheme"] == "first" {
        json["prepend_scheme"] = "never".into();
        return true;
    }
    let nested = json.get_mut("pretokenizers").and_then(Value::as_array_mut);
    // Counted, not `any`: every one of them is to be replaced.
    nested.is_some_and(|nested| nested.iter_mut().map(replace_scheme).filter(|&found| found).count() > 0)
}

/// Ids that the post-processor puts before and after a text.
fn default_special(post_processor: Value) -> Result<(Vec<u32>, Vec<u32>)> {
    if post_processor.is_null() {
        return Ok((Vec::new(), Vec::new()));
    }
    let error =
        |e: &dyn std::fmt::Display| Error::model(format!("tokenizer.json, post_processor: {}", foreign::reason(e)));
    let post_processor: PostProcessorWrapper = serde_json::from_value(post_processor).map_err(|e| error(&e))?;
    // A text of one token that no vocabulary has shows where a text stands.
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, String::new(), (0, 0))], 0);
    let ids = post_processor.process(text, None, true).map_err(|e| error(&e))?.get_ids().to_vec();
    let Some(position) = ids.iter().position(|&id| id == u32::MAX) else { return Err(error(&"it drops the text")) };
    Ok((ids[..position].to_vec(), ids[position + 1..].to_vec()))
}
