//! `run.json` (SPEC A50): what made a run. Names, numbers and hashes only, never text of a record.
//!
//! The top level describes the latest command in the run directory; `earlier` lists those before it, newest first.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{Context, machine};
use crate::{
    error::{Error, Kind, Result},
    storage,
};

/// Its name in the run directory.
pub(super) const FILE: &str = "run.json";
/// Commands remembered under `earlier`.
const EARLIER: usize = 50;

/// A model or checkpoint that a command used, by its role (`model.base`) and the hash that the command knows it by.
pub type Used<'a> = (&'a str, &'a Path, &'a str);

/// Writes `RUN/run.json` for `command`, with the hash of every input (a directory: of every file in it) and of every
/// model used. The config and prompt files are added by themselves. [`finish`] completes it when the command ends.
pub fn write(context: &Context, command: &str, inputs: &[&Path], models: &[Used<'_>]) -> Result<()> {
    let path = context.run_dir.join(FILE);
    if path.symlink_metadata().is_ok() && !read(&path).is_some_and(|record| record["command"].is_string()) {
        return Err(storage::foreign(&path, "and no clsgen wrote it"));
    }
    let prompt = Some(context.config.resolve(&context.config.task.prompt)).filter(|path| path.is_file());
    let all = context.config_path.iter().chain(&prompt).map(PathBuf::as_path).chain(inputs.iter().copied());
    let mut files: Vec<Value> = Vec::new();
    for input in all {
        storage::protect(input);
        describe(input, 0, &mut files);
    }
    files.extend(models.iter().map(|(role, path, hash)| json!({ "path": path, "role": role, "blake3": hash })));
    let record = json!({
        "schema": 1,
        "command": command,
        "command_line": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "started": timestamp(context.started),
        "ended": null,
        "outcome": "running",
        "exit_code": null,
        "process": std::process::id(),
        "versions": machine::versions(),
        "hardware": machine::hardware(context),
        "seeds": { "seed": context.seed },
        "prompt_date": context.prompt_date(),
        "inputs": files,
        "config": context.config,
        "earlier": earlier(&path),
    });
    storage::write_json(&path, &record)
}

/// Notes in `RUN/run.json` when and how the command ended, if this process wrote it.
pub fn finish<T>(context: &Context, result: &Result<T>) -> Result<()> {
    let path = context.run_dir.join(FILE);
    let Some(mut record) = read(&path) else { return Ok(()) };
    if record["process"] != std::process::id() || record["started"] != timestamp(context.started) {
        return Ok(());
    }
    record["ended"] = timestamp(SystemTime::now()).into();
    record["exit_code"] = result.as_ref().err().map_or(0, Error::exit_code).into();
    record["outcome"] = match result {
        Ok(_) => "ok".into(),
        Err(error) => match error.kind() {
            Kind::Signal(signal) => format!("stopped by signal {signal}").into(),
            _ => format!("exit {}", error.exit_code()).into(),
        },
    };
    storage::write_json(&path, &record)
}

/// A record that was written before; `None` without one.
pub(super) fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The record now in the file, then those it remembers.
fn earlier(path: &Path) -> Vec<Value> {
    let Some(Value::Object(mut last)) = read(path) else { return Vec::new() };
    let older = match last.remove("earlier") {
        Some(Value::Array(older)) => older,
        _ => Vec::new(),
    };
    std::iter::once(Value::Object(last)).chain(older).take(EARLIER).collect()
}

/// Path, length and BLAKE3 of a file, or of every file of a directory. One that cannot be read is listed without a
/// hash: the command itself says so with the right exit code.
fn describe(path: &Path, depth: usize, files: &mut Vec<Value>) {
    match std::fs::metadata(path) {
        // Not a pipe: hashing it would eat what the command is about to read.
        Ok(meta) if meta.is_file() => {
            files.push(
                json!({ "path": path.to_string_lossy(), "bytes": meta.len(), "blake3": storage::hash_file(path).ok() }),
            );
        }
        Ok(meta) if meta.is_dir() && depth < 3 => {
            let mut entries: Vec<_> =
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| describe(entry, depth + 1, files));
        }
        _ => files.push(json!({ "path": path.to_string_lossy(), "bytes": null, "blake3": null })),
    }
}

/// RFC 3339 in UTC, to the second.
pub fn timestamp(time: SystemTime) -> String {
    format!("{:.0}", jiff::Timestamp::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_those_of_date() {
        let at = |seconds| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn a_second_command_keeps_the_first_under_earlier() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("data.jsonl");
        std::fs::write(&input, "{}\n").unwrap();
        let mut context = Context::for_test(dir.path());
        write(
            &context,
            "train",
            &[&input, dir.path().join("absent").as_path()],
            &[("model.base", Path::new("base"), "00ff")],
        )
        .unwrap();
        finish::<()>(&context, &Err(Error::new(Kind::Signal(15), "stopped"))).unwrap();
        context.started += Duration::from_secs(5);
        write(&context, "eval", &[], &[]).unwrap();
        finish(&context, &Ok(())).unwrap();

        let record = read(&dir.path().join(FILE)).unwrap();
        assert_eq!((record["command"].as_str(), record["outcome"].as_str()), (Some("eval"), Some("ok")));
        assert_eq!(record["versions"]["clsgen"], env!("CARGO_PKG_VERSION"));
        assert_eq!(record["config"]["lora"]["rank"], 8);
        let first = &record["earlier"][0];
        assert_eq!(
            (first["command"].as_str(), first["outcome"].as_str()),
            (Some("train"), Some("stopped by signal 15"))
        );
        assert_eq!(first["inputs"][0]["blake3"], storage::hash_bytes(b"{}\n"));
        assert!(first["inputs"][1]["blake3"].is_null());
        assert_eq!(first["inputs"][2], json!({ "path": "base", "role": "model.base", "blake3": "00ff" }));
        assert_eq!((record["exit_code"].as_i64(), first["exit_code"].as_i64()), (Some(0), Some(143)));
        assert_eq!(record["prompt_date"], first["prompt_date"]);
        assert_eq!((&record["hardware"]["device"], &record["hardware"]["dtype"]), (&json!("cpu"), &json!("f32")));
        assert!(first.get("earlier").is_none());
    }
}
