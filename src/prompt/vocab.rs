//! Takes the control tokens out of a `tokenizer.json`, so that text cannot become one.
//!
//! `tokenizers` knows two kinds of ids: the model's vocabulary, which merges reach, and added tokens, which any text
//! that spells them becomes. A control token may be in both. What is left here spells neither: added tokens are
//! dropped, their vocabulary entries renamed to a string that no text contains, merges that lead to them removed.
//!
//! An added token that is not special and has no bracket or bar (`COVID-19`, a run of spaces) is a word that someone
//! gave its own id, and stays one.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    foreign,
};

/// A token that only the prompt may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlToken {
    /// Its id.
    pub id: u32,
    /// How a template spells it.
    pub content: String,
    /// Left out by decoding.
    pub special: bool,
    /// Swallows whitespace before it.
    pub lstrip: bool,
    /// Swallows whitespace after it.
    pub rstrip: bool,
}

/// A `tokenizer.json` taken apart.
pub(super) struct Vocabulary {
    /// The file without its control tokens, post-processor, truncation and padding.
    pub plain: Value,
    /// The control tokens, longest first.
    pub controls: Vec<ControlToken>,
    /// The post-processor, which adds BOS in plain prompts.
    pub post_processor: Value,
    /// One more than the largest id.
    pub size: usize,
}

/// Takes `tokenizer` (parsed) apart. `listed` are tokenizer_config's added tokens, `specials` its named special tokens.
pub(super) fn take_apart(mut tokenizer: Value, listed: &BTreeMap<u32, Value>, specials: &[&str]) -> Result<Vocabulary> {
    let vocab = vocabulary(&tokenizer["model"])?;
    let mut added: Vec<Value> = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
    let known: HashSet<&str> = added.iter().filter_map(|token| token["content"].as_str()).collect();
    let missing: Vec<Value> = listed.iter().filter(|(_, token)| !known.contains(text(token))).map(with_id).collect();
    added.extend(missing);
    check_ids(&vocab, &added)?;

    let size = vocab.values().copied().chain(added.iter().map(id)).max().map_or(0, |id| id as usize + 1);
    let (mut controls, words): (Vec<Value>, Vec<Value>) = added.into_iter().partition(is_control);
    for special in specials {
        let unlisted = !controls.iter().any(|token| text(token) == *special);
        if let (true, Some(id)) = (unlisted, vocab.get(*special)) {
            controls.push(json!({"id": id, "content": special, "special": true}));
        }
    }
    let flag = |token: &Value, name: &str| token[name].as_bool().unwrap_or(false);
    let mut controls: Vec<ControlToken> = controls
        .iter()
        .map(|token| ControlToken {
            id: id(token),
            content: text(token).to_owned(),
            special: flag(token, "special"),
            lstrip: flag(token, "lstrip"),
            rstrip: flag(token, "rstrip"),
        })
        .collect();
    controls.sort_by(|a, b| b.content.len().cmp(&a.content.len()).then(a.id.cmp(&b.id)));

    let post_processor = tokenizer["post_processor"].take();
    for key in ["truncation", "padding"] {
        tokenizer[key] = Value::Null;
    }
    remove_controls(&mut tokenizer["model"], &controls);
    // A word's id must be its own whatever the control tokens before it: one that the vocabulary holds keeps its id.
    if let Some(vocab) = tokenizer["model"]["vocab"].as_object_mut() {
        for word in &words {
            vocab.insert(text(word).to_owned(), id(word).into());
        }
    }
    tokenizer["added_tokens"] = words.into();
    Ok(Vocabulary { plain: tokenizer, controls, post_processor, size })
}

fn id(token: &Value) -> u32 {
    token["id"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX)
}

fn text(token: &Value) -> &str {
    token["content"].as_str().unwrap_or_default()
}

fn with_id((id, token): (&u32, &Value)) -> Value {
    let mut token = token.clone();
    token["id"] = (*id).into();
    token
}

fn is_control(token: &Value) -> bool {
    token["special"].as_bool().unwrap_or(false) || text(token).contains(['<', '>', '[', ']', '{', '}', '|', '｜'])
}

/// The model's own vocabulary: an object, or Unigram's list of pieces.
fn vocabulary(model: &Value) -> Result<HashMap<String, u32>> {
    let vocab: HashMap<String, u32> = match &model["vocab"] {
        Value::Object(entries) => {
            entries.iter().filter_map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?))).collect()
        }
        Value::Array(pieces) => {
            (0..).zip(pieces).map(|(id, piece)| (piece[0].as_str().unwrap_or_default().to_owned(), id)).collect()
        }
        _ => HashMap::new(),
    };
    if vocab.is_empty() {
        return Err(Error::model("tokenizer.json: no vocabulary"));
    }
    Ok(vocab)
}

