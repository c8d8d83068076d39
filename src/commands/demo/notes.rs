//! The synthetic splits of a demonstration, and what only their maker knows.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

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

/// A file of a demonstration, and what it is to hold.
pub(super) type DemoFile = (PathBuf, Vec<u8>);

/// `{train,dev,test}.jsonl` (half, a quarter, a quarter), `new.jsonl` (unlabeled) and `risk.jsonl`, the true
/// probabilities.
pub(super) fn files(dir: &Path, seed: u64, notes: u64) -> Result<Vec<DemoFile>> {
    let train = notes / 2;
    let dev = notes / 2 + notes / 4;
    let splits: [(&str, Range<u64>); 3] = [("train", 0..train), ("dev", train..dev), ("test", dev..notes)];
    let source = Notes::new(seed, SETTINGS);
    let mut files = Vec::new();
    let mut risks = Vec::new();
    for (name, range) in splits {
        let mut lines = Vec::new();
        for note in source.range(range) {
            push(&mut lines, &note.record.to_json())?;
            push(&mut risks, &json!({ "split": name, "id": note.record.id, "risk": note.probability }))?;
        }
        files.push((dir.join(format!("{name}.jsonl")), lines));
    }
    let mut unlabeled = Vec::new();
    for mut note in source.range(notes..notes + NEW) {
        note.record.label = None;
        push(&mut unlabeled, &note.record.to_json())?;
        push(&mut risks, &json!({ "split": "new", "id": note.record.id, "risk": note.probability }))?;
    }
    files.push((dir.join("new.jsonl"), unlabeled));
    files.push((dir.join("risk.jsonl"), risks));
    Ok(files)
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

/// Writes the files that are not there yet, once none is there that holds something else.
pub(super) fn write_once(files: &[DemoFile]) -> Result<()> {
    for (path, bytes) in check_once(files)? {
        if let Some(dir) = path.parent() {
            storage::create_dir_all(dir)?;
        }
        storage::write_file_atomic(path, bytes)?;
    }
    Ok(())
}

/// The files that are not there yet. One with other content is the user's or another demonstration's (exit 2).
pub(super) fn check_once(files: &[DemoFile]) -> Result<Vec<&DemoFile>> {
    let mut absent = Vec::new();
    for file in files {
        let path = file.0.display();
        match std::fs::read(&file.0) {
            Ok(have) if have == file.1 => {}
            Ok(_) => {
                return Err(Error::usage(format!(
                    "{path} belongs to a demonstration with other settings, or is no demonstration's"
                ))
                .hint("choose another directory with --out or --pretrain, or the same --notes, --seed, --objective"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent.push(file),
            Err(error) => {
                return Err(Error::usage(format!("{path} cannot be read: {}", storage::reason(&error)))
                    .hint("choose another directory"));
            }
        }
    }
    Ok(absent)
}
