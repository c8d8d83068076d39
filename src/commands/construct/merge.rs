//! `construct --merge`: the parts of each split, put together to what one process would have written.
//!
//! Every part must be there, finished, and made under the settings of this command; all that is wrong is told at once.
//! The parts stay where they are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    finished::Finished,
    job::ConstructJob,
    split::Split,
    split_files::{SplitFiles, part_of},
    teacher::{PROMPTS, Purpose},
};
use crate::{
    commands::{Context, dry_run::DryRunReport, run_json},
    config::Dtype,
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    generate::construct::Statistics,
    shard::Shard,
    storage::{self, RunLock, run_record::of_shard},
};

/// How many problems a message lists.
const LISTED: usize = 20;

/// A split whose parts are all there.
struct Parts<'a> {
    split: &'a Split,
    /// What each part's files say, in order.
    parts: Vec<(Shard, SplitFiles, Finished)>,
    /// The settings of the whole.
    settings: Fingerprint,
}

/// Merges every split named that is not finished yet: `stats.json`, with all that are; `None` where that is only told.
pub(super) fn run(context: &Context) -> Result<Option<Value>> {
    let job = ConstructJob::prepare(context, Purpose::Merge)?;
    // Named before the lock is asked for: a part that is unfinished may be being made, by a process that holds it.
    let found = find(context, &job, &job.finished()?)?;
    if context.dry_run {
        return plan(context, &job, &found).map(|()| None);
    }
    let lock = run_json::lock(&context.run_dir)?;
    job.protect_inputs()?;
    let mut finished = job.finished()?;
    let found = find(context, &job, &finished)?;
    if !found.is_empty() {
        merge(context, &job, &found, &mut finished, lock)?;
    }
    Ok(Some(finished.into_stats()))
}

fn plan(context: &Context, job: &ConstructJob, found: &[Parts<'_>]) -> Result<()> {
    let mut plan = DryRunReport::new(context, "construct --merge").with("done already", found.is_empty());
    for split in &job.splits {
        let parts = found.iter().find(|parts| parts.split.name == split.name);
        let told = parts.map_or_else(|| json!("done already"), |parts| json!(parts.parts.len()));
        plan = plan.with(&format!("parts of {}", split.name), told);
    }
    plan.print(context)
}

/// The parts of every split that is not finished; what is wrong with any of them is one error (exit 2).
fn find<'a>(context: &Context, job: &'a ConstructJob, finished: &Finished) -> Result<Vec<Parts<'a>>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for split in &job.splits {
        let held = finished.settings(&split.name);
        if let Some(held) = &held {
            // As any command of other settings is refused.
            finished.holds(&split.name, &on_their_device(context, split.settings.clone(), held))?;
            finished.check_output(&split.name, &SplitFiles::new(&job.dir, &split.name, None).output())?;
        } else {
            found.extend(parts(context, job, split, &mut problems)?);
        }
    }
    if problems.is_empty() {
        return Ok(found);
    }
    let more = problems.len().saturating_sub(LISTED);
    problems.truncate(LISTED);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Err(Error::usage(problems.join("\n"))
        .hint("make what is missing with --shard, under the settings of the other parts, then --merge again"))
}

/// The parts of a split, where nothing is wrong with any.
fn parts<'a>(
    context: &Context,
    job: &ConstructJob,
    split: &'a Split,
    problems: &mut Vec<String>,
) -> Result<Option<Parts<'a>>> {
    let dir = job.dir.display();
    let name = &split.name;
    let counts = counts(&job.dir, name);
    let of = match counts[..] {
        [of] => of,
        [] => {
            problems.push(format!("{dir}: no part of {name} is there"));
            return Ok(None);
        }
        _ => {
            let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
            problems.push(format!(
                "{dir}: {name} was cut into different numbers of parts, {}: remove those that do not count",
                counts.join(" and ")
            ));
            return Ok(None);
        }
    };
    let told = problems.len();
    let mut parts = Vec::new();
    // The first part says on what device all of them were made.
    let mut settings: Option<Fingerprint> = None;
    for shard in (1..=of).filter_map(|part| Shard::new(part, of)) {
        let files = SplitFiles::new(&job.dir, name, Some(shard));
        let finished = files.finished()?;
        let Some(held) = finished.settings(name) else {
            let state = if files.log().is_file() { "unfinished" } else { "missing" };
            problems.push(format!("part {shard} of {name} is {state} ({})", files.output().display()));
            continue;
        };
        let whole = settings.get_or_insert_with(|| on_their_device(context, split.settings.clone(), &held));
        let mut expected = whole.clone();
        expected.set("shard", json!(shard.to_string()));
        let differing = expected.differences(&held);
        if !differing.is_empty() {
            problems.push(format!("part {shard} of {name} was made with other settings: {}", differing.join("; ")));
        }
        parts.push((shard, files, finished));
    }
    let whole = settings.filter(|_| problems.len() == told);
    Ok(whole.map(|settings| Parts { split, parts, settings }))
}

