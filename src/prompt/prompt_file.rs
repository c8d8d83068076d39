//! Reading a prompt file. What is wrong with one is told by its line and never in its words: somebody may have named a
//! file of records, or have put notes into it as examples.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result},
    foreign,
    storage::reason,
};

/// The file's text; `key` of the config names it.
pub fn read_prompt_file(path: &Path, key: &str) -> Result<String> {
    if path.as_os_str().is_empty() {
        return Err(Error::usage(format!("{key} names no prompt file")).hint(format!("give one: --set {key}=FILE")));
    }
    foreign::read_text(path, foreign::SMALL).map_err(|e| {
        Error::usage(format!("{}: cannot read the prompt file: {}", path.display(), reason(&e)))
            .hint(format!("{key} names it, relative to the config file or the working directory"))
    })
}

/// A prompt file's text as the keys of `T`, named `name`; `keys` says which these are.
pub fn parse_prompt_file<T: DeserializeOwned>(name: &str, text: &str, keys: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line =
            error.span().map(|span| text.as_bytes()[..span.start.min(text.len())].split(|&b| b == b'\n').count());
        let place = line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
        Error::usage(format!("{place}: {}", what(text, error.message()))).hint(keys)
    })
}

/// What the parser objects to: its messages name keys of ours, but quote what it found.
fn what(text: &str, message: &str) -> String {
    if text.parse::<toml::Table>().is_err() {
        return "is not TOML from here on".to_owned();
    }
    of_keys(message)
}

/// The same of any file's keys and values.
pub fn of_keys(message: &str) -> String {
    match message.strip_prefix("missing field ") {
        Some(key) => format!("lacks the key {}", key.trim_end()),
        None if message.starts_with("unknown field") => "has a key that such a file does not have".to_owned(),
        None => "has a value that its key does not take".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Keys {
        system: String,
        many: Option<u8>,
    }

    #[test]
    fn what_is_wrong_is_told_without_a_word_of_the_file() {
        let told = |text: &str| parse_prompt_file::<Keys>("p.toml", text, "keys").unwrap_err().to_string();
        let records = "{\"id\": \"a\", \"text\": \"Mrs SECRET\"}\n";
        assert_eq!(told(records), "p.toml:1: is not TOML from here on");
        assert_eq!(told("system = \"a\"\nMrs SECRET\n"), "p.toml:2: is not TOML from here on");
        assert_eq!(told("system = \"a\"\nSECRET = 3\n"), "p.toml:2: has a key that such a file does not have");
        assert_eq!(told("system = \"a\"\nmany = \"SECRET\"\n"), "p.toml:2: has a value that its key does not take");
        assert_eq!(told("many = 3\n"), "p.toml:1: lacks the key `system`");
    }
}
