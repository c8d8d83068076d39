//! The `tokenizers` crate over a file of somebody's. It panics on files that no writer would make, and a normalizer, a
//! decoder or a regular expression can be made to take any time and memory.
//!
//! What every Llama has runs as it is, its panics caught. Anything less known runs [confined]. Both are tried on a
//! short text when they are read.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::{
    Decoder, Encoding, Model, NormalizerWrapper, OffsetType, PreTokenizer, PreTokenizerWrapper, Tokenizer,
};

use super::pieces::{self, cannot_encode};
use crate::{
    error::{Error, Result},
    foreign,
    ops::cpu::confined::{self, Limits, Stopped},
};

/// By what a text may grow on its way through a normalizer or a decoder; `▁` for a space is 3.
const MOST_GROWTH: f64 = 1e6;
/// Growth that needs no watching.
const KNOWN_GROWTH: f64 = 64.0;
/// Bytes of what is put before a text, or for a match, at most.
const LONGEST_CONTENT: usize = 1 << 10;
/// Bytes of a token at most; the longest known have some hundred.
const LONGEST_TOKEN: usize = 1 << 16;
/// Control tokens at most; known tokenizers have under 7,000.
const MOST_CONTROLS: usize = 1 << 16;
/// Seconds of a piece, and of building a tokenizer.
const SECONDS: u64 = 60;
/// What a hostile expression stumbles over, and every kind of sign.
const TRIAL: &str = "The 2nd \"word\" isn't <i>é</i> — 你好, ﷺ 👩‍⚕️\r\n\n\t ##a_b|c \
                     {d} 1,234.5% \u{a0}▁x  \
                     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";

/// A tokenizer without its control tokens.
pub(super) struct Encoder {
    parts: Arc<Parts>,
    /// Not every part of it is known: it runs confined.
    confined: bool,
    decodes_confined: bool,
    /// What messages call it.
    name: String,
}

struct Parts {
    plain: Tokenizer,
    /// For text that does not begin a prompt, where the pre-tokenizer tells the two apart (Metaspace, scheme `first`).
    later: Option<PreTokenizerWrapper>,
    following: Following,
}

/// The steps for a piece that follows another, or other ids, within a text: nothing is put before it.
#[derive(Default)]
pub(super) struct Following {
    pub normalizer: Option<NormalizerWrapper>,
    /// Where it differs from the one of a text that does not begin its prompt.
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
}

/// Where a piece stands.
#[derive(Clone, Copy)]
pub(super) struct PiecePosition {
    /// It opens its prompt.
    pub begins: bool,
    /// It goes on within a text.
    pub follows: bool,
}

/// The limits of work over so many bytes.
fn limits(bytes: usize) -> Limits {
    Limits { bytes: (1 << 30) + bytes.saturating_mul(4_000), seconds: SECONDS }
}

/// Builds a tokenizer of a file of so many bytes, confined.
pub(super) fn build<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    confined::run(limits(bytes), work).unwrap_or_else(|stopped| Err(damaged(stopped)))
}

fn damaged(stopped: Stopped) -> Error {
    stopped.into_error(|stopped| {
        Error::model(format!("tokenizer.json {stopped}"))
            .hint("fetch the tokenizer's files again, or save them with HF's save_pretrained")
    })
}

