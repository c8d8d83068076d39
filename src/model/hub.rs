//! The Hugging Face hub's local cache, laid out as `huggingface_hub` does; the network only when it is allowed.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    foreign,
};

/// Files a model needs that may be absent from its repository.
const OPTIONAL: [&str; 6] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "LICENSE",
];

/// Whether a name has a hub id's form, `owner/name`.
pub(super) fn is_id(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
pub(super) fn cache_dir() -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache/huggingface/hub"))
}

/// The snapshot of a model's `main` branch, if the cache has its config and weights, or a `.gguf` file.
pub(super) fn cached(id: &str) -> Option<PathBuf> {
    cached_in(&cache_dir(), id)
}

fn cached_in(cache: &Path, id: &str) -> Option<PathBuf> {
    let snapshot = snapshot_in(cache, id)?;
    let weights = ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| snapshot.join(name).exists());
    let gguf = || {
        std::fs::read_dir(&snapshot)
            .is_ok_and(|all| all.flatten().any(|e| e.path().extension().is_some_and(|e| e == "gguf")))
    };
    ((weights && snapshot.join("config.json").exists()) || gguf()).then_some(snapshot)
}

/// The snapshot of a model's `main` branch, whatever it holds. A name without an owner (`bert-base-uncased`) may have
/// one.
pub(super) fn snapshot(id: &str) -> Option<PathBuf> {
    snapshot_in(&cache_dir(), id)
}

fn snapshot_in(cache: &Path, id: &str) -> Option<PathBuf> {
    let repo = cache.join(format!("models--{}", id.replace('/', "--")));
    let commit = foreign::read_text(&repo.join("refs/main"), foreign::SMALL).ok()?;
    let commit = Some(commit.trim()).filter(|commit| foreign::is_within(commit))?;
    let snapshot = repo.join("snapshots").join(commit);
    snapshot.is_dir().then_some(snapshot)
}

/// Fetches a model into the cache, or what is missing of a download that was cut off, which stays the commit that it
/// was. Called only under `--allow-network`.
pub(super) fn download(id: &str) -> Result<PathBuf> {
    use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};
    let failed = |e: &dyn std::fmt::Display| {
        Error::model(format!("cannot download {id}: {e}")).hint("check the id, the network and HF_TOKEN")
    };
    let cache = Cache::new(cache_dir());
    let api = ApiBuilder::from_cache(cache.clone())
        .with_token(env::var("HF_TOKEN").ok().or_else(|| cache.token()))
        .with_progress(false)
        .build()
        .map_err(|e| failed(&e))?;
    let begun = snapshot(id).and_then(|snapshot| Some(snapshot.file_name()?.to_string_lossy().into_owned()));
    let repo = api.repo(match begun {
        Some(commit) => Repo::with_revision(id.to_string(), RepoType::Model, commit),
        None => Repo::new(id.to_string(), RepoType::Model),
    });
    let names: Vec<String> =
        repo.info().map_err(|e| failed(&e))?.siblings.into_iter().map(|file| file.rfilename).collect();
    let wanted = |name: &&String| {
        let weights = name.ends_with(".safetensors") && !name.contains('/');
        weights
            || OPTIONAL.contains(&name.as_str())
            || ["config.json", "tokenizer.json", "model.safetensors.index.json"].contains(&name.as_str())
    };
    for name in names.iter().filter(wanted) {
        tracing::info!("downloading {id}/{name}");
        repo.get(name).map_err(|e| failed(&e))?;
    }
    cached(id).ok_or_else(|| Error::model(format!("{id} has no safetensors weights with a config.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_slash_and_no_path_parts() {
        assert!(is_id("meta-llama/Llama-3.1-8B-Instruct"));
        for name in ["model", "a/b/c", "../b", "./b", "/b", "a/", "a/..", "C:\\x/y"] {
            assert!(!is_id(name), "{name}");
        }
    }

    #[test]
    fn a_cached_snapshot_is_found_by_its_main_ref() {
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--o--m");
        let snapshot = repo.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "abc\n").unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        assert_eq!(cached_in(cache.path(), "o/m"), None);
        std::fs::write(snapshot.join("model.safetensors"), "").unwrap();
        assert_eq!(cached_in(cache.path(), "o/m"), Some(snapshot));
    }
}
