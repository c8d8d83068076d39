//! `clsgen demo --pretrain DIR`: makes the embedded model again, from nothing but a seed (`--seed`, else that of its
//! config). A training that was stopped goes on; `DIR/model` is written at its end.
//!
//! ```text
//! seed ─▶ notes, answers by rules ─▶ DIR/corpus.jsonl ─▶ DIR/base/tokenizer.json
//!                                         └▶ train (all weights, random start, LM loss) ─▶ DIR/model (bf16)
//! ```

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::json;

use crate::{
    commands::{Context, args, folder, output, train},
    config::{self, Config},
    demo::{
        self,
        notes::{Explainer, Notes},
    },
    error::{Error, Result, ResultExt},
    generate::scoring,
    model::checkpoint::{self, BaseLookup},
    storage::AtomicDir,
};

use super::notes::DemoFile;

/// Notes of the corpus.
pub(super) const NOTES: u64 = 30_000;
/// Of these the tokenizer reads the first.
const TOKENIZER_NOTES: usize = 3_000;
/// In DIR: what it was trained by, and what came of it.
const CONFIG: &str = "pretrain.toml";
const MODEL: &str = "model";
/// How often an answer of the corpus has a mistake.
const MISTAKES: f64 = 0.3;

/// Writes the corpus and the shape into `dir`, trains, and exports the model.
pub(super) fn run(context: &Context, dir: &Path, notes: Option<u64>) -> Result<()> {
    let config = config(context)?;
    check_model(dir)?;
    let mut files = settings(dir);
    files.extend(corpus(&config, dir, notes.unwrap_or(NOTES))?);
    super::notes::write_once(&files)?;
    let config_path = dir.join(CONFIG);
    let config = config::load(Some(&config_path), &context.sets)?;
    let run_dir = dir.join("run");
    let resume = run_dir.join("checkpoints").is_dir();
    let training = Context {
        seed: config.train.seed,
        config,
        config_path: Some(config_path),
        run_dir: run_dir.clone(),
        ..context.clone()
    };
    train::execute(&training, &args::TrainArgs { resume, assume: None })?;
    let model = export(&run_dir, dir)?;
    let made = if context.json { json!({ "output": model }).to_string() } else { model.display().to_string() };
    output::line(&made)
}

/// The config that is trained by: the built-in one, `--set`, `--seed`.
pub(super) fn config(context: &Context) -> Result<Config> {
    if context.config_path.is_some() {
        return Err(
            Error::usage("--pretrain brings its own config").hint("leave --config out; --set changes single keys")
        );
    }
    config::parse(CONFIG, demo::PRETRAIN_CONFIG, &context.sets)
}

/// Refuses (exit 2) a directory whose model is not of an earlier pretraining, or holds anything else: it would be
/// replaced.
pub(super) fn check_model(dir: &Path) -> Result<()> {
    let model = dir.join(MODEL);
    if folder::names(&model, "--pretrain")?.is_empty() {
        return Ok(());
    }
    if !dir.join(CONFIG).exists() {
        return Err(Error::usage(format!("{} is no pretraining's, and would be replaced", model.display()))
            .hint("choose another directory with --pretrain"));
    }
    folder::refuse_unlisted(&model, "demo --pretrain", "--pretrain")
}

/// Config, prompt and the model's shape: files that a user can train from by hand.
pub(super) fn settings(dir: &Path) -> Vec<DemoFile> {
    let (prompt, text) = demo::PRETRAIN_PROMPT;
    let mut files = vec![
        (dir.join(CONFIG), demo::PRETRAIN_CONFIG.as_bytes().to_vec()),
        (dir.join("prompts").join(prompt), text.as_bytes().to_vec()),
    ];
    files.extend(demo::shape_files().into_iter().map(|(name, bytes)| (dir.join("base").join(name), bytes)));
    files
}

/// Notes with answers by rules, and the tokenizer of their words.
fn corpus(config: &Config, dir: &Path, notes: u64) -> Result<[DemoFile; 2]> {
    let source = Notes::new(config.train.seed, super::notes::SETTINGS);
    let explainer =
        Explainer { seed: config.train.seed, labels: config.task.labels.clone(), mistakes: MISTAKES, thinks: false };
    let mut lines = Vec::new();
    let mut words = vec![demo::PRETRAIN_PROMPT.1.to_owned()];
    for note in source.range(0..notes) {
        let first_trial = 0;
        let answer = explainer.answer(&note, first_trial).text;
        if words.len() <= TOKENIZER_NOTES {
            words.push(format!("{}\n\n{answer}", note.record.field("text").unwrap_or_default()));
        }
        let mut record = note.record;
        record.explanation = Some(answer);
        super::notes::push(&mut lines, &record.to_json())?;
    }
    let tokenizer = demo::tokenizer::train(&words)?;
    Ok([(dir.join("corpus.jsonl"), lines), (dir.join("base").join("tokenizer.json"), tokenizer)])
}

/// The trained weights as a bf16 Hugging Face folder in `dir`; where it is.
fn export(run_dir: &Path, dir: &Path) -> Result<PathBuf> {
    let trained = scoring::checkpoint_dir(run_dir)?;
    let loaded =
        checkpoint::load_model(&trained, BaseLookup::default(), DType::F32, &Device::Cpu).context("pretraining")?;
    let model = dir.join(MODEL);
    let folder = AtomicDir::create(&model)?;
    checkpoint::write_folder(&folder, &loaded.model.llama, Some(&loaded.source), DType::BF16)?;
    // Somebody may have put something in it meanwhile.
    check_model(dir)?;
    folder.commit(true)?;
    Ok(model)
}
