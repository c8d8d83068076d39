//! Who explains: a model whose files are here, or one on a server.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{finished::Finished, job::Purpose};
use crate::{
    commands::Context,
    config::is_server,
    error::{Context as _, Error, Result},
    generate::{memory::Longest, remote::Remote, scoring},
    model::{ModelSource, source},
    prompt::{Prompter, TextTokenizer, Tokens},
    remote::{Named, Place, Server, Way},
    storage::run_record::Used,
};

/// How a teacher's prompts were sent, in a fingerprint: null where they are ours, token by token.
const PROMPTS: &str = "teacher's prompts";

/// The teacher.
pub(super) enum Teacher {
    /// Its files are here.
    Here(ModelSource),
    /// A server has it.
    There(Place, Option<Remote>),
}

/// A teacher, and what it is known by.
pub(super) struct Known {
    pub teacher: Teacher,
    pub tokenizer: Arc<TextTokenizer>,
    /// Of its weights; of one on a server, of its tokenizer.
    hash: String,
}

/// Finds the teacher that the config names, and the base, whose tokenizer may be its own.
pub(super) fn find(context: &Context, purpose: Purpose) -> Result<(Known, ModelSource)> {
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
    if is_server(&options.teacher) {
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
        let place = Place::find(context, named, Some(base.tokenizer_path()))?;
        let tokenizer = place.tokenizer().clone();
        let hash = tokenizer.hash().to_owned();
        return Ok((Known { teacher: Teacher::There(place, None), tokenizer, hash }, base));
    }
    let source = find("construct.teacher", &options.teacher)?;
    let base = find("model.base", &config.model.base)?;
    let shape = source.config()?;
    shape
        .check_window(options.max_input_tokens, options.max_output_tokens, config.model.allow_long)
        .context("construct")?;
    let tokenizer = Arc::new(TextTokenizer::load(source.tokenizer_path())?);
    tokenizer.check_vocab(shape.vocab_size)?;
    Ok((Known { teacher: Teacher::Here(source), tokenizer, hash: String::new() }, base))
}

impl Known {
    /// Checks, before anything is asked, that the teacher can be: that memory holds it, that its server answers.
    pub fn prepare(&mut self, context: &Context) -> Result<()> {
        let options = &context.config.construct;
        let input = options.max_input_tokens;
        let output = options.max_output_tokens;
        match &mut self.teacher {
            Teacher::Here(source) => {
                let longest = Longest { input, output, key: "construct.max_input_tokens" };
                scoring::check_memory_of(context, source, longest).context("construct.teacher")
            }
            Teacher::There(place, remote) => {
                *remote = Some(Remote::new(Server::connect(context, place.clone(), input + output)?));
                Ok(())
            }
        }
    }

    /// What it is known by in a fingerprint. A server that was not asked took prompts as the splits say that are
    /// `finished`.
    pub fn contents(
        &mut self,
        context: &Context,
        finished: &Finished,
        splits: &[String],
    ) -> Result<[(&'static str, Value); 4]> {
        let (identity, dtype, prompts) = match &self.teacher {
            Teacher::Here(source) => {
                self.hash = source.hash()?;
                (json!(self.hash), json!(context.dtype()?.as_str()), Value::Null)
            }
            Teacher::There(place, Some(remote)) => {
                let chat = remote.server().way() == Way::Chat;
                (place.identity(), Value::Null, if chat { json!("/chat/completions") } else { Value::Null })
            }
            Teacher::There(place, None) => {
                let held = splits.iter().find_map(|split| finished.settings(split));
                let prompts = held.map_or(Value::Null, |held| held.get(PROMPTS).clone());
                (place.identity(), Value::Null, prompts)
            }
        };
        Ok([
            ("construct.teacher", identity),
            ("teacher's tokenizer", json!(self.tokenizer.hash())),
            ("model.dtype", dtype),
            (PROMPTS, prompts),
        ])
    }

    /// What it is to a reader.
    pub fn shown(&self) -> PathBuf {
        match &self.teacher {
            Teacher::Here(source) => source.path.clone(),
            Teacher::There(place, _) => PathBuf::from(format!("{} ({})", place.url(), place.name())),
        }
    }

    /// What `run.json` names: of a teacher on a server its tokenizer, address and name stand in the config.
    pub fn used(&self) -> Used<'_> {
        match &self.teacher {
            Teacher::Here(source) => ("construct.teacher", &source.path, &self.hash),
            Teacher::There(place, _) => ("construct.teacher_tokenizer", place.tokenizer_path(), &self.hash),
        }
    }

    /// The prompt of the record that is asked about next.
    pub fn prompt(&self, prompter: &Prompter, record: &crate::data::Record) -> Result<Tokens> {
        match &self.teacher {
            Teacher::There(_, Some(remote)) => remote.prompt(prompter, record),
            _ => prompter.prompt(record),
        }
    }
}