/// Refuses added tokens that would get another id than the file says: `tokenizers` numbers those that the vocabulary
/// does not hold from its end on, whatever their `id`, and the model would read other rows of its embedding.
fn check_ids(vocab: &HashMap<String, u32>, added: &[Value]) -> Result<()> {
    let mut taken: HashMap<u32, &str> = HashMap::new();
    let mut next = u32::try_from(vocab.len()).unwrap_or(u32::MAX);
    for token in added {
        let id = id(token);
        let text = text(token);
        if text.is_empty() {
            return Err(Error::model(format!("tokenizer.json: added token {id} has no content")));
        }
        let expected = vocab.get(text).copied().unwrap_or(next);
        if !vocab.contains_key(text) {
            next = next.saturating_add(1);
        }
        if id != expected {
            let text = foreign::name(text);
            return Err(Error::model(format!(
                "tokenizer: added token \"{text}\" has id {id}, but would be given \
                {expected}"
            ))
            .hint(
                "ids of added tokens must follow the vocabulary without a gap; save the tokenizer again with \
                    HF's save_pretrained",
            ));
        }
        if let Some(other) = taken.insert(id, text) {
            let both = [other, text].map(foreign::name);
            return Err(Error::model(format!("tokenizer: added tokens {both:?} share id {id}")));
        }
    }
    Ok(())
}

/// What a control token is called in the vocabulary afterwards.
fn hidden_name(control: &ControlToken) -> String {
    format!("\0control {}\0", control.id)
}

fn remove_controls(model: &mut Value, controls: &[ControlToken]) {
    let names: HashMap<&str, String> =
        controls.iter().map(|control| (control.content.as_str(), hidden_name(control))).collect();
    if let Some(hidden) = model["unk_token"].as_str().and_then(|unk| names.get(unk)) {
        model["unk_token"] = hidden.clone().into();
    }
    // Dropout of merges would make ids a matter of chance.
    if model["dropout"].is_number() {
        model["dropout"] = Value::Null;
    }
    match &mut model["vocab"] {
        Value::Object(vocab) => {
            for (text, hidden) in &names {
                if let Some(id) = vocab.get(*text).cloned() {
                    vocab.remove(*text);
                    vocab.insert(hidden.clone(), id);
                }
            }
        }
        Value::Array(pieces) => {
            for piece in pieces {
                if let Some(hidden) = piece[0].as_str().and_then(|text| names.get(text)) {
                    piece[0] = hidden.clone().into();
                }
            }
        }
        _ => {}
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| !leads_to(merge, &names));
    }
}

/// Whether a merge, `["a", "b"]` or `"a b"`, reads or makes one of these tokens.
fn leads_to(merge: &Value, names: &HashMap<&str, String>) -> bool {
    let pair = match merge {
        Value::String(merge) => merge.split_once(' '),
        _ => merge[0].as_str().zip(merge[1].as_str()),
    };
    pair.is_some_and(|(a, b)| {
        names.contains_key(a) || names.contains_key(b) || names.contains_key(format!("{a}{b}").as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(added: Value) -> Value {
        json!({
            "added_tokens": added,
            "model": {"type": "BPE", "unk_token": "<u>", "vocab": {"<u>": 0, "<": 1, "s": 2, ">": 3, "<s": 4, "<s>": 5,
            "s>": 6},
                      "merges": [["<", "s"], ["<s", ">"], ["s", ">"]]}
        })
    }

    #[test]
    fn a_control_token_leaves_vocabulary_and_merges() {
        let added = json!([{"id": 0, "content": "<u>", "special": true}, {"id": 5, "content": "<s>", "special": true},
                           {"id": 7, "content": "COVID-19", "special": false}, {"id": 8, "content": "<think>",
                            "special": false}]);
        let vocabulary = take_apart(tokenizer(added), &BTreeMap::new(), &[]).unwrap();
        let ids: Vec<u32> = vocabulary.controls.iter().map(|control| control.id).collect();
        assert_eq!((ids, vocabulary.size), (vec![8, 0, 5], 9));
        let model = &vocabulary.plain["model"];
        assert_eq!(model["merges"], json!([["<", "s"], ["s", ">"]]));
        assert_eq!((&model["vocab"]["<s>"], &model["vocab"]["COVID-19"]), (&Value::Null, &json!(7)));
        assert_eq!(model["vocab"][model["unk_token"].as_str().unwrap()], 0);
        assert_eq!(vocabulary.plain["added_tokens"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn ids_that_would_be_shifted_are_refused() {
        for added in [
            json!([{"id": 9, "content": "<new>", "special": true}]),
            json!([{"id": 4, "content": "<s>", "special": true}]),
            json!([{"id": 8, "content": "<b>", "special": true}, {"id": 7, "content": "<a>", "special": true}]),
            json!([{"id": 7, "content": "", "special": true}]),
        ] {
            let error = take_apart(tokenizer(added), &BTreeMap::new(), &[]).map(|_| ()).unwrap_err();
            assert_eq!(error.exit_code(), 4);
        }
    }

    #[test]
    fn tokens_of_the_config_alone_follow_those_of_the_file() {
        let added = json!([{"id": 7, "content": "<a>", "special": true}]);
        let listed =
            |id| BTreeMap::from([(7, json!({"content": "<a>"})), (id, json!({"content": "<b>", "special": true}))]);
        assert_eq!(take_apart(tokenizer(added.clone()), &listed(8), &[]).unwrap().size, 9);
        assert_eq!(take_apart(tokenizer(added), &listed(12), &[]).map(|_| ()).unwrap_err().exit_code(), 4);
    }

    #[test]
    fn a_named_special_token_that_nobody_added_is_a_control_token() {
        let vocabulary = take_apart(tokenizer(json!([])), &BTreeMap::new(), &["<s>", "</absent>"]).unwrap();
        assert_eq!(vocabulary.controls.iter().map(|control| control.id).collect::<Vec<_>>(), [5]);
    }
}
