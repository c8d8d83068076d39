//! Where a model is looked for, and what is said when it is not there.

use std::path::Path;

use clsgen::model::source::resolve;

use crate::fixture::*;

fn error(base: &str, search: &[&Path]) -> clsgen::error::Error {
    resolve(base, search, false).unwrap_err()
}

#[test]
fn directories_are_found_absolute_or_in_the_places_searched() {
    let parent = folder("gqa").parent().unwrap().to_owned();
    assert_eq!(resolve(folder("gqa").to_str().unwrap(), &[], false).unwrap().path, folder("gqa"));
    let found = resolve("gqa", &[Path::new("/nowhere"), &parent], false).unwrap();
    assert_eq!((found.path.as_path(), found.tokenizer_path()), (folder("gqa").as_path(), folder("gqa").as_path()));
}

#[test]
fn without_the_network_a_hub_id_that_is_not_cached_is_an_error_with_a_hint() {
    let missing = error("nobody/no-such-model", &[]);
    assert_eq!(missing.exit_code(), 4);
    assert!(missing.hint_text().unwrap().contains("--allow-network"), "{missing:?}");
    assert_eq!(error("no/such/place", &[]).exit_code(), 4);
    assert_eq!(error(" ", &[]).exit_code(), 2);
}

#[test]
fn what_is_not_a_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(error(dir.path().to_str().unwrap(), &[]).to_string().contains("no model.safetensors"));
    let file = dir.path().join("weights.bin");
    std::fs::write(&file, "x").unwrap();
    assert!(error(file.to_str().unwrap(), &[]).to_string().contains("neither a directory nor a .gguf"));
}

#[test]
fn a_hash_names_the_content_not_the_place() {
    let hash = |dir: &Path| resolve(dir.to_str().unwrap(), &[], false).unwrap().hash().unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder("gqa").join(name), copy.path().join(name)).unwrap();
    }
    assert_eq!(hash(&folder("gqa")), hash(copy.path()));
    assert_ne!(hash(&folder("gqa")), hash(&folder("bias")));
    let weights = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_ne!(hash(&folder("gqa")), hash(copy.path()));
}
