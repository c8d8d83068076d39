//! A tokenizer from a GGUF file's metadata, as the files HF would have.
//!
//! llama.cpp keeps the vocabulary, its merges (byte-level BPE, `gpt2`) or scores (sentencepiece, `llama`), the ids of
//! the named tokens and the chat template. The pre-tokenizer is kept by name only; unknown names, and none at all, are
//! refused, for a wrong one gives wrong ids in silence.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::BufReader,
    path::Path,
};

use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::json;

use super::files::TokenizerFiles;
use crate::{
    error::{Error, Result},
    foreign,
    ops::cpu::confined::{self, Limits},
    storage::reason,
};

/// Llama 3's split of a text into words, as its `tokenizer.json` writes it.
const LLAMA3: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| \
    ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// What llama.cpp calls that split.
const LLAMA3_NAMES: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];

// llama.cpp's `llama_token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl TokenizerFiles {
    /// Reads a `.gguf` file's metadata.
    pub fn from_gguf(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let (_, content) = open(path)?;
        let metadata = content.metadata;
        let made = confined::run(LIMITS, {
            let name = name.clone();
            move || from_metadata(&metadata, name)
        });
        let damaged = |stopped| Error::model(format!("its tokenizer {stopped}"));
        made.unwrap_or_else(|stopped| Err(stopped.into_error(damaged))).map_err(|e| e.context(name))
    }
}

/// What reading a file's header, or making a tokenizer of it, may take: a hundred times what the largest do.
const LIMITS: Limits = Limits { bytes: 4 << 30, seconds: 60 };

/// Opens a `.gguf` file and reads what stands before its tensors. Each of them is known to lie in the file.
pub fn open(path: &Path) -> Result<(BufReader<File>, Content)> {
    let name = path.display();
    let damaged = |what: String| {
        Error::model(format!("{name}: {what}")).hint("the file is damaged or incomplete: fetch it again")
    };
    let file = foreign::open(path).map_err(|e| damaged(format!("cannot read it: {}", reason(&e))))?;
    let length = file.metadata().map_err(|e| damaged(format!("cannot read it: {}", reason(&e))))?.len();
    let read = confined::run(LIMITS, move || {
        let mut reader = BufReader::new(file);
        Content::read(&mut reader).map(|content| (reader, content))
    });
    let (reader, content) = read
        .map_err(|stopped| stopped.into_error(|stopped| damaged(format!("its header {stopped}"))))?
        .map_err(|e| damaged(format!("not a readable GGUF file: {}", foreign::reason(&e))))?;
    for (tensor, info) in &content.tensor_infos {
        let elements = info.shape.dims().iter().try_fold(1u64, |product, &n| product.checked_mul(n as u64));
        let blocks = elements.map(|n| n.div_ceil(info.ggml_dtype.block_size() as u64));
        let bytes = blocks.and_then(|n| n.checked_mul(info.ggml_dtype.type_size() as u64));
        let end = content.tensor_data_offset.checked_add(info.offset).zip(bytes).and_then(|(at, n)| at.checked_add(n));
        if end.is_none_or(|end| end > length) {
            return Err(damaged(format!("tensor {} does not lie in its {length} bytes", foreign::name(tensor))));
        }
    }
    Ok((reader, content))
}

/// `tokenizer.ggml.*` of a file.
struct Metadata<'a>(&'a HashMap<String, Value>);

impl Metadata<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(&format!("tokenizer.ggml.{key}"))
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(|value| value.to_string().ok()).map_or("", String::as_str)
    }

    /// The pre-tokenizer's name. Where an old file gives none, the model may tell: GPT-2 has its own.
    fn pre_tokenizer(&self) -> &str {
        let architecture = self.0.get("general.architecture").and_then(string);
        match self.text("pre") {
            "" | "default" if architecture.as_deref() == Some("gpt2") => "gpt-2",
            name => name,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.to_bool().ok()
    }

    fn id(&self, key: &str) -> Option<u32> {
        integer(self.get(key)?).and_then(|id| u32::try_from(id).ok())
    }

    fn list<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let values = self.get(key).and_then(|value| value.to_vec().ok());
        let list: Option<Vec<T>> = values.map(Vec::as_slice).unwrap_or_default().iter().map(read).collect();
        match list {
            Some(list) if !list.is_empty() => Ok(list),
            _ => Err(Error::model(format!("metadata tokenizer.ggml.{key} is missing or not of its type"))),
        }
    }
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(x) => Some(x.into()),
        Value::I8(x) => Some(x.into()),
        Value::U16(x) => Some(x.into()),
        Value::I16(x) => Some(x.into()),
        Value::U32(x) => Some(x.into()),
        Value::I32(x) => Some(x.into()),
        Value::U64(x) => x.try_into().ok(),
        Value::I64(x) => Some(x),
        _ => None,
    }
}

fn string(value: &Value) -> Option<String> {
    value.to_string().ok().cloned()
}

