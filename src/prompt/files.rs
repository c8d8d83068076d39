//! The files a tokenizer is made from, and what HF reads in them.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    foreign,
    storage::reason,
};

/// The bytes a tokenizer is made from, wherever they lie: a model folder, the binary itself, a GGUF's metadata.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles {
    /// What messages call it: the folder, mostly.
    pub name: String,
    /// `tokenizer.json`
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<Vec<u8>>,
    /// `chat_template.jinja`
    pub chat_template: Option<String>,
    /// `generation_config.json`
    pub generation_config: Option<Vec<u8>>,
    /// `config.json`
    pub config: Option<Vec<u8>>,
}

/// Special tokens that HF hands to a chat template by name.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl TokenizerFiles {
    /// Reads a model folder, or the metadata of a `.gguf` file.
    pub fn load(path: &Path) -> Result<Self> {
        let gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if gguf { Self::from_gguf(path) } else { Self::read(path) }
    }

    /// Reads a model folder. Only `tokenizer.json` must be there.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            let most = if name == "tokenizer.json" { foreign::LARGE } else { foreign::SMALL };
            match foreign::read(&dir.join(name), most) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::model(format!("{}: cannot read it: {}", dir.join(name).display(), reason(&e)))),
            }
        };
        let Some(tokenizer) = read("tokenizer.json")? else {
            return Err(Error::model(format!("{}: no tokenizer.json", dir.display())).hint(
                "a folder with only tokenizer.model is converted by \
                    AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            ));
        };
        let chat_template = match read("chat_template.jinja")? {
            None => None,
            Some(bytes) => Some(
                String::from_utf8(bytes)
                    .map_err(|_| Error::model(format!("{}: chat_template.jinja is not UTF-8", dir.display())))?,
            ),
        };
        Ok(Self {
            name: dir.display().to_string(),
            tokenizer,
            tokenizer_config: read("tokenizer_config.json")?,
            special_tokens_map: read("special_tokens_map.json")?,
            chat_template,
            generation_config: read("generation_config.json")?,
            config: read("config.json")?,
        })
    }

    /// The files that are there but for `config.json`, under the names they have in a model folder.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let optional = [
            ("tokenizer_config.json", self.tokenizer_config.as_deref()),
            ("special_tokens_map.json", self.special_tokens_map.as_deref()),
            ("chat_template.jinja", self.chat_template.as_deref().map(str::as_bytes)),
            ("generation_config.json", self.generation_config.as_deref()),
        ];
        let there = optional.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        std::iter::once(("tokenizer.json", self.tokenizer.as_slice())).chain(there)
    }

    /// BLAKE3, in hex, over what makes a prompt's ids beside the weights: tokenizer, chat template, generation config.
    pub fn hash(&self) -> String {
        let mut whole = blake3::Hasher::new();
        for (name, bytes) in self.named() {
            whole.update(name.as_bytes());
            whole.update(blake3::hash(bytes).as_bytes());
        }
        whole.finalize().to_hex().to_string()
    }

    /// One of the JSON files; an absent one is `null`.
    pub(super) fn json(&self, file: &str, bytes: Option<&[u8]>) -> Result<Value> {
        bytes.map_or(Ok(Value::Null), |bytes| {
            serde_json::from_slice(bytes)
                .map_err(|e| Error::model(format!("{}/{file}: not valid JSON: {}", self.name, foreign::reason(&e))))
        })
    }

    /// What the small files say.
    pub(super) fn settings(&self) -> Result<TokenizerSettings> {
        let config = self.json("tokenizer_config.json", self.tokenizer_config.as_deref())?;
        let map = self.json("special_tokens_map.json", self.special_tokens_map.as_deref())?;
        let special_tokens = SPECIAL_NAMES
            .iter()
            .filter_map(|&name| token_text(&config[name]).or_else(|| token_text(&map[name])).map(|text| (name, text)))
            .collect();
        let mut stop_ids = Vec::new();
        for (file, bytes) in [("generation_config.json", &self.generation_config), ("config.json", &self.config)] {
            stop_ids.extend(ids(&self.json(file, bytes.as_deref())?["eos_token_id"]));
        }
        let own = self.chat_template.is_some();
        let template_place = match Path::new(&self.name).extension() {
            Some(extension) if extension.eq_ignore_ascii_case("gguf") => {
                format!("{}, tokenizer.chat_template", self.name)
            }
            _ if own => format!("{}/chat_template.jinja", self.name),
            _ => format!("{}/tokenizer_config.json", self.name),
        };
        let chat_template = self.chat_template.clone().or_else(|| template_text(&config["chat_template"]));
        let added_tokens = config["added_tokens_decoder"].as_object().cloned().unwrap_or_default();
        let added_tokens = added_tokens.into_iter().filter_map(|(id, token)| Some((id.parse().ok()?, token))).collect();
        Ok(TokenizerSettings { special_tokens, stop_ids, chat_template, template_place, added_tokens })
    }
}

/// What HF reads beside `tokenizer.json`.
pub(super) struct TokenizerSettings {
    /// `bos_token` → its text, and so on.
    pub special_tokens: BTreeMap<&'static str, String>,
    /// Every `eos_token_id` of generation_config.json and config.json, in that order.
    pub stop_ids: Vec<u32>,
    /// The chat template: its own file goes before the key in tokenizer_config.json.
    pub chat_template: Option<String>,
    /// The file that the chat template stands in.
    pub template_place: String,
    /// `added_tokens_decoder` by id.
    pub added_tokens: BTreeMap<u32, Value>,
}

/// A special token is written as a string or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(String::from)
}

/// A chat template is written as a string or as a list of named ones, of which `default` is meant.
fn template_text(value: &Value) -> Option<String> {
    let named = || value.as_array()?.iter().find(|template| template["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named).map(String::from)
}

/// `eos_token_id` is an integer or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value.as_array() {
        Some(list) => list.iter().filter_map(id).collect(),
        None => id(value).into_iter().collect(),
    }
}
