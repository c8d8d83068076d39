//! Where a long text may be cut so that the ids of its pieces, one after another, are the ids of the whole.
//!
//! The `tokenizers` crate takes about 250 bytes of memory a byte of text, so texts are given to it in pieces. A cut is
//! made only where no token can lie across it, whatever the text:
//!
//! * [`Rule::Words`]: a regular expression finds words from left to right, and where a word ends depends on nothing
//!   before it. A stretch from a known cut is split by the tokenizer's own pre-tokenizer, and the last end of a word
//!   that the text after the stretch cannot move is the next cut.
//! * [`Rule::Spaces`]: Metaspace begins a word at every space.
//! * [`Rule::AfterWords`]: sentencepiece without a pre-tokenizer merges over the whole text, but no token of its
//!   vocabulary has a space behind another character, so no merge crosses from a word to the space after it.
//!
//! Any other tokenizer gets its texts whole ([`Rule::Nowhere`]).

use serde_json::Value;
use tokenizers::{
    NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizer, Tokenizer, pre_tokenizers::metaspace::Metaspace,
};

use crate::{
    error::{Error, Result},
    foreign,
};

/// Bytes of text that are tokenised at once, where cuts are found.
const STRETCH: usize = 1 << 16;
/// Bytes of a text without a place to cut, at most.
const LONGEST: usize = 1_000_000;
/// How many bytes behind a word its regular expression may look, generously: `'re` is the longest that it tries.
const LOOK_AHEAD: usize = 64;
/// What sentencepiece writes for a space.
const SPACE: char = '▁';

/// Cuts texts for one tokenizer.
pub(super) struct Pieces {
    rule: Rule,
    /// Bytes of a piece, where cuts are found.
    pub(super) stretch: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Behind a word that ends this many bytes before the end of a stretch.
    Words {
        margin: usize,
    },
    /// Before any space.
    Spaces,
    /// Before a space that follows anything but a space.
    AfterWords,
    Nowhere,
}

impl Pieces {
    /// Of a `tokenizer.json` without its control tokens, and the normalizer for a piece that follows another: without
    /// the space that is put before a text.
    pub(super) fn of(tokenizer: &Value) -> Result<(Self, Option<NormalizerWrapper>)> {
        let mut normalizer = tokenizer["normalizer"].clone();
        if normalizer["type"] == "Prepend" {
            normalizer = Value::Null;
        } else if let Some(steps) = normalizer.get_mut("normalizers").and_then(Value::as_array_mut) {
            steps.retain(|step| step["type"] != "Prepend");
        }
        let normalizer = serde_json::from_value(normalizer)
            .map_err(|e| Error::model(format!("tokenizer.json, normalizer: {}", foreign::reason(&e))))?;
        Ok((Self { rule: rule(tokenizer), stretch: STRETCH }, normalizer))
    }

    /// Length in bytes of the first piece of a text that is not empty. A text of over 1 MB that cannot be cut within
    /// its first 1 MB is an error (exit 3).
    pub(super) fn first(&self, tokenizer: &Tokenizer, text: &str) -> Result<usize> {
        let mut stretch = self.stretch;
        loop {
            if text.len() <= stretch {
                return Ok(text.len());
            }
            if let Some(cut) = self.last_cut(tokenizer, &text[..text.floor_char_boundary(stretch)])? {
                return Ok(cut);
            }
            if stretch >= LONGEST {
                return Err(Error::data("holds a word of over 1 MB, which has no place to cut").hint(HINT));
            }
            stretch = (2 * stretch).min(LONGEST);
        }
    }

    /// The last place in a text at which a longer text that begins with it may be cut.
    fn last_cut(&self, tokenizer: &Tokenizer, text: &str) -> Result<Option<usize>> {
        let before = |at: usize| text[..at].chars().next_back();
        Ok(match self.rule {
            // No known expression goes on from a letter or digit to a space, whatever stands around them: ordinary text
            // is not split twice. Only words of the tokenizer's own might.
            Rule::Words { margin: LOOK_AHEAD } if gap(text).is_some() => gap(text),
            Rule::Words { margin } => {
                let mut words =
                    tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
                if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
                    foreign::caught(|| pre_tokenizer.pre_tokenize(&mut words).ok())
                        .flatten()
                        .ok_or_else(cannot_encode)?;
                }
                let ends = words
                    .get_splits(OffsetReferential::Original, OffsetType::Byte)
                    .into_iter()
                    .map(|(_, (_, end), _)| end);
                // How far a run of spaces is one word depends on what follows the run: only behind a visible sign is
                // the end certain.
                ends.rev().find(|&end| end + margin <= text.len() && before(end).is_some_and(is_visible))
            }
            Rule::Spaces => text.rfind(' ').filter(|&at| at > 0),
            Rule::AfterWords => text
                .rmatch_indices(' ')
                .map(|(at, _)| at)
                .find(|&at| before(at).is_some_and(|c| c != ' ' && c != SPACE)),
            Rule::Nowhere => None,
        })
    }
}

/// What a text is told by that has no encoding; no word of it.
pub(super) fn cannot_encode() -> Error {
    Error::run("the tokenizer cannot encode a text")
}