fn from_metadata(metadata: &HashMap<String, Value>, name: String) -> Result<TokenizerFiles> {
    let meta = Metadata(metadata);
    let tokens = meta.list("tokens", string)?;
    let types = meta.list("token_type", integer)?;
    let vocab: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    if vocab.len() != tokens.len() || types.len() != tokens.len() {
        return Err(Error::model("the vocabulary lists a token twice, or has another number of types than of tokens"));
    }
    let mut json = match meta.text("model") {
        "gpt2" => byte_level(&meta)?,
        "llama" => sentencepiece(&meta, &tokens, &types, &vocab)?,
        other => {
            let other = foreign::name(other);
            return Err(
                Error::model(format!("tokenizer model \"{other}\" is neither \"gpt2\" nor \"llama\"")).hint(HINT)
            );
        }
    };
    json["version"] = "1.0".into();
    json["model"]["vocab"] = json!(vocab);
    let added = |(id, &kind): (usize, &i64)| {
        let control = kind == CONTROL || kind == UNKNOWN;
        (control || kind == USER_DEFINED).then(|| {
            json!({"id": id, "content": tokens[id], "special": control, "normalized": false,
                                                         "single_word": false, "lstrip": false, "rstrip": false})
        })
    };
    json["added_tokens"] = types.iter().enumerate().filter_map(added).collect();

    let token = |key: &str| meta.id(key).and_then(|id| tokens.get(id as usize).map(|token| (id, token)));
    // As in llama.cpp, the sentencepiece kind and Llama 3 begin a text with BOS unless the file says otherwise.
    let begins_with_bos = meta.text("model") == "llama" || LLAMA3_NAMES.contains(&meta.pre_tokenizer());
    let add_bos = meta.flag("add_bos_token").unwrap_or(begins_with_bos);
    if let (true, Some((id, bos))) = (add_bos, token("bos_token_id")) {
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}}
        });
    }
    let mut config = serde_json::Map::new();
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        if let Some((_, text)) = token(&format!("{key}_token_id")) {
            config.insert(format!("{name}_token"), text.clone().into());
        }
    }
    let template = metadata.get("tokenizer.chat_template").and_then(string);
    let stops: Vec<u32> =
        ["eos_token_id", "eot_token_id", "eom_token_id"].iter().filter_map(|key| meta.id(key)).collect();
    Ok(TokenizerFiles {
        name,
        tokenizer: json.to_string().into_bytes(),
        tokenizer_config: Some(serde_json::Value::Object(config).to_string().into_bytes()),
        chat_template: template,
        generation_config: Some(json!({"eos_token_id": stops}).to_string().into_bytes()),
        ..TokenizerFiles::default()
    })
}

const HINT: &str = "use the model's HF folder in place of the .gguf file";

/// Byte-level BPE: merges are listed, the pre-tokenizer has a name.
fn byte_level(meta: &Metadata) -> Result<serde_json::Value> {
    let words = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": use_regex})
    };
    let name = meta.pre_tokenizer();
    let split = match name {
        "gpt-2" => words(true),
        "smollm" => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, words(true)]})
        }
        name if LLAMA3_NAMES.contains(&name) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false}, words(false)]}),
        "" => {
            let message = "metadata tokenizer.ggml.pre is missing: how texts are split into words is not known";
            return Err(Error::model(message).hint(HINT));
        }
        other => {
            return Err(Error::model(format!("pre-tokenizer \"{}\" is not known", foreign::name(other))).hint(HINT));
        }
    };
    let merges = meta.list("merges", |merge| {
        let merge = merge.to_string().ok()?;
        merge.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()])
    })?;
    // Llama 3's vocabulary has words that no merges lead to.
    let ignore_merges = LLAMA3_NAMES.contains(&name);
    Ok(json!({
        "pre_tokenizer": split,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "merges": merges, "ignore_merges": ignore_merges, "byte_fallback": false,
        "fuse_unk": false}
    }))
}

