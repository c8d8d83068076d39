//! Where predictions go: a private file with a sidecar that says what made it, stdout, or a device.
//!
//! `OUTPUT.meta.json` is written before the first line. A later command continues `OUTPUT` when its own sidecar would
//! be the same; a torn last line is cut and written again. At the end it also holds how many lines were written and
//! their hash, so that only those very lines are continued.
//!
//! A lock keeps other processes out. No input, no file of the model's or of its run, and no foreign sidecar is ever
//! replaced.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    commands::{Context, args::PredictArgs, output},
    data::Prediction,
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign,
    generate::{predict::Counts, scoring},
    storage::{self, OutputLock, RecordLog, Writer},
};

/// What made an output: equal sidecars, equal bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sidecar {
    schema: u32,
    /// Model, input (null for a pipe, which nothing can be compared with) and settings. An older clsgen's sidecar has
    /// none.
    #[serde(default)]
    fingerprint: Fingerprint,
    /// The lines when a command last stopped writing them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Written>,
}

/// Lines of an output, and BLAKE3 of their bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Written {
    lines: usize,
    bytes: u64,
    blake3: String,
}

/// An open output.
pub(super) enum PredictionOutput {
    Stdout,
    /// A regular file.
    File(Box<Lines>),
    /// A FIFO or a device: nothing to continue, nothing to describe.
    Device(Writer),
}

/// A regular file that is written.
pub(super) struct Lines {
    log: RecordLog,
    /// Those of the lines that it already held.
    counts: Counts,
    sidecar: Sidecar,
    _lock: OutputLock,
}

/// The right to write an output, before anything slow is done.
pub(super) struct Claim {
    path: PathBuf,
    /// `None` for a stream.
    lock: Option<OutputLock>,
}

impl Claim {
    /// Refuses (exit 2) an output that is an input, a file of the model's run, held by another process, beside a
    /// foreign sidecar, or that cannot be continued whatever the model turns out to be.
    pub(super) fn stake(context: &Context, args: &PredictArgs) -> Result<Self> {
        check(context, args)?;
        let path = args.output.as_path();
        let lock = if is_stream(path) { None } else { Some(OutputLock::acquire(path)?) };
        Ok(Self { path: path.to_owned(), lock })
    }
}

/// As [`Claim::stake`], without taking the lock.
pub(super) fn check(context: &Context, args: &PredictArgs) -> Result<()> {
    let path = args.output.as_path();
    if args.input.as_os_str() != "-" {
        storage::protect(&args.input);
    }
    if is_stream(path) {
        return if is_stdout(path) { storage::check_stdout() } else { storage::check_output(path) };
    }
    if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::usage(format!("--output {} is a folder", path.display())).hint("name a file in it"));
    }
    let beside = sidecar_path(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = if folder.exists() { "is a file, not a folder" } else { "is not there" };
        return Err(Error::usage(format!("--output {}: {} {what}", path.display(), folder.display()))
            .hint("make that folder, or give another --output"));
    }
    storage::check_output(path)?;
    storage::check_output(&beside)?;
    let real = storage::followed(path)?;
    // A checkpoint is RUN/checkpoints/epoch-NN, also where it is called `epoch-NN`, `.` or by a link.
    let checkpoint = scoring::checkpoint_dir(&args.model).unwrap_or_else(|_| args.model.clone());
    let names = [checkpoint.canonicalize(), std::path::absolute(&checkpoint)];
    let of_checkpoint = names.iter().flatten().filter_map(|name| name.ancestors().nth(2));
    for run in [context.run_dir.as_path(), args.model.as_path()].into_iter().chain(of_checkpoint) {
        refuse_run_file(path, &real, run)?;
    }
    // Of a link, too, what stands beside the file that it leads to: --overwrite removes it.
    for beside in [&beside, &sidecar_path(&real)] {
        if beside.symlink_metadata().is_ok() && read_sidecar(beside).is_none() {
            return Err(Error::usage(format!(
                "{} is there already and is no sidecar of ours: predictions to {} would replace it",
                beside.display(),
                path.display()
            ))
            .hint("give another --output, or move that file away; --overwrite does not replace it"));
        }
    }
    if !args.overwrite && holds_lines(path) && !beside.is_file() {
        return Err(refusal(path, "no sidecar says what made it"));
    }
    Ok(())
}