impl Encoder {
    /// Of a `tokenizer.json` without its control tokens.
    pub(super) fn new(
        json: &Value,
        plain: Tokenizer,
        later: Option<PreTokenizerWrapper>,
        following: Following,
        name: &str,
    ) -> Self {
        let known = growth(&json["normalizer"]).is_some_and(|growth| growth <= KNOWN_GROWTH)
            && pieces::splits_are_known(&json["pre_tokenizer"])
            && json["model"]["type"] == "BPE";
        let decodes_known = growth(&json["decoder"]).is_some_and(|growth| growth <= KNOWN_GROWTH);
        Self {
            parts: Arc::new(Parts { plain, later, following }),
            confined: !known,
            decodes_confined: !decodes_known,
            name: name.to_owned(),
        }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tokenizer.
    pub(super) fn plain(&self) -> &Tokenizer {
        &self.parts.plain
    }

    /// Encodes and decodes a short text, as a record's would be: what panics or grows without end does so now (exit 4).
    /// A tokenizer that has no token for something in it may still be one.
    pub(super) fn try_out(&self) -> Result<()> {
        let parts = self.parts.clone();
        let trial = move || {
            for (begins, follows) in [(true, false), (false, false), (false, true)] {
                let encoding = parts.encode(TRIAL, PiecePosition { begins, follows }, OffsetType::Byte);
                let Ok(encoding) = encoding else { continue };
                let _ = parts.decode(encoding.get_tokens().to_vec());
            }
        };
        confined::run(limits(TRIAL.len()), trial).map_err(damaged)
    }

    /// The encoding of a piece. An error of exit 1 is the piece's own; one of exit 4 ends the command.
    pub(super) fn encode(&self, piece: &str, place: PiecePosition, offsets: OffsetType) -> Result<Encoding> {
        let encoded = if self.confined {
            let parts = self.parts.clone();
            let text = piece.to_owned();
            match confined::run(limits(piece.len()), move || parts.encode(&text, place, offsets).ok()) {
                Ok(encoded) => encoded,
                Err(Stopped::Panic) => None,
                Err(stopped) => return Err(damaged(stopped).context(&self.name)),
            }
        } else {
            foreign::caught(|| self.parts.encode(piece, place, offsets).ok()).flatten()
        };
        encoded.ok_or_else(cannot_encode)
    }

    /// The text of tokens. No decoder fails on tokens of its own model; one that does ends the command (exit 4): an
    /// empty text would pass for the model's.
    pub(super) fn decode(&self, tokens: Vec<String>) -> Result<String> {
        let decoded = if self.decodes_confined {
            let parts = self.parts.clone();
            let bytes = tokens.iter().map(String::len).sum();
            confined::run(limits(bytes), move || parts.decode(tokens))
        } else {
            foreign::caught(|| self.parts.decode(tokens)).ok_or(Stopped::Panic)
        };
        decoded.and_then(|text| text.ok_or(Stopped::Panic)).map_err(|stopped| damaged(stopped).context(&self.name))
    }
}

impl Parts {
    /// [`Tokenizer::encode`] with another pre-tokenizer for what does not begin its prompt, and other steps for what
    /// goes on within a text.
    fn encode(&self, piece: &str, place: PiecePosition, offsets: OffsetType) -> tokenizers::Result<Encoding> {
        let following = place.follows.then_some(&self.following);
        let normalizer = following.map_or(self.plain.get_normalizer(), |steps| steps.normalizer.as_ref());
        let later = self.later.as_ref().filter(|_| !place.begins);
        let pre_tokenizer = following.and_then(|steps| steps.pre_tokenizer.as_ref()).or(later);
        let pre_tokenizer = pre_tokenizer.or(self.plain.get_pre_tokenizer());
        let mut piece = self.plain.get_added_vocabulary().extract_and_normalize(normalizer, piece);
        if let Some(pre_tokenizer) = pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut piece)?;
        }
        self.plain.get_model().tokenize_in_pretokenized(&mut piece, None)?;
        piece.into_encoding(None, 0, offsets)
    }

    fn decode(&self, tokens: Vec<String>) -> Option<String> {
        match self.plain.get_decoder() {
            Some(decoder) => decoder.decode(tokens).ok(),
            None => Some(tokens.join(" ")),
        }
    }
}

