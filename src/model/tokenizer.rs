//! A tokenizer without its model's weights: whose prompts a server is sent.

use std::path::{Path, PathBuf};

use super::hub;
use crate::error::{Error, Result};

/// Where the tokenizer and chat template of `name` lie, for
/// [`TextTokenizer::load`](crate::prompt::TextTokenizer::load): a folder with `tokenizer.json`, a `.gguf` file, or a
/// hub id in the local cache. `None` where nothing of that name is here; nothing is downloaded.
pub fn find(name: &str, search: &[&Path]) -> Option<PathBuf> {
    let here = search.iter().map(|dir| dir.join(name)).chain([PathBuf::from(name)]);
    here.chain(hub::is_id(name).then(|| hub::snapshot(name)).flatten()).find_map(|path| tokenizer_at(&path))
}

/// As [`find`]; the error names `key`.
pub fn resolve(key: &str, name: &str, search: &[&Path]) -> Result<PathBuf> {
    find(name, search).ok_or_else(|| {
        Error::model(format!("{key}: {name} has no tokenizer here")).hint(
            "it is a folder with tokenizer.json and tokenizer_config.json, a .gguf file, or a hub id in the cache",
        )
    })
}

fn tokenizer_at(path: &Path) -> Option<PathBuf> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if path.join("tokenizer.json").is_file() {
        return Some(path.to_owned());
    }
    if path.is_file() {
        let beside = path.parent().filter(|dir| dir.join("tokenizer.json").is_file()).map(Path::to_owned);
        return is_gguf(path).then(|| beside.unwrap_or_else(|| path.to_owned()));
    }
    let mut inside = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).filter(|path| is_gguf(path));
    inside.next().filter(|_| inside.next().is_none())
}
