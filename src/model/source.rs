//! From what a user writes in `model.base` to files on this machine: a directory, a hub id in the local cache, a
//! `.gguf`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{LlamaConfig, gguf, hub, mmap};
use crate::{
    error::{Error, Result},
    foreign,
    signals::check_interrupted,
    storage::{self, reason},
};

/// Bytes of a weight file that are hashed between two looks at whether a signal asks to stop.
const HASHED_AT_ONCE: usize = 64 << 20;

/// Where the weights are.
#[derive(Debug, Clone)]
pub(super) enum Weights {
    /// One file, or the shards an index names, in name order.
    Safetensors(Vec<PathBuf>),
    /// A llama.cpp file, config included.
    Gguf(PathBuf),
}

/// A model found on this machine.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The model's directory, or the `.gguf` file.
    pub path: PathBuf,
    pub(super) weights: Weights,
}

/// Finds `base`: an absolute path, a path relative to one of `search`, then a hub id in the local cache (downloaded
/// only under `allow_network`).
pub fn resolve(base: &str, search: &[&Path], allow_network: bool) -> Result<ModelSource> {
    if base.trim().is_empty() {
        return Err(Error::usage("no model is named").hint("set model.base to a directory, a hub id or a .gguf file"));
    }
    let candidates = search.iter().map(|dir| dir.join(base)).chain([PathBuf::from(base)]);
    if let Some(path) = candidates.into_iter().find(|path| path.exists()) {
        return open(&path);
    }
    let shown = foreign::name(base);
    if !hub::is_id(base) && hub::snapshot(base).is_none() {
        return Err(Error::model(format!("model {shown}: no such file or directory")).hint(
            "a model is named by its directory, by a hub id (owner/name), by a .gguf file where it is a base, or by \
                http://… where a server has it",
        ));
    }
    match (hub::cached(base), hub::snapshot(base)) {
        // A download that was cut off; the files that are there are not fetched again.
        (Some(dir), _) if allow_network && hub::is_id(base) && !is_whole(&dir) => match hub::download(base) {
            Ok(dir) => open(&dir),
            Err(error) => {
                tracing::warn!("{error}; going on with what is in {}", dir.display());
                open(&dir)
            }
        },
        (Some(dir), _) => open(&dir),
        (None, _) if allow_network => open(&hub::download(base)?),
        // What is there says what is missing: `.bin` weights, half a download.
        (None, Some(dir)) => open(&dir).map_err(|e| e.context(shown)),
        (None, None) => Err(Error::model(format!(
            "model {shown} is neither a path here nor in the hub cache {}",
            hub::cache_dir().display()
        ))
        .hint(format!("download it first (hf download {shown}), or pass --allow-network"))),
    }
}

/// Whether a snapshot has all weights, and the tokenizer's files: they come after the weights.
fn is_whole(snapshot: &Path) -> bool {
    match open(snapshot).map(|source| source.weights) {
        Ok(Weights::Gguf(_)) => true,
        Ok(Weights::Safetensors(_)) => {
            ["tokenizer.json", "tokenizer_config.json"].iter().all(|name| snapshot.join(name).exists())
        }
        Err(_) => false,
    }
}

/// A model's shape without its weights (`train.init = "random"`): a directory with `config.json` and a tokenizer.
///
/// What is asked of it later is its config, its tokenizer and its hash; there are no weights to load.
pub fn shape(base: &str, search: &[&Path]) -> Result<ModelSource> {
    let candidates = search.iter().map(|dir| dir.join(base)).chain([PathBuf::from(base)]);
    let found = candidates.into_iter().find(|path| path.join("config.json").is_file());
    let path = found.ok_or_else(|| {
        Error::model(format!("model.base {base}: no directory with a config.json")).hint(
            "train.init = \"random\" takes the model's shape from config.json and needs its tokenizer files beside it",
        )
    })?;
    Ok(ModelSource { path, weights: Weights::Safetensors(Vec::new()) })
}

