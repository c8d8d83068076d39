//! `RUN/eval/<split>/` (`predictions` for prediction files): all of one split, made by one command's settings.
//!
//! `settings.json` says what made a folder. The same settings go on in it and extend it; others are refused (exit 2)
//! until `--overwrite`, which replaces this folder and no other; interrupted, what it was to replace waits beside it
//! until the new one is scored or the old settings are given again. What earlier commands of these settings added by
//! flag or key (baselines, the base, the curve, the paper's tables) is measured again from its own files, so that a
//! later command does not blank it.

mod replaced;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PredictionSource;
use crate::{
    context::Context,
    device,
    error::{Error, Result},
    fingerprint::Fingerprint,
    foreign, storage,
};
use replaced::{aside, bring_back, recover, set_aside};

/// What made a split's folder.
pub const SETTINGS: &str = "settings.json";
/// Thresholds tuned on dev, beside the splits' folders.
pub const THRESHOLDS: &str = "thresholds.json";
/// Calibrators fitted on dev, beside them.
pub const CALIBRATION: &str = "calibration.json";
/// Everything that is made again from logs at no cost worth keeping it.
const DERIVED: [&str; 8] = [
    "metrics.json",
    "base.metrics.json",
    "against.metrics.json",
    "baselines.json",
    "report.html",
    "model-card.md",
    "tripod-llm.md",
    SETTINGS,
];
/// What an evaluation of the older layout left in `RUN/eval` itself.
const OLDER: [&str; 4] = ["metrics.json", "predictions.jsonl", "report.html", "tables"];
/// Whose order says which class is which in prediction files; a checkpoint has its own.
pub const LABELS: &str = "task.labels";
/// What a full evaluation writes beside its logs: tables, figures as PNG and SVG, the report.
const SPACE: u64 = 16 << 20;

/// Parts that commands of the same settings asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalRequest {
    /// Baselines by name.
    pub baselines: Vec<String>,
    /// Those of them that an earlier command ran and this one does not name: their answers count as they are.
    #[serde(skip)]
    pub kept: Vec<String>,
    /// Those that an earlier command ran and this one gives no runs: they keep theirs.
    #[serde(skip)]
    pub keeping_runs: Vec<String>,
    /// `--runs`
    pub runs: Option<u32>,
    /// The base before tuning.
    pub compare_base: bool,
    /// Prediction files to compare with.
    pub against: Vec<PathBuf>,
    /// The curve over the epochs.
    pub curve: bool,
    /// The perplexity of base and tuned model.
    pub forgetting: bool,
    /// Tables of the paper.
    pub paper: Vec<String>,
    /// `task.name` as it was when they were asked for, where it said which of the paper's tasks this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper_task: Option<String>,
    /// The model card and the guidelines' items.
    #[serde(skip_serializing_if = "is_false")]
    pub card: bool,
    /// `cnn.embeddings`, which measuring the CNN again needs.
    pub cnn_embeddings: Option<PathBuf>,
    /// `eval.language_text`, which base and tuned model read for their perplexity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_text: Option<PathBuf>,
}

/// What a later key leaves as it was in files of commands that did not ask for it.
fn is_false(asked: &bool) -> bool {
    !asked
}

/// What decides a split's numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Its predictions.
    pub scoring: Fingerprint,
    /// What is measured on them.
    pub measuring: Fingerprint,
}

impl Fingerprints {
    fn differences(&self, recorded: &Self) -> Vec<String> {
        let mut all = self.scoring.differences(&recorded.scoring);
        // An older clsgen kept no labels of prediction files: they cannot be compared.
        let compared = |key: &str| key != LABELS || !recorded.measuring.get(LABELS).is_null();
        // A key may decide both.
        for told in self.measuring.filtered(compared).differences(&recorded.measuring) {
            if !all.contains(&told) {
                all.push(told);
            }
        }
        all
    }
}

#[derive(Serialize, Deserialize)]
struct Settings {
    schema: u32,
    made: Fingerprints,
    asked: EvalRequest,
}

