//! `manifest.json`: length and BLAKE3 of every file of a committed directory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    foreign,
    signals::{check_interrupted, or_stopped},
};

/// Name of the manifest inside its directory.
pub const MANIFEST: &str = "manifest.json";

/// Bytes hashed at a time.
const BUFFER: usize = 8 << 20;

/// What the manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    length: u64,
    blake3: String,
}

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    schema: u32,
    files: BTreeMap<String, Entry>,
}

/// BLAKE3 of bytes, in hex.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// BLAKE3 of a file that is read, in hex. A signal that asks to stop ends it.
pub fn hash_file(path: &Path) -> Result<String> {
    hash(path, &check_interrupted)
}

/// BLAKE3 of a file that was just written, in hex: to the end, since what is done is saved after a signal too.
pub fn hash_written(path: &Path) -> Result<String> {
    hash(path, &|| Ok(()))
}

fn hash(path: &Path, check: &dyn Fn() -> Result<()>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(|e| super::error("cannot read", path, &e))?;
    add_to_hash(&mut hasher, file, check).map_err(|e| or_stopped(super::error("cannot read", path, &e)))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Adds all of a file, through a buffer (a map of a file that shrinks would kill the process), until `check` fails.
fn add_to_hash(hasher: &mut blake3::Hasher, mut file: File, check: &dyn Fn() -> Result<()>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        check().map_err(io::Error::other)?;
        buffer.clear();
        (&mut file).take(BUFFER as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return Ok(());
        }
        // Many threads share one buffer: a base model of 16 GB is hashed at the speed of the disk.
        hasher.update_rayon(&buffer);
    }
}

/// Adds all of a file that is read to a hash; a signal that asks to stop ends it.
pub fn hash_into(hasher: &mut blake3::Hasher, file: File) -> io::Result<()> {
    add_to_hash(hasher, file, &check_interrupted)
}

/// Describes every file below `dir` but the manifest itself, by `/`-separated relative name.
pub(super) fn describe(dir: &Path) -> Result<Manifest> {
    let mut files = BTreeMap::new();
    walk(dir, "", &mut |name, path| {
        let length = std::fs::metadata(path).map_err(|e| super::error("cannot read", path, &e))?.len();
        files.insert(name.to_owned(), Entry { length, blake3: hash_written(path)? });
        Ok(())
    })?;
    files.remove(MANIFEST);
    Ok(Manifest { schema: 1, files })
}

/// Checks a directory against its manifest: `Ok(false)` when it has none (another tool's), an error (exit 4) naming
/// the first file that is missing, of another length or of another hash.
pub fn verify_manifest(dir: &Path) -> Result<bool> {
    verify(dir, &check_interrupted)
}

/// Whether a directory is all that its manifest says, to the end, whatever signal comes.
pub(super) fn is_whole(dir: &Path) -> bool {
    verify(dir, &|| Ok(())).is_ok_and(|whole| whole)
}

fn verify(dir: &Path, check: &dyn Fn() -> Result<()>) -> Result<bool> {
    let path = dir.join(MANIFEST);
    let bytes = match foreign::read(&path, foreign::SMALL) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::model(format!("cannot read {}: {}", path.display(), super::reason(&e)))),
    };
    let manifest = parse(&path, &bytes)?;
    for (name, entry) in &manifest.files {
        entry.verify(&dir.join(name), check)?;
    }
    Ok(true)
}

/// A file below a directory that its manifest does not list; one without a manifest lists none.
pub fn unlisted(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(MANIFEST);
    let listed = match foreign::read(&path, foreign::SMALL) {
        Ok(bytes) => parse(&path, &bytes)?.files,
        Err(_) => BTreeMap::new(),
    };
    let mut found = None;
    walk(dir, "", &mut |name, _| {
        if name != MANIFEST && !listed.contains_key(name) {
            found.get_or_insert_with(|| name.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// The bytes of one file of a directory, checked against the manifest where that lists it (exit 4 where they differ).
pub fn verify_file(dir: &Path, name: &str) -> Result<Vec<u8>> {
    let file = dir.join(name);
    let unread =
        |path: &Path, e: std::io::Error| Error::model(format!("cannot read {}: {}", path.display(), super::reason(&e)));
    let content = foreign::read(&file, foreign::LARGE).map_err(|e| unread(&file, e))?;
    let path = dir.join(MANIFEST);
    let manifest = match foreign::read(&path, foreign::SMALL) {
        Ok(bytes) => parse(&path, &bytes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(content),
        Err(e) => return Err(unread(&path, e)),
    };
    match manifest.files.get(name) {
        Some(entry) if entry.blake3 != hash_bytes(&content) => {
            Err(damaged(&file, "its BLAKE3 differs from manifest.json"))
        }
        _ => Ok(content),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|_| damaged(path, "it is not a manifest"))?;
    if manifest.schema != 1 {
        return Err(damaged(path, &format!("its schema is {}, 1 expected", manifest.schema)));
    }
    if manifest.files.is_empty() {
        return Err(damaged(path, "it lists no file"));
    }
    // What it names is read: only what lies in its own directory.
    match manifest.files.keys().find(|name| !foreign::is_within(name)) {
        Some(name) => Err(damaged(path, &format!("it lists {}, which is not below it", foreign::name(name)))),
        None => Ok(manifest),
    }
}

impl Entry {
    fn verify(&self, file: &Path, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let Ok(meta) = std::fs::metadata(file) else {
            return Err(damaged(file, "listed in manifest.json but not there"));
        };
        foreign::check(file).map_err(|e| damaged(file, &e.to_string()))?;
        if meta.len() != self.length {
            return Err(damaged(file, &format!("{} bytes, {} expected", meta.len(), self.length)));
        }
        if hash(file, check).map_err(|e| or_stopped(Error::model(e.to_string())))? != self.blake3 {
            return Err(damaged(file, "its BLAKE3 differs from manifest.json"));
        }
        Ok(())
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::model(format!("{}: {what}", path.display()))
        .hint("the directory is damaged or was edited: use another checkpoint")
}

/// Calls `visit(relative name, path)` for every file below `dir`, in name order.
pub(super) fn walk(dir: &Path, prefix: &str, visit: &mut dyn FnMut(&str, &Path) -> Result<()>) -> Result<()> {
    let read = |e: std::io::Error| super::error("cannot read", dir, &e);
    let mut entries = std::fs::read_dir(dir).map_err(read)?.collect::<std::io::Result<Vec<_>>>().map_err(read)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(read)?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), visit)?;
        } else {
            visit(&name, &entry.path())?;
        }
    }
    Ok(())
}