/// Refuses what no tokenizer has: steps that make a text a million times as long, replace nothing by something, tokens
/// of megabytes.
pub(super) fn check(json: &Value, controls: usize) -> Result<()> {
    let refused = |what: String| {
        Err(Error::model(format!("tokenizer.json: {what}"))
            .hint("fetch the tokenizer's files again, or save them with HF's save_pretrained"))
    };
    for part in ["normalizer", "decoder"] {
        if growth(&json[part]).is_some_and(|growth| growth > MOST_GROWTH) {
            return refused(format!("its {part} makes a text without end of a short one"));
        }
        if has_empty_pattern(&json[part]) {
            return refused(format!("its {part} replaces an empty pattern"));
        }
    }
    if controls > MOST_CONTROLS {
        return refused(format!("it has {controls} control tokens, {MOST_CONTROLS} at most are taken"));
    }
    let vocab = &json["model"]["vocab"];
    let longest = match vocab {
        Value::Object(vocab) => vocab.keys().map(String::len).max(),
        Value::Array(pieces) => pieces.iter().filter_map(|piece| piece[0].as_str()).map(str::len).max(),
        _ => None,
    };
    match longest {
        Some(longest) if longest > LONGEST_TOKEN => refused(format!("it has a token of {longest} bytes")),
        _ => Ok(()),
    }
}

/// By what factor, at most, the steps of a normalizer or decoder make a text longer; `None` where one is not known.
fn growth(step: &Value) -> Option<f64> {
    let length = |key: &str| step[key].as_str().map(str::len);
    match step["type"].as_str() {
        None => step.is_null().then_some(1.0),
        Some("Sequence") => {
            let steps = step.get("normalizers").or(step.get("decoders"))?.as_array()?;
            steps.iter().map(growth).try_fold(1.0, |product: f64, growth| Some(product * growth?))
        }
        Some("Replace") => {
            let pattern = step["pattern"]["String"].as_str().map(str::len)?;
            Some((length("content")? as f64 / pattern.max(1) as f64).max(1.0))
        }
        Some("Prepend") => (length("prepend")? <= LONGEST_CONTENT).then_some(2.0),
        Some("NFC" | "StripAccents" | "Strip" | "Nmt" | "ByteFallback" | "Fuse") => Some(1.0),
        Some("ByteLevel" | "Lowercase" | "Metaspace") => Some(3.0),
        Some("NFD" | "BertNormalizer" | "NFKC" | "NFKD") => Some(12.0),
        _ => None,
    }
}

fn has_empty_pattern(step: &Value) -> bool {
    let mut steps = ["normalizers", "decoders"].iter().filter_map(|key| step[key].as_array()).flatten();
    let empty = |pattern: &Value| ["String", "Regex"].iter().any(|kind| pattern[kind] == "");
    (step["type"] == "Replace" && empty(&step["pattern"])) || steps.any(has_empty_pattern)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A text that is lost is an error: as an empty one it would pass for what the model wrote.
    #[test]
    fn a_decoder_that_fails_on_a_text_says_so() {
        let stumbling = json!({"type": "Replace", "pattern": {"Regex": "q(z+)+$"}, "content": "x"});
        let json = json!({"version": "1.0", "added_tokens": [], "decoder": stumbling,
            "model": {"type": "BPE", "vocab": {"q": 0, "z": 1}, "merges": []}});
        let plain: Tokenizer = serde_json::from_value(json.clone()).unwrap();
        let encoder = Encoder::new(&json, plain, None, Following::default(), "base/tokenizer.json");
        assert_eq!(encoder.decode(vec!["qzz".into(), "b".into()]).unwrap(), "xb");
        let error = encoder.decode(vec![format!("q{}b", "z".repeat(60))]).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().starts_with("base/tokenizer.json: tokenizer.json "), "{error}");
    }

    #[test]
    fn steps_multiply() {
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
        assert_eq!(growth(&Value::Null), Some(1.0));
        assert_eq!(growth(&sequence(vec![replace("▁"), json!({"type": "Prepend", "prepend": "▁"})])), Some(6.0));
        assert_eq!(growth(&json!({"type": "Precompiled"})), None);
        assert!(check(&json!({"normalizer": sequence(vec![replace("aa"); 60])}), 0).is_err());
        assert!(check(&json!({"normalizer": sequence(vec![replace(""); 60])}), 0).is_ok());
        let empty = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
        assert!(check(&json!({"decoder": sequence(vec![empty])}), 0).is_err());
        assert!(check(&json!({"model": {"vocab": {"x".repeat(1 << 17): 0}}}), 0).is_err());
        assert!(check(&json!({}), 1 << 20).is_err());
    }
}