impl Settings {
    /// Those of a folder, if they can be read.
    fn of(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&foreign::read(&folder.join(SETTINGS), foreign::LARGE).ok()?).ok()
    }

    /// Whether what they made has the predictions of `made`.
    fn score_as(&self, made: &Fingerprints) -> bool {
        made.scoring.differences(&self.made.scoring).is_empty()
    }
}

/// A split's folder, claimed for these settings.
pub struct Folder {
    /// `RUN/eval/<split>`
    pub out: PathBuf,
    /// Where `thresholds.json` and `calibration.json` lie: with the checkpoint in `RUN/eval`, or here for prediction
    /// files.
    pub frozen: PathBuf,
    /// Files of other settings may be replaced.
    pub overwrite: bool,
    made: Fingerprints,
    earlier: EvalRequest,
    /// What `--overwrite` brings back was made by the same settings: nothing of it is replaced.
    returns: bool,
}

impl Folder {
    /// Looks at what is there, before any work; refuses what other settings made.
    pub fn find(context: &Context, work: &PredictionSource<'_>, overwrite: bool) -> Result<Self> {
        let made = work.made(context)?;
        let root = context.run_dir.join("eval");
        refuse_older(&root)?;
        let split = work.split();
        let out = root.join(split.unwrap_or("predictions"));
        let frozen = if split.is_some() { root } else { out.clone() };
        if !context.dry_run {
            recover(&out, &frozen)?;
        }
        let earlier = Settings::of(&out);
        let waiting = Settings::of(&aside(&out)).filter(|waiting| waiting.score_as(&made));
        let differing = earlier.as_ref().map(|earlier| made.differences(&earlier.made));
        let same = differing.as_ref().is_some_and(Vec::is_empty);
        // Those of a run lie beside its splits' folders: here they would pass for what this split was measured with.
        let stray = [THRESHOLDS, CALIBRATION].map(|name| out.join(name)).into_iter().find(|path| path.exists());
        if let Some(stray) = stray.filter(|_| split.is_some() && !overwrite) {
            return Err(Error::usage(format!("{} is none of this evaluation's files", stray.display()))
                .hint("move it away, or --overwrite removes it"));
        }
        if !same && !overwrite && holds_work(&out) {
            let what = match &differing {
                Some(differing) => format!("was made by other settings: {}", differing.join("; ")),
                None => format!("holds files, and no {SETTINGS} says what made them"),
            };
            let replaces = match &waiting {
                Some(_) => format!(
                    "--overwrite brings back {}, which these settings made and an interrupted --overwrite set aside",
                    aside(&out).display()
                ),
                None => "--overwrite replaces this folder and no other".to_owned(),
            };
            return Err(Error::usage(format!("{} {what}", out.display()))
                .hint(format!("{replaces}; or give the settings that made it, or another --run")));
        }
        let waiting = waiting.filter(|_| overwrite);
        let returns = waiting.as_ref().is_some_and(|waiting| made.differences(&waiting.made).is_empty());
        let earlier = match waiting {
            // It comes back as it was.
            Some(waiting) => Some(waiting).filter(|_| returns),
            None => earlier.filter(|_| same && !overwrite),
        };
        let earlier = earlier.map(|earlier| earlier.asked).unwrap_or_default();
        Ok(Self { frozen, out, overwrite, made, earlier, returns })
    }

    /// The context with `cnn.embeddings` and `eval.language_text` as an earlier command of the same settings had them,
    /// where this one names none.
    pub fn context(&self, context: &Context) -> Context {
        let mut context = context.clone();
        let cnn = &mut context.config.cnn;
        cnn.embeddings = cnn.embeddings.take().or_else(|| self.earlier.cnn_embeddings.clone());
        let eval = &mut context.config.eval;
        let earlier = || self.earlier.language_text.clone().filter(|path| path.exists());
        eval.language_text = eval.language_text.take().or_else(earlier);
        context
    }