/// Files and folders of a run directory that other commands make.
const RUN_FILES: [&str; 9] = [
    "checkpoints",
    "construct",
    "eval",
    "tensorboard",
    "best.json",
    "metrics.jsonl",
    "run.json",
    "train.json",
    ".lock",
];

/// Refuses an output that leads to a file of a run directory's own (`real`), or would lie in a checkpoint, which never
/// changes.
fn refuse_run_file(path: &Path, real: &Path, run: &Path) -> Result<()> {
    let in_checkpoint = real.parent().is_some_and(|parent| parent.join("clsgen.json").is_file());
    let is_run = ["checkpoints", "best.json", "run.json"].iter().any(|name| run.join(name).exists());
    let inside =
        run.canonicalize().ok().filter(|_| is_run).and_then(|run| real.strip_prefix(run).ok().map(Path::to_owned));
    let own = inside.is_some_and(|inside| {
        let first = inside.components().next().map(|first| first.as_os_str().to_owned()).unwrap_or_default();
        // Earlier predictions may lie anywhere.
        RUN_FILES.iter().any(|name| first == *name)
            && (first == "checkpoints" || (real.exists() && !sidecar_path(real).exists()))
    });
    if in_checkpoint || own {
        Err(Error::usage(format!("{} is a file of a run or checkpoint, not a place for predictions", path.display()))
            .hint("give another --output; --overwrite does not replace it"))
    } else {
        Ok(())
    }
}

/// A sidecar of ours, whatever it says.
fn read_sidecar(beside: &Path) -> Option<Sidecar> {
    let value: serde_json::Value = serde_json::from_slice(&foreign::read(beside, foreign::LARGE).ok()?).ok()?;
    // An older clsgen's has no fingerprint, but settings of another shape.
    let older = value.get("clsgen_version").is_some() && value.get("settings").is_some();
    (older || value.get("fingerprint").is_some()).then(|| serde_json::from_value(value).ok()).flatten()
}

impl PredictionOutput {
    /// Opens what was claimed: a file is begun, continued where its sidecar equals `sidecar`, or refused (exit 2).
    pub(super) fn open(claim: Claim, sidecar: &Sidecar, overwrite: bool) -> Result<Self> {
        let path = claim.path.as_path();
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        let Some(lock) = claim.lock else { return Ok(Self::Device(storage::append(path)?)) };
        let beside = sidecar_path(path);
        storage::check_output(path)?;
        let mut written = None;
        if overwrite {
            storage::remove_output(path)?;
            // What stood beside the file that a link leads to spoke of the old lines.
            storage::remove_file(&sidecar_path(&storage::followed(path)?))?;
        } else if holds_lines(path) || (path.exists() && sidecar.is_of_another_part(&beside)) {
            written = check_same(path, &beside, sidecar)?;
        }
        let sidecar = Sidecar { written, ..sidecar.clone() };
        sidecar.save(&beside)?;
        let log = RecordLog::open_output(path)?;
        log.lock()?;
        let counts = count(path)?;
        Ok(Self::File(Box::new(Lines { log, counts, sidecar, _lock: lock })))
    }

    /// Whether the same command can go on with it.
    pub(super) fn continues(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Lines that are already there.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::File(lines) => lines.log.records(),
            _ => 0,
        }
    }

    /// Counts of the lines that are already there.
    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::File(lines) => lines.counts,
            _ => Counts::default(),
        }
    }

    /// Writes a line.
    pub(super) fn put(&mut self, prediction: &Prediction) -> Result<()> {
        match self {
            Self::File(lines) => lines.log.append(prediction),
            Self::Stdout => output::line(&prediction.to_line()?),
            Self::Device(writer) => {
                writer.put(format!("{}\n", prediction.to_line()?).as_bytes())?;
                writer.flush_file()
            }
        }
    }

    /// Waits until the disk has every line, and notes in the sidecar which they are.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::File(lines) => {
                lines.log.sync()?;
                let path = lines.log.path();
                let written = Written {
                    lines: lines.log.records(),
                    bytes: lines.log.length(),
                    blake3: storage::hash_written(path)?,
                };
                Sidecar { written: Some(written), ..lines.sidecar }.save(&sidecar_path(path))
            }
            Self::Stdout => Ok(()),
            Self::Device(writer) => writer.finish(),
        }
    }
}