const HINT: &str = "text is cut between words: such a word is no language but data; take it out of the record";

/// The last place between a letter or digit and a space, ASCII both.
fn gap(text: &str) -> Option<usize> {
    text.as_bytes()
        .windows(2)
        .rposition(|pair| pair[0].is_ascii_alphanumeric() && pair[1] == b' ')
        .map(|before| before + 1)
}

/// A sign that no version of Unicode counts among the spaces.
fn is_visible(c: char) -> bool {
    c.is_alphanumeric() || c.is_ascii_punctuation() || matches!(c, '、' | '。' | '，')
}

fn rule(tokenizer: &Value) -> Rule {
    let words: &[Value] = tokenizer["added_tokens"].as_array().map_or(&[], Vec::as_slice);
    // These look at what stands beside them, as far as it goes.
    let looks_around = |word: &Value| ["lstrip", "rstrip", "single_word"].iter().any(|flag| word[flag] == true);
    if words.iter().any(looks_around) {
        return Rule::Nowhere;
    }
    let normalizers = steps(&tokenizer["normalizer"], "normalizers");
    let pre_tokenizers = steps(&tokenizer["pre_tokenizer"], "pretokenizers");
    if normalizers.is_empty() && splits_by_words(pre_tokenizers) {
        let longest = words.iter().filter_map(|word| word["content"].as_str()).map(str::len).max().unwrap_or(0);
        return Rule::Words { margin: LOOK_AHEAD + longest };
    }
    let replaces =
        |step: &&Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "▁";
    let metaspace = match pre_tokenizers {
        [step] => serde_json::from_value::<Metaspace>(step.clone())
            .ok()
            .filter(|metaspace| metaspace.get_replacement() == SPACE),
        _ => None,
    };
    let known = words.is_empty()
        && (pre_tokenizers.is_empty() || metaspace.is_some())
        && normalizers.iter().all(|step| step["type"] == "Prepend" || replaces(&step));
    match metaspace {
        Some(metaspace) if known && metaspace.get_split() => Rule::Spaces,
        _ if !known || !keeps_words_apart(&tokenizer["model"]) => Rule::Nowhere,
        Some(_) => Rule::AfterWords,
        None if normalizers.iter().any(|step| replaces(&step)) => Rule::AfterWords,
        None => Rule::Nowhere,
    }
}

/// The steps of a sequence, or the one step; none of null.
fn steps<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    match json[key].as_array() {
        Some(steps) => steps,
        None if json.is_null() => &[],
        None => std::slice::from_ref(json),
    }
}

/// Whether a pre-tokenizer has no other regular expressions than known ones.
pub(super) fn splits_are_known(pre_tokenizer: &Value) -> bool {
    let known = |step: &Value| match step["type"].as_str() {
        None => step.is_null(),
        Some("Split") => step["pattern"]["Regex"].as_str().is_some_and(finds_words),
        Some(kind) => matches!(kind, "ByteLevel" | "Digits" | "Metaspace"),
    };
    steps(pre_tokenizer, "pretokenizers").iter().all(known)
}

/// Digits one by one, perhaps; then one known regular expression; bytes as characters.
fn splits_by_words(steps: &[Value]) -> bool {
    let digits = steps.iter().take_while(|step| step["type"] == "Digits").count();
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    match &steps[digits..] {
        [words] => byte_level(words, true),
        [split, bytes] => {
            let isolated = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
            isolated && byte_level(bytes, false) && split["pattern"]["Regex"].as_str().is_some_and(finds_words)
        }
        _ => false,
    }
}

/// Whether a regular expression is made of these alternatives alone, which are those of GPT-2, Llama 3 and Qwen 2. None
/// looks behind; each stops at the first character that it does not match, and needs no more than that one or an ending
/// of three letters to know it, but for those of spaces, which read a run of spaces to its end.
fn finds_words(regex: &str) -> bool {
    const ENDINGS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";
    const ALTERNATIVES: [&str; 19] = [
        r"'s",
        r"'t",
        r"'re",
        r"'ve",
        r"'m",
        r"'ll",
        r"'d",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r" ?\p{L}+",
        r"\p{N}",
        r"\p{N}{1,3}",
        r" ?\p{N}",
        r" ?\p{N}+",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r" ?[^\s\p{L}\p{N}]+",
        r"\s*[\r\n]+",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s+",
    ];
    regex.strip_prefix(ENDINGS).unwrap_or(regex).split('|').all(|part| ALTERNATIVES.contains(&part))
}

/// Whether no merge can join a space to what stands before it.
fn keeps_words_apart(model: &Value) -> bool {
    let plain = |key: &str| model[key].as_str().unwrap_or_default().is_empty();
    let bpe = model["type"] == "BPE" && model["ignore_merges"] != true;
    let Some(vocab) = model["vocab"].as_object() else { return false };
    let apart = |token: &String| !token.trim_start_matches(SPACE).contains(SPACE);
    bpe && plain("continuing_subword_prefix")
        && plain("end_of_word_suffix")
        && vocab.contains_key("▁")
        && vocab.keys().all(apart)
}
