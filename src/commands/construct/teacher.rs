//! Who explains: a model whose files are here, or one on a server.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{offline::Batch, split::Split};
use crate::{
    commands::Context,
    config::{Quantize, is_server},
    error::{Error, Result, ResultExt},
    fingerprint::Fingerprint,
    generate::{memory::Longest, remote::Remote, scoring},
    model::{ModelSource, source},
    prompt::{Prompter, TextTokenizer, Tokens},
    remote::{Named, PromptTransport, RemoteModel, Server},
    storage::run_record::Used,
};

/// How a teacher's prompts were sent, in a fingerprint: null where they are ours, token by token.
pub(super) const PROMPTS: &str = "teacher's prompts";

/// What a job is prepared for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To ask the teacher, which this machine must hold.
    Ask,
    /// To ask it by files.
    Batch,
    /// To put together what others asked it.
    Merge,
}

/// Where the teacher is.
pub(super) enum TeacherSource {
    /// Its files are here.
    Here(ModelSource),
    /// A server has it.
    There(RemoteModel, Option<Remote>),
    /// It is asked by files.
    Offline(Box<Batch>),
}

/// A teacher, and what it is known by.
pub(super) struct ConfiguredTeacher {
    pub held: TeacherSource,
    pub tokenizer: Arc<TextTokenizer>,
    /// Of its weights; of one on a server, of its tokenizer.
    hash: String,
}

/// Finds the teacher that the config names, and the base, whose tokenizer may be its own.
pub(super) fn find(context: &Context, purpose: Purpose) -> Result<(ConfiguredTeacher, ModelSource)> {
    let config = &context.config;
    let options = &config.construct;
    let search = [config.dir.as_path(), Path::new(".")];
    let find = |key: &str, name: &str| {
        if name.is_empty() {
            Err(Error::usage(format!("{key} is not set"))
                .hint(format!("name a model folder or hub id: --set {key}=DIR")))
        } else {
            source::resolve(name, &search, context.allow_network).context(key)
        }
    };
    let offline = options.teacher.is_empty() && options.teacher_name.is_some();
    if purpose == Purpose::Batch && !offline && !is_server(&options.teacher) {
        return Err(Error::usage("batch files are for a model that is served elsewhere")
            .hint("set construct.teacher_name to its name there, and leave construct.teacher out"));
    }
    if is_server(&options.teacher) || (offline && purpose != Purpose::Ask) {
        let named = Named {
            key: "construct.teacher",
            url: &options.teacher,
            name: options.teacher_name.as_deref(),
            tokenizer: options.teacher_tokenizer.as_deref(),
        };
        if purpose == Purpose::Ask {
            named.allow(context)?;
        }
        let base = find("model.base", &config.model.base)?;
        let model = RemoteModel::find(context, named, Some(base.tokenizer_path()))?;
        let tokenizer = model.tokenizer().clone();
        let hash = tokenizer.hash().to_owned();
        return Ok((ConfiguredTeacher { held: TeacherSource::There(model, None), tokenizer, hash }, base));
    }
    let source = find("construct.teacher", &options.teacher)?;
    let base = find("model.base", &config.model.base)?;
    let shape = source.config()?;
    shape
        .check_window(options.max_input_tokens, options.max_output_tokens, config.model.allow_long)
        .context("construct")?;
    let tokenizer = Arc::new(TextTokenizer::load(source.tokenizer_path())?);
    tokenizer.check_vocab(shape.vocab_size)?;
    Ok((ConfiguredTeacher { held: TeacherSource::Here(source), tokenizer, hash: String::new() }, base))
}

impl ConfiguredTeacher {
    /// Checks, before anything is asked, that the teacher can be: that memory holds it, that its server answers.
    pub fn prepare(&mut self, context: &Context) -> Result<()> {
        let options = &context.config.construct;
        let input = options.max_input_tokens;
        let output = options.max_output_tokens;
        match &mut self.held {
            TeacherSource::Here(source) => {
                scoring::check_memory_of(context, source, longest(context)).context("construct.teacher")
            }
            TeacherSource::There(model, remote) => {
                let server = Server::connect(context, model.clone(), input + output)?;
                *remote = Some(Remote::new(server).dropping(context.config.remote.drop_failed));
                Ok(())
            }
            TeacherSource::Offline(_) => Ok(()),
        }
    }

