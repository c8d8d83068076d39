//! The finished splits of a run: `stats.json`, which names them, and `dropped.jsonl`, which lists the records that none
//! of them kept. A part of a split has two such files of its own.
//!
//! Both hold every split together, and a command that finishes further ones leaves the entries and lines of the others
//! as they are. `stats.json` is written last: a split that it does not name is not finished, whatever else lies in the
//! directory.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    generate::construct::progress::refuse_other,
    storage,
};

/// The finished splits of a `construct` directory.
pub struct Finished {
    stats_path: PathBuf,
    dropped_path: PathBuf,
    /// What `stats.json` holds.
    stats: Value,
}

impl Finished {
    /// What earlier commands finished; a `stats.json` that does not name splits is refused (exit 3), and so is a list
    /// beside it that holds lines of nobody's: now, not when further splits are done.
    pub fn read(stats_path: &Path, dropped_path: &Path) -> Result<Self> {
        let of = |stats| Self { stats_path: stats_path.to_owned(), dropped_path: dropped_path.to_owned(), stats };
        let stats = match foreign::read(stats_path, foreign::LARGE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(of(json!({ "schema": 1, "splits": {} })));
            }
            Err(e) => return Err(storage::error("cannot read", stats_path, &e)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .ok()
                .filter(|stats: &Value| stats["splits"].is_object())
                .ok_or_else(|| {
                    Error::data(format!("{} does not say which splits are finished", stats_path.display()))
                        .hint("put it back as construct wrote it, or choose another directory with --run")
                })?,
        };
        let finished = of(stats);
        finished.dropped()?;
        Ok(finished)
    }

    /// The entry of a finished split.
    pub fn entry(&self, split: &str) -> Option<&Value> {
        self.stats["splits"].get(split)
    }

    /// Whether `split` is finished, under whatever settings.
    pub fn names(&self, split: &str) -> bool {
        self.entry(split).is_some()
    }

    /// Whether `split` is finished; under other settings it is refused (exit 2), naming them.
    pub fn holds(&self, split: &str, settings: &Fingerprint) -> Result<bool> {
        let Some(held) = self.settings(split) else { return Ok(false) };
        refuse_other(&self.stats_path, &held, settings).map(|()| true)
    }

    /// Refuses (exit 3) a finished split whose file, `output`, is gone or is not as construct wrote it.
    pub fn check_output(&self, split: &str, output: &Path) -> Result<()> {
        let Some(written) = self.entry(split).and_then(|entry| entry["output"]["blake3"].as_str()) else {
            return Ok(());
        };
        let there = output.is_file();
        if there && storage::hash_file(output)? == written {
            return Ok(());
        }
        let what = if there { "was changed" } else { "is gone" };
        Err(Error::data(format!("{} {what} since {split} was finished", output.display()))
            .hint("put it back as construct wrote it; or construct again, into another --run"))
    }

    /// The settings of a finished split.
    pub fn settings(&self, split: &str) -> Option<Fingerprint> {
        let entry = self.entry(split)?;
        Some(serde_json::from_value(entry["settings"].clone()).unwrap_or_default())
    }

    /// The lines of `dropped.jsonl` that belong to finished splits.
    pub fn dropped_lines(&self) -> Result<Vec<Value>> {
        Ok(self.dropped()?.into_iter().map(|(_, line)| line).collect())
    }

    /// Refuses (exit 2) to replace a list of dropped records that nobody of ours can have written: no `stats.json` is
    /// beside it, and it has lines that are not among those to write. A command that was killed between the two files
    /// leaves a list of the same splits, or of fewer.
    pub fn refuse_foreign_list(&self, dropped: &[Value]) -> Result<()> {
        if self.dropped_path.symlink_metadata().is_err() || self.stats_path.is_file() {
            return Ok(());
        }
        let ours = lines(dropped)?;
        let ours: HashSet<&[u8]> = ours.split_inclusive(|&byte| byte == b'\n').collect();
        match foreign::read(&self.dropped_path, foreign::LOG) {
            Ok(held) if held.split_inclusive(|&byte| byte == b'\n').all(|line| ours.contains(line)) => Ok(()),
            _ => Err(storage::foreign(&self.dropped_path, "and construct did not make it")),
        }
    }

    /// Adds splits, each with its entry of `stats.json`, and their lines of `dropped.jsonl`.
    pub fn add(&mut self, splits: Map<String, Value>, dropped: &[Value]) -> Result<()> {
        let held = self.dropped()?.into_iter().flat_map(|(bytes, _)| bytes);
        let list: Vec<u8> = held.chain(lines(dropped)?).collect();
        storage::write_file_atomic(&self.dropped_path, &list)?;
        for (name, entry) in splits {
            self.stats["splits"][name] = entry;
        }
        storage::write_json(&self.stats_path, &self.stats)
    }

