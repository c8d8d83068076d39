//! The forgetting check: base and tuned model read the same held-out texts, without a prompt.
//!
//! `eval.language_text` names them, by default the documents of dev. A text begins with what the tokenizer puts before
//! one (BOS), is cut to `model.max_input_tokens`, and counts once however many records have it. `language.base.jsonl`
//! and `language.tuned.jsonl` keep a line a text ([`log`]).

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{PredictionSource, folder::Folder, log, run_directory::EvalJob};
use crate::{
    context::Context,
    data::{self, Needs},
    error::{Error, Result},
    fingerprint::{Fingerprint, TOKENIZER},
    foreign,
    generate::{
        perplexity::{negative_log_likelihood, read_alone},
        scoring,
    },
    metrics::{
        Options,
        perplexity::{Perplexity, Text, perplexity},
    },
    prompt::TextTokenizer,
    storage,
};

/// The extension of a file that holds a text a line, and nothing else.
const PLAIN: &str = "txt";

/// The lines of the base before tuning, and of the model.
pub const BASE_FILE: &str = "language.base.jsonl";
const TUNED_FILE: &str = "language.tuned.jsonl";

/// What is read, found before any work.
pub struct Plan {
    path: PathBuf,
    texts: Vec<String>,
}

/// What a model finds of a text.
#[derive(Serialize, Deserialize)]
struct Line {
    tokens: usize,
    negative_log_likelihood: f64,
}

impl Plan {
    /// The texts, where they are `asked` for. Prediction files have no model to read them: an error.
    pub fn find(context: &Context, work: &PredictionSource<'_>, asked: bool) -> Result<Option<Self>> {
        let config = &context.config;
        let named = config.eval.language_text.as_ref();
        let job = match work {
            PredictionSource::Run(job) if asked => job,
            PredictionSource::Files { .. } if asked => {
                return Err(Error::usage("--forgetting needs a run directory: a prediction file names no model")
                    .hint("leave --predictions out"));
            }
            _ => return Ok(None),
        };
        let path = named.or(config.data.dev.as_ref()).ok_or_else(|| {
            Error::usage("--forgetting: there is no text to read")
                .hint("name one with --set eval.language_text=FILE, or dev with --set data.dev=FILE")
        })?;
        let path = config.resolve(path);
        let mut texts = if path.extension().is_some_and(|extension| extension == PLAIN) {
            lines(&path)?
        } else {
            let field = &job.template.document;
            let needs = Needs { fields: vec![field.clone()], ..Needs::default() };
            let records = data::load(&data_of_texts(context), &path, &needs)?;
            records.into_iter().filter_map(|mut record| record.fields.remove(field)).collect()
        };
        let mut seen = HashSet::new();
        texts.retain(|text| seen.insert(storage::hash_bytes(text.as_bytes())));
        Ok(Some(Self { path, texts }))
    }

    /// The file, for `run.json`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Both perplexities.
    pub fn run(&self, context: &Context, folder: &Folder, job: &EvalJob, options: &Options) -> Result<Perplexity> {
        let base = self.read(context, folder, job, false)?;
        let tuned = self.read(context, folder, job, true)?;
        let pair = |(base, tuned): (Line, Line)| Text {
            tokens: base.tokens,
            base: base.negative_log_likelihood,
            tuned: tuned.negative_log_likelihood,
        };
        Ok(perplexity(&base.into_iter().zip(tuned).map(pair).collect::<Vec<_>>(), options))
    }

    /// A line a text, those of an earlier command kept.
    fn read(&self, context: &Context, folder: &Folder, job: &EvalJob, tuned: bool) -> Result<Vec<Line>> {
        let name = if tuned { TUNED_FILE } else { BASE_FILE };
        let windows = scoring::windows(context, &job.info);
        let known = scoring::known(context, &job.checkpoint, &job.info)?;
        let mut made = vec![
            ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
            ("model.base", json!(known.base)),
            (TOKENIZER, json!(known.tokenizer)),
            ("model.dtype", json!(context.dtype()?.as_str())),
            ("model.max_input_tokens", json!(windows.input)),
            ("texts", json!(data::source_hash(&self.path)?)),
            ("document", json!(job.template.document)),
        ];
        if tuned {
            made.push(("checkpoint", json!(job.hash)));
        }
        let work = |texts: &[String], lines: &mut log::Log<Line>, bar: &indicatif::ProgressBar| {
            scoring::check_memory(context, &job.checkpoint, &job.info, &windows)?;
            let source = scoring::locate(context, &job.checkpoint, &job.info)?;
            let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
            let model = read_alone(context, &job.checkpoint, &job.info, tuned)?;
            tokenizer.check_vocab(model.llama.config.vocab_size)?;
            for text in texts {
                let mut ids = tokenizer.encode_alone(text)?;
                ids.truncate(windows.input);
                let negative_log_likelihood = negative_log_likelihood(&model.llama, &ids)?;
                if !negative_log_likelihood.is_finite() {
                    return Err(Error::run(format!("{name}: the likelihood of a text is not finite"))
                        .hint("weights of adapter or base are damaged or too large for their dtype"));
                }
                lines.append(Line { tokens: ids.len().saturating_sub(1), negative_log_likelihood })?;
                bar.inc(1);
            }
            Ok(())
        };
        let file = folder.out.join(name);
        let made = Fingerprint::of_contents(&made);
        log::fill(context, &file, (&made, folder.overwrite), &self.texts, |_| (), &work)
    }
}

/// How the file is read: as the splits are, without what only they have.
fn data_of_texts(context: &Context) -> crate::config::Data {
    crate::config::Data { carried: Vec::new(), ..context.config.data.clone() }
}

/// A text a line; blank lines are none.
fn lines(path: &Path) -> Result<Vec<String>> {
    let bytes = foreign::read(path, foreign::LOG)
        .map_err(|e| Error::data(format!("{}: cannot be read: {}", path.display(), storage::reason(&e))))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::data(format!("{}: is not UTF-8", path.display())).hint("save the file as UTF-8"))?;
    let texts: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if texts.is_empty() {
        return Err(Error::data(format!("{}: holds no text", path.display())).hint("is this the right file?"));
    }
    Ok(texts)
}
