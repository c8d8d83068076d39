//! The synthetic splits of a demonstration, and what only their maker knows.

use std::{ops::Range, path::Path};

use serde_json::json;

use crate::{
    demo::notes::{NoteSettings, Notes, SyntheticNote},
    error::{Error, Result},
    storage,
};

/// Short notes, so that minutes are enough; more deaths than LCD's 4 %, so that hundreds of notes are enough.
pub(super) const SETTINGS: NoteSettings = NoteSettings { words: 200, prevalence: 0.35, typos: 0.004 };

/// Notes without a label, to predict.
const NEW: u64 = 8;

/// Writes `data/{train,dev,test}.jsonl` (half, a quarter, a quarter), `data/new.jsonl` (unlabeled) and
/// `data/risk.jsonl`, the true probabilities.
///
/// Files that are there already must be the same: a run directory holds one demonstration.
pub(super) fn write(dir: &Path, seed: u64, notes: u64) -> Result<()> {
    let train = notes / 2;
    let dev = notes / 2 + notes / 4;
    let splits: [(&str, Range<u64>); 3] = [("train", 0..train), ("dev", train..dev), ("test", dev..notes)];
    let source = Notes::new(seed, SETTINGS);
    storage::create_dir_all(dir)?;
    let mut risks = Vec::new();
    for (name, range) in splits {
        let mut lines = Vec::new();
        for note in source.range(range) {
            push(&mut lines, &note.record.to_json())?;
            push(&mut risks, &json!({ "split": name, "id": note.record.id, "risk": note.probability }))?;
        }
        write_once(&dir.join(format!("{name}.jsonl")), &lines)?;
    }
    let mut unlabeled = Vec::new();
    for mut note in source.range(notes..notes + NEW) {
        note.record.label = None;
        push(&mut unlabeled, &note.record.to_json())?;
        push(&mut risks, &json!({ "split": "new", "id": note.record.id, "risk": note.probability }))?;
    }
    write_once(&dir.join("new.jsonl"), &unlabeled)?;
    write_once(&dir.join("risk.jsonl"), &risks)
}

/// The notes of the test split, with their true risks.
pub(super) fn test_split(seed: u64, notes: u64) -> Vec<SyntheticNote> {
    Notes::new(seed, SETTINGS).range(notes / 2 + notes / 4..notes)
}

/// A line of JSON.
pub(super) fn push(lines: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut *lines, value).map_err(|e| Error::run(format!("cannot write a note: {e}")))?;
    lines.push(b'\n');
    Ok(())
}

/// Writes a file that is not there yet; another demonstration's is left alone (exit 2).
pub(super) fn write_once(path: &Path, bytes: &[u8]) -> Result<()> {
    if check_once(path, bytes)? { Ok(()) } else { storage::write_file_atomic(path, bytes) }
}

/// Whether a file is there with these bytes; with others it is another demonstration's (exit 2).
pub(super) fn check_once(path: &Path, bytes: &[u8]) -> Result<bool> {
    match std::fs::read(path) {
        Ok(have) if have == bytes => Ok(true),
        Ok(_) => Err(Error::usage(format!("{} belongs to a demonstration with other settings", path.display()))
            .hint("choose another directory with --out, or the same --notes, --seed and --objective")),
        Err(_) => Ok(false),
    }
}