    /// What the command asks for by flags and keys, and what earlier ones of the same settings did.
    pub fn asked(&self, context: &Context, now: EvalRequest) -> EvalRequest {
        let names_none = now.baselines.is_empty();
        let names_file = !now.against.is_empty();
        let eval = &context.config.eval;
        let mut all = now;
        // What the config names is left out of prediction files, which have no records and no model.
        if self.is_of_a_run() {
            if names_none {
                all.baselines.clone_from(&eval.baselines);
            }
            all.forgetting |= eval.language_text.is_some();
        }
        // Runs that are given for no baseline by name are those of all.
        if !names_none || all.runs.is_none() {
            let unnamed = self.earlier.baselines.iter().filter(|name| !all.baselines.contains(name));
            all.kept = unnamed.cloned().collect();
        }
        let says_runs = all.runs.is_some() || context.config.given.contains("eval.runs");
        let keeping_runs = if says_runs { &all.kept } else { &self.earlier.baselines };
        all.keeping_runs.clone_from(keeping_runs);
        let add = |list: &mut Vec<String>, more: &[String]| {
            let new: Vec<String> = more.iter().filter(|name| !list.contains(name)).cloned().collect();
            list.extend(new);
        };
        add(&mut all.baselines, &self.earlier.baselines);
        all.paper_task = all.paper_task.or_else(|| self.earlier.paper_task.clone());
        add(&mut all.paper, &self.earlier.paper);
        all.compare_base |= self.earlier.compare_base;
        if all.against.is_empty() {
            all.against.clone_from(&self.earlier.against);
        }
        if let Some(gone) = all.against.iter().find(|path| !names_file && !path.is_file()) {
            tracing::warn!("{} is gone: it is not compared with again", gone.display());
            all.against.clear();
        }
        all.curve |= self.earlier.curve;
        match &self.earlier.language_text {
            Some(gone) if !all.forgetting && self.earlier.forgetting => {
                tracing::warn!("{} is gone: base and tuned model do not read it again", gone.display());
            }
            _ => all.forgetting |= self.earlier.forgetting,
        }
        all.card |= self.earlier.card;
        all
    }

    /// Takes the folder: what `--overwrite` replaces steps aside, and the disk must have room.
    pub fn begin(&self) -> Result<()> {
        storage::create_dir_all(&self.out)?;
        // Before hours of work whose tables and report would not fit on the disk.
        device::check_disk(&self.out, SPACE)?;
        if self.brings_back() {
            bring_back(&self.out, &self.frozen)?;
            tracing::warn!("{} is back, which an interrupted --overwrite was to replace", self.out.display());
        }
        if self.overwrite && holds_work(&self.out) {
            if self.scores_the_same() {
                return storage::check_tree(&self.out);
            }
            if holds_work(&aside(&self.out)) {
                // What waits there was there first; what was to replace it was never scored to its end.
                storage::remove_dir_all(&self.out)?;
            } else {
                set_aside(&self.out, &self.frozen)?;
            }
            storage::create_dir_all(&self.out)?;
        }
        self.write(self.earlier.clone())
    }

    /// Where what lies at `path` is now, if it stays or comes back when this begins; what other settings made is looked
    /// at one by one.
    pub fn held(&self, path: &Path) -> Option<PathBuf> {
        if self.brings_back() {
            return path.strip_prefix(&self.out).ok().map(|path| aside(&self.out).join(path));
        }
        (!self.overwrite || self.scores_the_same()).then(|| path.to_owned())
    }

    /// Whether such a file has anything in it.
    pub fn holds(&self, file: &Path) -> bool {
        self.held(file).is_some_and(|held| held.metadata().is_ok_and(|held| held.len() > 0))
    }

    /// A folder waits that has these predictions.
    fn brings_back(&self) -> bool {
        self.overwrite && Settings::of(&aside(&self.out)).is_some_and(|waiting| waiting.score_as(&self.made))
    }

    /// What is there has these predictions: only what is measured on them differs, and logs check themselves.
    fn scores_the_same(&self) -> bool {
        Settings::of(&self.out).is_some_and(|theirs| theirs.score_as(&self.made))
    }

    /// Whether the split is a run's; prediction files keep their thresholds with them.
    fn is_of_a_run(&self) -> bool {
        self.frozen != self.out
    }