    /// What `stats.json` holds.
    pub fn into_stats(self) -> Value {
        self.stats
    }

    /// The lines of the finished splits, as they are and as JSON. Others were left by a command that was killed before
    /// it wrote `stats.json`: their splits are written again. A line of no split is refused (exit 3): the list is
    /// always written whole.
    fn dropped(&self) -> Result<Vec<(Vec<u8>, Value)>> {
        let bytes = match foreign::read(&self.dropped_path, foreign::LOG) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|e| storage::error("cannot read", &self.dropped_path, &e))?,
        };
        let mut held = Vec::new();
        for bytes in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = serde_json::from_slice::<Value>(bytes).ok().filter(|line| line["split"].is_string());
            let Some(line) = line else {
                return Err(Error::data(format!(
                    "{}: holds a line that construct did not write",
                    self.dropped_path.display()
                ))
                .hint("put it back as construct wrote it, or choose another directory with --run"));
            };
            if line["split"].as_str().is_some_and(|split| self.names(split)) {
                held.push((bytes.to_vec(), line));
            }
        }
        Ok(held)
    }
}

/// Dropped records as JSON lines.
fn lines(dropped: &[Value]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for line in dropped {
        serde_json::to_writer(&mut lines, line)
            .map_err(|e| Error::run(format!("cannot write the dropped list: {e}")))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> Result<Finished> {
        Finished::read(&dir.join("stats.json"), &dir.join("dropped.jsonl"))
    }

    fn settings(seed: u64, trials: u64) -> Fingerprint {
        Fingerprint::of_contents(&[("train.seed", json!(seed)), ("construct.trials", json!(trials))])
    }

    fn splits(name: &str, seed: u64) -> Map<String, Value> {
        Map::from_iter([(name.to_owned(), json!({ "settings": settings(seed, 3) }))])
    }

    #[test]
    fn a_further_split_leaves_the_others_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut finished = read(dir.path()).unwrap();
        finished.add(splits("train", 1), &[json!({ "split": "train", "id": "a" })]).unwrap();
        // A kill before stats.json left lines of dev.
        let path = dir.path().join("dropped.jsonl");
        let train = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&train[..], b"{\"split\":\"dev\",\"id\":\"old\"}\n"].concat()).unwrap();
        let mut finished = read(dir.path()).unwrap();
        finished.add(splits("dev", 1), &[json!({ "split": "dev", "id": "new" })]).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines, format!("{}{{\"split\":\"dev\",\"id\":\"new\"}}\n", std::str::from_utf8(&train).unwrap()));

        let finished = read(dir.path()).unwrap();
        assert!(finished.holds("train", &settings(1, 3)).unwrap() && finished.holds("dev", &settings(1, 3)).unwrap());
        assert!(!finished.holds("test", &settings(2, 4)).unwrap());
        let error = finished.holds("train", &settings(1, 4)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("construct.trials (3 → 4)"), "{error}");
    }

    #[test]
    fn a_list_with_a_line_of_no_split_is_not_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let mut finished = read(dir.path()).unwrap();
        finished.add(splits("train", 1), &[json!({ "split": "train", "id": "a" })]).unwrap();
        let path = dir.path().join("dropped.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for line in ["{\"split\":\"tra\n", "{\"id\":\"b\"}\n", "\n"] {
            let list = [&whole, line.as_bytes()].concat();
            std::fs::write(&path, &list).unwrap();
            assert_eq!(read(dir.path()).err().unwrap().exit_code(), 3, "{line}");
            // It came while a command was at work.
            assert_eq!(finished.add(splits("dev", 1), &[]).unwrap_err().exit_code(), 3, "{line}");
            assert_eq!(std::fs::read(&path).unwrap(), list);
        }
    }

    #[test]
    fn a_list_alone_is_replaced_where_its_lines_are_ours() {
        let dir = tempfile::tempdir().unwrap();
        let finished = read(dir.path()).unwrap();
        let dropped = ["train", "dev"].map(|split| json!({ "split": split, "id": "a" }));
        let path = dir.path().join("dropped.jsonl");
        for (list, refused) in [
            (lines(&dropped).unwrap(), false),
            (lines(&dropped[..1]).unwrap(), false),
            (lines(&[json!({ "split": "train", "id": "b" })]).unwrap(), true),
            (b"notes of somebody's\n".to_vec(), true),
        ] {
            std::fs::write(&path, &list).unwrap();
            let exit = finished.refuse_foreign_list(&dropped).err().map(|e| e.exit_code());
            assert_eq!(exit, refused.then_some(2), "{}", String::from_utf8_lossy(&list));
        }
    }

    #[test]
    fn a_stats_file_that_does_not_tell_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stats.json"), "{\"schema\": 1").unwrap();
        assert_eq!(read(dir.path()).err().unwrap().exit_code(), 3);
    }
}