/// Files of a model's folder or a checkpoint that go by name; the others by extension.
const FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
    "adapter_config.json",
    "clsgen.json",
];

/// From now on what lies at a path that is read is no output: a file, or of a folder the files of a model. Other files
/// may lie beside those.
pub fn protect(path: &Path) {
    if path.is_file() {
        return storage::protect(path);
    }
    let of_a_model = |path: &Path| {
        ["safetensors", "gguf", "jinja", "model"].iter().any(|known| has_extension(path, known))
            || path.file_name().is_some_and(|name| FILES.iter().any(|known| name == *known))
    };
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| of_a_model(path)).for_each(|path| storage::protect(&path));
}

/// The model at a path that exists.
pub(super) fn open(path: &Path) -> Result<ModelSource> {
    if path.is_file() {
        return if has_extension(path, "gguf") {
            Ok(ModelSource { path: path.to_owned(), weights: Weights::Gguf(path.to_owned()) })
        } else {
            Err(not_a_model(path))
        };
    }
    if let Some(files) = safetensors(path)? {
        return Ok(ModelSource { path: path.to_owned(), weights: Weights::Safetensors(files) });
    }
    let entries =
        std::fs::read_dir(path).map_err(|e| Error::model(format!("cannot read {}: {}", path.display(), reason(&e))))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let ggufs: Vec<&String> = names.iter().filter(|name| has_extension(Path::new(name), "gguf")).collect();
    match ggufs.as_slice() {
        [one] => Ok(ModelSource { path: path.to_owned(), weights: Weights::Gguf(path.join(one)) }),
        _ => Err(no_weights(path, &names, &ggufs)),
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// A file that is no model by itself: what to name instead.
fn not_a_model(path: &Path) -> Error {
    let error = Error::model(format!("{} is neither a directory nor a .gguf file", path.display()));
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if ["bin", "pt", "pth", "ckpt"].iter().any(|extension| has_extension(path, extension)) {
        return error.hint(convert(dir));
    }
    if ["safetensors", "json"].iter().any(|extension| has_extension(path, extension)) {
        return error.hint(format!("name the directory that holds it: {}", dir.display()));
    }
    error
}

/// How PyTorch's own files become files that are read here.
fn convert(dir: &Path) -> String {
    format!(
        "PyTorch .bin weights are not read: convert them with transformers, python -c \"from transformers import \
        AutoModel{}; \
         AutoModel{}.from_pretrained('{}').save_pretrained('NEW')\", and copy the tokenizer's files to NEW",
        class(dir),
        class(dir),
        dir.display()
    )
}

/// `AutoModelForCausalLM` for a language model; the BERT of `cnn.embeddings` is none.
fn class(dir: &Path) -> &'static str {
    let config = foreign::read_text(&dir.join("config.json"), foreign::SMALL).unwrap_or_default();
    if config.contains("\"bert\"") { "" } else { "ForCausalLM" }
}

/// A directory without weights: what it holds instead, and what to do about it.
fn no_weights(dir: &Path, names: &[String], ggufs: &[&String]) -> Error {
    let error = Error::model(format!(
        "{}: no model.safetensors, model.safetensors.index.json or single .gguf file",
        dir.display()
    ));
    let any = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
    if let [first, .., last] = ggufs {
        if first.contains("-of-0") {
            return error.hint(
                "a .gguf file in parts is put together by llama.cpp: llama-gguf-split --merge FIRST-PART WHOLE.gguf",
            );
        }
        return error.hint(format!("it holds {} .gguf files ({first} to {last}): name one of them", ggufs.len()));
    }
    if any(&|name| name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))) {
        return error.hint(convert(dir));
    }
    if any(&|name| name == "adapter_config.json") {
        return error.hint("it holds an adapter, not a model: name the adapter's base model here");
    }
    if any(&|name| name.ends_with(".safetensors")) {
        return error.hint(
            "weights of another name are not read: without model.safetensors.index.json nothing says \
            what belongs together",
        );
    }
    error.hint("give a Hugging Face folder (config.json, model.safetensors, tokenizer.json) or a .gguf file")
}