    /// Once the split is scored, what was replaced goes; where it could not be, and nothing of it was, that comes back.
    /// `remove_shown` removes our tables and figures of such a folder: they are of the settings before.
    pub fn settle<T>(&self, scored: Result<T>, remove_shown: impl FnOnce(&Path) -> Result<()>) -> Result<T> {
        match &scored {
            Err(_) => recover(&self.out, &self.frozen)?,
            Ok(_) => {
                storage::remove_dir_all(&aside(&self.out))?;
                if self.overwrite && !self.returns {
                    DERIVED.iter().try_for_each(|name| storage::remove_file(&self.out.join(name)))?;
                    remove_shown(&self.out)?;
                    if self.is_of_a_run() {
                        [THRESHOLDS, CALIBRATION]
                            .iter()
                            .try_for_each(|name| storage::remove_file(&self.out.join(name)))?;
                    }
                    self.write(self.earlier.clone())?;
                }
            }
        }
        scored
    }

    /// Records what the folder now holds, so that later commands keep it.
    pub fn finish(&self, context: &Context, asked: &EvalRequest) -> Result<()> {
        // A path is kept whole, so that it is found from anywhere; a hub id stays one.
        let whole =
            |named: &PathBuf| std::path::absolute(context.config.resolve(named)).ok().filter(|path| path.exists());
        let cnn_embeddings =
            context.config.cnn.embeddings.as_ref().map(|named| whole(named).unwrap_or_else(|| named.clone()));
        let against = asked.against.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        // Dev is found by its key.
        let language_text = context.config.eval.language_text.as_ref().filter(|_| asked.forgetting).and_then(whole);
        self.write(EvalRequest { cnn_embeddings, language_text, against: against.collect(), ..asked.clone() })
    }

    fn write(&self, asked: EvalRequest) -> Result<()> {
        let settings = Settings { schema: 1, made: self.made.clone(), asked };
        storage::write_json(&self.out.join(SETTINGS), &settings)
    }
}

/// An evaluation of the layout before splits had folders is neither read nor touched.
pub fn refuse_older(root: &Path) -> Result<()> {
    match OLDER.iter().map(|name| root.join(name)).find(|path| path.exists()) {
        None => Ok(()),
        Some(found) => {
            let message = format!(
                "{} is of an older clsgen, which kept one split's files in {} itself",
                found.display(),
                root.display()
            );
            Err(Error::usage(message).hint(format!("move that folder away: mv {0} {0}.old", root.display())))
        }
    }
}

/// Whether a file beside the work is no clsgen's: by what is in it, whatever its name. An empty one holds nothing.
pub fn is_foreign(path: &Path) -> bool {
    let Ok(bytes) = foreign::read(path, foreign::LARGE) else { return path.exists() };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let value = || serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
    let holds = |keys: [&str; 2]| keys.iter().all(|key| value().get(key).is_some());
    let is_hash = |line: &str| line.len() == 34 && line.trim_matches('"').bytes().all(|byte| byte.is_ascii_hexdigit());
    let ours = match &*name {
        SETTINGS => holds(["schema", "made"]),
        THRESHOLDS => holds(["schema", "thresholds"]),
        CALIBRATION => holds(["schema", "methods"]),
        _ if name.ends_with(".hashes") => String::from_utf8_lossy(&bytes).lines().all(is_hash),
        _ => value().as_object().is_some_and(|object| object.len() > 1),
    };
    !bytes.is_empty() && !ours
}

/// Whether a folder holds work: a command that failed before it scored anything claims nothing.
fn holds_work(folder: &Path) -> bool {
    let counts = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let beside = [SETTINGS, THRESHOLDS, CALIBRATION].contains(&name.as_str());
        let beside = beside || name.ends_with(".meta.json") || name.ends_with(".hashes");
        let beside = beside && !is_foreign(&entry.path());
        !beside && entry.metadata().is_ok_and(|metadata| metadata.is_dir() || metadata.len() > 0)
    };
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(counts))
}