/// Whether an earlier run left lines.
fn holds_lines(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

/// Names of stdout.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Folders of what is open already, whatever the shell has opened: a file too is written as it comes.
const OPENED: [&str; 2] = ["/dev/fd", "/proc/self/fd"];

/// Whether predictions to this path go to stdout.
pub(super) fn is_stdout(path: &Path) -> bool {
    path.to_str().is_some_and(|path| STDOUT.contains(&path))
}

fn is_stream(path: &Path) -> bool {
    let opened = path.parent().and_then(Path::to_str).is_some_and(|folder| OPENED.contains(&folder));
    is_stdout(path) || opened || path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".meta.json");
    name.into()
}

impl Sidecar {
    /// The sidecar of an output that holds no line yet.
    pub(super) fn new(fingerprint: Fingerprint) -> Self {
        Self { schema: 2, fingerprint, written: None }
    }

    /// Whether the sidecar that is there is another part's of some input: a part may be empty, and its file is whole
    /// all the same.
    fn is_of_another_part(&self, beside: &Path) -> bool {
        let part = |sidecar: &Self| sidecar.fingerprint.get("shard").clone();
        read_sidecar(beside).is_some_and(|theirs| part(&theirs) != part(self))
    }

    fn save(&self, beside: &Path) -> Result<()> {
        storage::write_json(beside, self)
    }
}

impl Written {
    /// Whether a file still begins with these lines; later ones may follow (a kill leaves no note of them).
    fn begins(&self, path: &Path) -> bool {
        let Ok(file) = std::fs::File::open(path) else { return false };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file.take(self.bytes)).is_ok()
            && hasher.count() == self.bytes
            && hasher.finalize().to_hex().as_str() == self.blake3
    }
}

/// Compares an earlier run's sidecar with ours, naming what differs; gives what it says of the lines.
fn check_same(path: &Path, beside: &Path, ours: &Sidecar) -> Result<Option<Written>> {
    let theirs = read_sidecar(beside).ok_or_else(|| refusal(path, &format!("{} cannot be read", beside.display())))?;
    if ours.fingerprint.get("input").is_null() {
        return Err(refusal(path, "records from a pipe cannot be compared with those it was made from"));
    }
    let differing = ours.fingerprint.differences(&theirs.fingerprint);
    if differing.is_empty() {
        let changed = theirs.written.as_ref().is_some_and(|written| !written.begins(path));
        return if changed {
            Err(refusal(path, "its lines are not those that were written: it was changed since"))
        } else {
            Ok(theirs.written)
        };
    }
    Err(refusal(path, &format!("it was made with other settings: {}", differing.join("; "))))
}

fn refusal(path: &Path, why: &str) -> Error {
    Error::usage(format!("{} exists and cannot be continued: {why}", path.display()))
        .hint("give another --output, or --overwrite to replace it")
}

/// Counts the whole lines of an output, so that the totals at the end are those of the file.
fn count(path: &Path) -> Result<Counts> {
    let file = std::fs::File::open(path).map_err(|e| storage::error("cannot read", path, &e))?;
    let mut counts = Counts::default();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| storage::error("cannot read", path, &e))?;
        let value: serde_json::Value =
            serde_json::from_str(&line).map_err(|_| refusal(path, "it holds lines that are not predictions"))?;
        counts.records += 1;
        counts.errors += usize::from(value.get("error").is_some_and(|error| !error.is_null()));
        counts.truncated +=
            usize::from(value.get("truncated_tokens").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 0));
        counts.unparsable += usize::from(value.get("parsable") == Some(&serde_json::Value::Bool(false)));
    }
    Ok(counts)
}
