//! Ids, count and cuts of a text in pieces against the same tokenizer with the text in one.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{TextTokenizer, TokenizerFiles};

/// Pieces this short meet every kind of cut in a text that a test can afford; they grow where there is none.
const SHORT: usize = 160;

fn from_json(tokenizer: &Value) -> TextTokenizer {
    let tokenizer = tokenizer.to_string().into_bytes();
    let config = json!({"eos_token": "</s>"}).to_string().into_bytes();
    let files =
        TokenizerFiles { name: "toy".into(), tokenizer, tokenizer_config: Some(config), ..TokenizerFiles::default() };
    TextTokenizer::from_files(&files).unwrap()
}

/// Sentencepiece's kind of BPE with merges, runs of spaces among them, unless `edit` makes another of it.
fn sentencepiece(edit: impl Fn(&mut Value)) -> TextTokenizer {
    let pieces = ["<unk>", "</s>", "▁", "a", "b", "é", "\n", "ab", "▁a", "▁ab", "▁▁", "▁▁▁▁", "ba", "bab", "1", "11"];
    let vocab: serde_json::Map<String, Value> =
        pieces.iter().zip(0..).map(|(piece, id)| ((*piece).into(), json!(id))).collect();
    let mut json = json!({
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [{"id": 1, "content": "</s>", "special": true, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": false}],
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab,
            "merges": [["a", "b"], ["▁", "▁"], ["▁▁", "▁▁"], ["▁", "ab"], ["▁", "a"], ["b", "ab"], ["b", "a"],
                   ["1",
            "1"]]}
    });
    edit(&mut json);
    from_json(&json)
}

fn prepended(json: &mut Value) {
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
}

fn metaspace(scheme: &str, split: bool) -> impl Fn(&mut Value) {
    move |json| {
        json["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
    }
}

/// Byte-level BPE with a few merges and words of its own that a cut could hit.
fn byte_level(words: &[&str]) -> TextTokenizer {
    let demo: Value = serde_json::from_slice(include_bytes!("../demo/model/tokenizer.json")).unwrap();
    let mut json = demo;
    let next = json["model"]["vocab"].as_object().unwrap().len();
    let word = |(word, id): (&&str, usize)| {
        json!({"id": id, "content": word, "special": false, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": false})
    };
    json["added_tokens"] = words.iter().zip(next..).map(word).collect();
    let config = json!({"eos_token": "<|endoftext|>"}).to_string().into_bytes();
    let tokenizer = json.to_string().into_bytes();
    let files =
        TokenizerFiles { name: "toy".into(), tokenizer, tokenizer_config: Some(config), ..TokenizerFiles::default() };
    TextTokenizer::from_files(&files).unwrap()
}

/// Every kind that is cut: name, tokenizer.
fn kinds() -> Vec<(&'static str, TextTokenizer)> {
    let mut kinds = vec![
        ("prepend and replace", sentencepiece(prepended)),
        ("metaspace, always", sentencepiece(metaspace("always", true))),
        ("metaspace, first", sentencepiece(metaspace("first", true))),
        ("metaspace, never", sentencepiece(metaspace("never", true))),
        ("metaspace, first, whole", sentencepiece(metaspace("first", false))),
        ("metaspace, always, whole", sentencepiece(metaspace("always", false))),
        ("demo", byte_level(&[])),
        ("demo with words", byte_level(&["COVID-19", "a b", "   ", "ab ab", "\n\n"])),
    ];
    let real = [
        ("Llama 3.1", std::env::var_os("CLSGEN_SHARED").map(|shared| Path::new(&shared).join("data/llama3-tokenizer"))),
        ("SmolLM2", std::env::var_os("CLSGEN_SMOLLM2").map(PathBuf::from)),
    ];
    kinds.extend(real.into_iter().filter_map(|(name, path)| Some((name, TextTokenizer::load(&path?).unwrap()))));
    kinds
}

/// Text of every sort that a pre-tokenizer treats in its own way.
fn text() -> impl Strategy<Value = String> {
    let runs = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{85}",
        "\u{2028}",
        "\u{3000}",
        "\u{200b}",
        "\u{1c}",
        "a",
        "b",
        "ab",
        " ab",
        "1",
        "११",
        "½",
        "Ⅷ",
        "é",
        "e\u{301}",
        "\u{301}",
        "ß",
        "ſ",
        "'",
        "'s",
        "'LL",
        "'re",
        "’s",
        "病",
        "病人，",
        "。",
        "مريض",
        "हिन्दी",
        "🙂",
        "👩\u{200d}⚕️",
        "▁",
        "▁ab",
        "...",
        "--",
        " \n \n",
        ".\n",
        "<|eot_id|>",
        "<|im_end|>",
        "</s>",
        "COVID-19",
        "a b",
        "\0",
    ]);
    let run = (runs, prop_oneof![6 => 1usize..4, 1 => 1usize..400]).prop_map(|(text, n)| text.repeat(n));
    prop::collection::vec(
        prop_oneof![8 => run, 1 => any::<String>(), 2 => "[ -~]{0,40}", 1 => "([a-z]{1,9} ){1,40}"],
        1..60,
    )
    .prop_map(|parts| parts.concat())
}

fn equal(name: &str, tokenizer: &mut TextTokenizer, text: &str, stretch: usize) -> Result<(), TestCaseError> {
    let whole = [true, false].map(|begins| encode(tokenizer, text, usize::MAX, begins));
    let cut = [true, false].map(|begins| encode(tokenizer, text, stretch, begins));
    for (cut, whole) in cut.into_iter().zip(whole) {
        // The first difference says more than two lists do.
        let first = cut.0.iter().zip(&whole.0).position(|(a, b)| a != b);
        prop_assert!(cut.0 == whole.0, "{name}: {} ids against {}, first other {first:?}", cut.0.len(), whole.0.len());
        prop_assert!(cut.1 == whole.1, "{name}: other boundaries");
    }
    Ok(())
}

type Encoded = (Vec<u32>, (Vec<usize>, usize));

fn encode(tokenizer: &mut TextTokenizer, text: &str, stretch: usize, begins: bool) -> Encoded {
    tokenizer.pieces.stretch = stretch;
    (tokenizer.encode_at(text, begins).unwrap(), tokenizer.boundaries(text).unwrap())
}

/// How many pieces a text is given to the crate in.
fn pieces(tokenizer: &mut TextTokenizer, text: &str, stretch: usize) -> usize {
    tokenizer.pieces.stretch = stretch;
    let mut start = 0;
    let mut pieces = 0;
    while start < text.len() {
        start += tokenizer.first_piece(&text[start..]).unwrap();
        pieces += 1;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_have_the_ids_of_the_whole(texts in prop::collection::vec(text(), 2)) {
        thread_local!(static KINDS: std::cell::RefCell<Vec<(&'static str, TextTokenizer)>> = kinds().into());
        KINDS.with_borrow_mut(|kinds| {
            for (name, tokenizer) in kinds {
                for text in &texts {
                    equal(name, tokenizer, text, SHORT)?;
                }
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}

#[test]
fn ordinary_text_is_cut_by_every_kind() {
    let note = "The patient, aged 67, was admitted with dyspnoea.\nBP 148/86; pulse 96. ".repeat(40);
    for (name, mut tokenizer) in kinds() {
        let n = pieces(&mut tokenizer, &note, SHORT);
        assert!(n >= note.len() / SHORT, "{name}: {n} pieces of {} bytes", note.len());
        equal(name, &mut tokenizer, &note, SHORT).unwrap();
    }
}

#[test]
fn what_is_not_proven_is_not_cut() {
    let note = "ab ab ba ".repeat(100);
    let vocab_joins = |json: &mut Value| {
        prepended(json);
        json["model"]["vocab"]["a▁"] = json!(16);
        json["model"]["merges"] = json!([["a", "▁"]]);
    };
    let lstrip = |json: &mut Value| {
        prepended(json);
        json["added_tokens"] = json!([{"id": 16, "content": "abba", "special": false, "normalized": false,
            "single_word": false,
            "lstrip": true, "rstrip": false}]);
    };
    let kinds: [(&str, TextTokenizer); 5] = [
        ("merges over spaces", sentencepiece(vocab_joins)),
        ("a word that takes its spaces", sentencepiece(lstrip)),
        ("a lower-case normalizer", sentencepiece(|json| json["normalizer"] = json!({"type": "Lowercase"}))),
        ("nothing done to spaces", sentencepiece(|_| {})),
        (
            "words that are known whole",
            sentencepiece(|json| {
                prepended(json);
                json["model"]["ignore_merges"] = true.into();
            }),
        ),
    ];
    for (name, mut tokenizer) in kinds {
        assert_eq!(pieces(&mut tokenizer, &note, SHORT), 1, "{name}");
    }
}

#[test]
fn a_word_of_over_a_megabyte_is_an_error_and_nothing_else_is() {
    let mut tokenizer = byte_level(&[]);
    let below = "病".repeat(320_000);
    let above = "病".repeat(340_000);
    equal("below", &mut tokenizer, &format!("one two {below} three"), 1 << 16).unwrap();
    let error = tokenizer.encode(&format!("one two {above} three")).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(!error.to_string().contains('病') && error.hint_text().is_some());
    assert_eq!(tokenizer.boundaries(&above).unwrap_err().exit_code(), 3);
    // Digits are words of their own, and 3 MB of them are many.
    assert_eq!(tokenizer.encode(&"7".repeat(3_000_000)).unwrap().len(), 3_000_000);
}