/// `model.safetensors`, or every shard of the index.
fn safetensors(dir: &Path) -> Result<Option<Vec<PathBuf>>> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(Some(vec![single]));
    }
    let Some(index) = read_index(dir)? else { return Ok(None) };
    let files: BTreeSet<String> = index.into_values().collect();
    let mut paths = Vec::new();
    for file in files {
        let name = foreign::name(&file);
        if file.contains(['/', '\\']) || file.starts_with('.') {
            return Err(Error::model(format!(
                "{}: the index names \"{name}\", which is not a file of this directory",
                dir.display()
            )));
        }
        let path = dir.join(&file);
        if !path.is_file() {
            return Err(Error::model(format!("{}: shard {name} is missing", dir.display()))
                .hint("the download is incomplete: fetch it again"));
        }
        paths.push(path);
    }
    Ok(Some(paths))
}

/// Tensor → shard of a sharded model; `None` when there is a single file, or no index.
pub(super) fn read_index(dir: &Path) -> Result<Option<BTreeMap<String, String>>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = dir.join("model.safetensors.index.json");
    if dir.join("model.safetensors").is_file() || !path.is_file() {
        return Ok(None);
    }
    let failed = |what: String| Error::model(format!("{}: {what}", path.display()));
    let text = foreign::read_text(&path, foreign::SMALL).map_err(|e| failed(reason(&e)))?;
    let index: Index =
        serde_json::from_str(&text).map_err(|e| failed(format!("not a weight index: {}", foreign::reason(&e))))?;
    if index.weight_map.is_empty() {
        return Err(failed("names no tensor".into()));
    }
    Ok(Some(index.weight_map))
}

impl ModelSource {
    /// Where tokenizer and chat template are, for [`TextTokenizer::load`](crate::prompt::TextTokenizer::load): the
    /// model's directory, or that of its `.gguf` file, where `tokenizer.json` lies there; else the `.gguf` file, which
    /// holds its own.
    pub fn tokenizer_path(&self) -> &Path {
        let Weights::Gguf(file) = &self.weights else { return &self.path };
        let dir = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if dir.join("tokenizer.json").is_file() { dir } else { file }
    }

    /// Shape and constants, checked.
    pub fn config(&self) -> Result<LlamaConfig> {
        match &self.weights {
            Weights::Gguf(path) => gguf::config(path),
            Weights::Safetensors(_) => LlamaConfig::read(&self.path.join("config.json")),
        }
    }

    /// The files that hold its weights, in name order.
    pub fn weight_files(&self) -> &[PathBuf] {
        match &self.weights {
            Weights::Gguf(path) => std::slice::from_ref(path),
            Weights::Safetensors(files) => files,
        }
    }

    /// BLAKE3, in hex, over name and content of config and weight files.
    pub fn hash(&self) -> Result<String> {
        let config = match &self.weights {
            Weights::Gguf(_) => None,
            Weights::Safetensors(_) => Some(self.path.join("config.json")),
        };
        let files = config.into_iter().chain(self.weight_files().iter().cloned());
        let mut whole = blake3::Hasher::new();
        for path in files {
            let content = mmap::map(&path)?;
            whole.update(
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default().as_bytes(),
            );
            let mut file = blake3::Hasher::new();
            for part in content.chunks(HASHED_AT_ONCE) {
                check_interrupted()?;
                file.update_rayon(part);
            }
            whole.update(file.finalize().as_bytes());
        }
        Ok(whole.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_whole_with_the_tokenizers_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_whole(dir.path()));
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            assert!(!is_whole(dir.path()), "before {name}");
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(is_whole(dir.path()));
        let index = r#"{"weight_map": {"a": "model-00001-of-00001.safetensors"}}"#;
        std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(!is_whole(dir.path()), "a shard is missing");
    }
}