/// The numbers of parts that a split was cut into, by the names of their files: more than one where an earlier cut was
/// left lying.
fn counts(dir: &Path, split: &str) -> Vec<usize> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let counts: BTreeSet<usize> =
        entries.filter_map(|entry| Some(part_of(entry.file_name().to_str()?, split)?.of())).collect();
    counts.into_iter().collect()
}

/// `model.dtype = "auto"` means another type on another device, and how a server takes prompts is known once it is
/// asked. Merging uses no device and asks nobody: it takes the parts' own.
fn on_their_device(context: &Context, mut settings: Fingerprint, made: &Fingerprint) -> Fingerprint {
    settings.set(PROMPTS, made.get(PROMPTS).clone());
    if context.config.model.dtype == Dtype::Auto {
        settings.set("model.dtype", made.get("model.dtype").clone());
    }
    settings
}

/// Writes the splits, the dropped list and, last, the statistics that mark them as done.
fn merge(
    context: &Context,
    job: &ConstructJob,
    found: &[Parts<'_>],
    finished: &mut Finished,
    lock: RunLock,
) -> Result<()> {
    let mut texts = Vec::new();
    let mut dropped = Vec::new();
    for parts in found {
        let mut bytes = Vec::new();
        let mut statistics = Statistics::new(&context.config.task.labels);
        for (shard, files, finished) in &parts.parts {
            let part = read_part(parts.split, *shard, files, finished)?;
            bytes.extend(part.bytes);
            statistics.add_all(&part.statistics);
            dropped.extend(part.dropped);
        }
        texts.push((parts, bytes, statistics));
    }
    finished.refuse_foreign_list(&dropped)?;
    record(context, job, found, lock)?;
    let mut splits = Map::new();
    for (parts, bytes, statistics) in texts {
        let path = job.files(parts.split).output();
        storage::write_own_file(&path, &bytes)?;
        splits.insert(parts.split.name.clone(), parts.split.entry(&parts.settings, &path, &statistics)?);
    }
    finished.add(splits, &dropped)?;
    for parts in found {
        let path = job.files(parts.split).output();
        tracing::info!("{}: {} parts; their files are needed no more", path.display(), parts.parts.len());
    }
    Ok(())
}

/// What a part holds.
struct Part {
    bytes: Vec<u8>,
    statistics: Statistics,
    dropped: Vec<Value>,
}

/// Reads a part, whose files must be as they were written (exit 3).
fn read_part(split: &Split, shard: Shard, files: &SplitFiles, finished: &Finished) -> Result<Part> {
    let path = files.output();
    storage::protect(&path);
    let changed = |path: PathBuf| {
        Error::data(format!("{}: is not what construct wrote there: it was changed since", path.display()))
            .hint(format!("remove the files of part {shard} and make it again with --shard {shard}"))
    };
    let entry = finished.entry(&split.name).cloned().unwrap_or_default();
    let bytes = foreign::read(&path, foreign::LOG).map_err(|e| storage::error("cannot read", &path, &e))?;
    if entry["output"]["blake3"] != storage::hash_bytes(&bytes) {
        return Err(changed(path));
    }
    let statistics: Statistics =
        serde_json::from_value(entry["statistics"].clone()).map_err(|_| changed(files.stats()))?;
    let dropped = finished.dropped_lines()?;
    if dropped.len() != statistics.failed.total() {
        return Err(changed(files.dropped()));
    }
    Ok(Part { bytes, statistics, dropped })
}

/// `run.json` of the run, with what the processes say of themselves that made the parts.
fn record(context: &Context, job: &ConstructJob, found: &[Parts<'_>], lock: RunLock) -> Result<()> {
    let outputs: Vec<PathBuf> =
        found.iter().flat_map(|parts| &parts.parts).map(|(_, files, _)| files.output()).collect();
    let inputs: Vec<&Path> = job.splits.iter().map(|split| &split.path).chain(&outputs).map(PathBuf::as_path).collect();
    let mut shards: Vec<Shard> = found.iter().flat_map(|parts| &parts.parts).map(|(shard, ..)| *shard).collect();
    shards.sort_by_key(|shard| (shard.of(), shard.part()));
    shards.dedup();
    let shards = shards.into_iter().filter_map(|shard| of_shard(&context.run_dir, shard)).collect();
    // run.json keeps the lock until this process ends.
    run_json::write_with_shards(context, "construct", (&inputs, &[job.teacher.used()]), lock, shards)
}