    /// What it is known by in a fingerprint. A server that was not asked took prompts as the settings say that finished
    /// splits, or parts of them, `held`.
    pub fn contents(&mut self, context: &Context, held: &[Fingerprint]) -> Result<[(&'static str, Value); 5]> {
        let mut quantize = Quantize::None;
        let (identity, dtype, prompts) = match &self.held {
            TeacherSource::Here(source) => {
                self.hash = source.hash()?;
                quantize = context.config.model.quantize;
                (json!(self.hash), json!(context.dtype()?.as_str()), Value::Null)
            }
            TeacherSource::There(model, Some(remote)) => {
                let chat = remote.server().transport() == PromptTransport::Chat;
                (model.identity(), Value::Null, if chat { json!("/chat/completions") } else { Value::Null })
            }
            TeacherSource::Offline(batch) => (batch.model.identity(), Value::Null, Value::Null),
            TeacherSource::There(model, None) => {
                let prompts = held.first().map_or(Value::Null, |held| held.get(PROMPTS).clone());
                (model.identity(), Value::Null, prompts)
            }
        };
        Ok([
            ("construct.teacher", identity),
            ("teacher's tokenizer", json!(self.tokenizer.hash())),
            ("model.dtype", dtype),
            ("model.quantize", json!(quantize)),
            (PROMPTS, prompts),
        ])
    }

    /// What it is to a reader.
    pub fn display_name(&self) -> PathBuf {
        match &self.held {
            TeacherSource::Here(source) => source.path.clone(),
            TeacherSource::There(model, _) => PathBuf::from(format!("{} ({})", model.url(), model.name())),
            TeacherSource::Offline(batch) => PathBuf::from(batch.model.name()),
        }
    }

    /// What `run.json` names: of a teacher on a server its tokenizer, address and name stand in the config.
    pub fn used(&self) -> Used<'_> {
        match &self.held {
            TeacherSource::Here(source) => ("construct.teacher", &source.path, &self.hash),
            TeacherSource::There(model, _) => ("construct.teacher_tokenizer", model.tokenizer_path(), &self.hash),
            TeacherSource::Offline(batch) => ("construct.teacher_tokenizer", batch.model.tokenizer_path(), &self.hash),
        }
    }

    /// From now on it is asked by files.
    pub fn use_batch(&mut self, batch: impl FnOnce(RemoteModel) -> Result<Batch>) -> Result<()> {
        if let TeacherSource::There(model, _) = &self.held {
            self.held = TeacherSource::Offline(Box::new(batch(model.clone())?));
        }
        Ok(())
    }

    /// Ends the file of requests; how many it holds.
    pub fn close_batch(self) -> Result<usize> {
        match self.held {
            TeacherSource::Offline(batch) => batch.close(),
            _ => Ok(0),
        }
    }

    /// From now on trials of this split are asked, after so many others.
    pub fn enter(&self, split: &Split, trials_before: usize) {
        if let TeacherSource::Offline(batch) = &self.held {
            batch.enter(split, trials_before);
        }
    }

    /// The prompt of the record that is asked about next.
    pub fn prompt(&self, prompter: &Prompter, record: &crate::data::Record) -> Result<Tokens> {
        match &self.held {
            TeacherSource::There(_, Some(remote)) => remote.prompt(prompter, record),
            TeacherSource::Offline(batch) => {
                batch.next_record(record.number);
                prompter.prompt(record)
            }
            _ => prompter.prompt(record),
        }
    }
}

/// The longest prompt and answer of a teacher.
pub(super) fn longest(context: &Context) -> Longest {
    let options = &context.config.construct;
    let key = "construct.max_input_tokens".to_owned();
    Longest { input: options.max_input_tokens, output: options.max_output_tokens, key }
}