/// Sentencepiece BPE: merges follow from the scores, as HF's conversion derives them.
fn sentencepiece(
    meta: &Metadata,
    tokens: &[String],
    types: &[i64],
    vocab: &BTreeMap<&str, usize>,
) -> Result<serde_json::Value> {
    let scores = meta.list("scores", |score| score.to_f32().ok())?;
    if scores.len() != tokens.len() {
        return Err(Error::model("the vocabulary has another number of scores than of tokens"));
    }
    let mut merges: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    for (token, &score) in tokens.iter().zip(&scores) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut local: Vec<_> = splits.filter_map(|(a, b)| Some((*vocab.get(a)?, *vocab.get(b)?, a, b))).collect();
        local.sort_unstable_by_key(|&(a, b, ..)| (a, b));
        merges.extend(local.into_iter().map(|(_, _, a, b)| (score, a.chars().count(), b.chars().count(), a, b)));
    }
    // Stable, as Python's: of equals the one found first stays first.
    merges.sort_by(|x, y| y.0.total_cmp(&x.0).then((y.1, y.2).cmp(&(x.1, x.2))));
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, _, a, b)| [a, b]).collect();
    let unknown = types.iter().position(|&kind| kind == UNKNOWN).map(|id| &tokens[id]);
    let prefix = meta.flag("add_space_prefix").unwrap_or(true);
    let normalizers: Vec<_> = prefix
        .then(|| json!({"type": "Prepend", "prepend": "▁"}))
        .into_iter()
        .chain([json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})])
        .collect();
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "merges": merges, "unk_token": unknown, "byte_fallback": true, "fuse_unk": true,
        "ignore_merges": false}
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::TextTokenizer;

    fn metadata(entries: Vec<(&str, Value)>) -> HashMap<String, Value> {
        entries.into_iter().map(|(key, value)| (format!("tokenizer.{key}"), value)).collect()
    }

    fn strings(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::String((*text).into())).collect())
    }

    fn sentencepiece_file() -> HashMap<String, Value> {
        let tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁ab", "ab", "▁a", "▁", "a", "b", "<|turn|>"];
        let scores = [0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -9.0, -9.0, -9.0, 0.0];
        metadata(vec![
            ("ggml.model", Value::String("llama".into())),
            ("ggml.tokens", strings(&tokens)),
            ("ggml.token_type", Value::Array([2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4].map(Value::I32).to_vec())),
            ("ggml.scores", Value::Array(scores.map(Value::F32).to_vec())),
            ("ggml.bos_token_id", Value::U32(1)),
            ("ggml.eos_token_id", Value::U32(2)),
            ("ggml.eot_token_id", Value::U32(10)),
            ("chat_template", Value::String("{{ messages }}".into())),
        ])
    }

    #[test]
    fn scores_become_merges() {
        let files = from_metadata(&sentencepiece_file(), "x".into()).unwrap();
        let tokenizer = TextTokenizer::from_files(&files).unwrap();
        // The prefix space, the better score first, a byte for what has no piece, nothing for what looks like control.
        assert_eq!(tokenizer.encode("ab aA").unwrap(), [4, 6, 3]);
        assert!(!tokenizer.encode("<s></s>ab<|turn|>").unwrap().iter().any(|&id| [1, 2, 10].contains(&id)));
        assert_eq!((tokenizer.eog(), tokenizer.stop_ids(), tokenizer.vocab_size()), (2, &[2, 10][..], 11));
        assert_eq!(
            (tokenizer.decode(&[4, 6, 2]).unwrap(), tokenizer.default_special()),
            ("ab a".into(), (&[1][..], &[][..]))
        );
        assert_eq!(tokenizer.chat_template(), Some("{{ messages }}"));
    }

    #[test]
    fn a_byte_level_file_is_what_its_pre_tokenizer_is_called() {
        let read = |changes: &[(&str, Value)]| {
            let mut file = metadata(vec![
                ("ggml.model", Value::String("gpt2".into())),
                ("ggml.tokens", strings(&["a", "b", "ab", "<s>", "</s>"])),
                ("ggml.token_type", Value::Array([1, 1, 1, 3, 3].map(Value::I32).to_vec())),
                ("ggml.merges", strings(&["a b"])),
                ("ggml.bos_token_id", Value::U32(3)),
                ("ggml.eos_token_id", Value::U32(4)),
            ]);
            file.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            let tokenizer = from_metadata(&file, "x".into()).and_then(|files| TextTokenizer::from_files(&files));
            tokenizer.map(|tokenizer| tokenizer.default_special().0.to_vec())
        };
        let pre = |name: &str| ("tokenizer.ggml.pre", Value::String(name.into()));
        let bos = |add: bool| ("tokenizer.ggml.add_bos_token", Value::Bool(add));
        let gpt2 = ("general.architecture", Value::String("gpt2".into()));
        for name in LLAMA3_NAMES {
            assert_eq!(read(&[pre(name)]).unwrap(), [3], "{name}: as in llama.cpp and HF");
            assert!(read(&[pre(name), bos(false)]).unwrap().is_empty(), "{name}");
        }
        assert!(read(&[pre("gpt-2")]).unwrap().is_empty());
        assert_eq!(read(&[pre("gpt-2"), bos(true)]).unwrap(), [3]);
        assert!(read(std::slice::from_ref(&gpt2)).unwrap().is_empty() && read(&[pre("default"), gpt2]).is_ok());
        for (unknown, told) in [(&[][..], "tokenizer.ggml.pre is missing"), (&[pre("default")][..], "\"default\"")] {
            let error = read(unknown).unwrap_err();
            assert!(error.to_string().contains(told) && error.hint_text() == Some(HINT), "{error}");
            assert_eq!(error.exit_code(), 4);
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_model_error() {
        let change = |key: &str, value: Option<Value>| {
            let mut file = sentencepiece_file();
            match value {
                Some(value) => file.insert(format!("tokenizer.{key}"), value),
                None => file.remove(&format!("tokenizer.{key}")),
            };
            from_metadata(&file, "x".into()).map(|_| ()).unwrap_err().exit_code()
        };
        assert_eq!(change("ggml.scores", None), 4);
        assert_eq!(change("ggml.model", Some(Value::String("t5".into()))), 4);
        assert_eq!(change("ggml.token_type", Some(Value::Array(vec![Value::I32(1)]))), 4);
        assert_eq!(change("ggml.tokens", Some(strings(&["a"; 11]))), 4);
        assert_eq!(change("ggml.model", Some(Value::String("gpt2".into()))), 4);
    }
}
