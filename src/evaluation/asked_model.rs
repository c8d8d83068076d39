//! A model that `eval` asks: the judge, the baselines' model. Its files are here, or a server has it.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{folder::Folder, log};
use crate::{
    baselines::prompting::Writer,
    config::{Quantize, is_server},
    context::Context,
    error::{Error, Result, ResultExt},
    generate::{
        loading,
        memory::Longest,
        remote::Remote,
        scoring::{self, Windows},
    },
    model::{Model, ModelSource, source},
    prompt::TextTokenizer,
    remote::{Named, PromptTransport, RemoteModel, Server},
};

/// How prompts were sent, in a fingerprint: null where they are ours, token by token.
pub const PROMPTS: &str = "prompts";

/// Where the model is.
enum ModelLocation {
    Here { source: ModelSource, hash: OnceCell<String> },
    There { model: Box<RemoteModel>, remote: OnceCell<Remote> },
}

/// A model that is asked, found before any work.
pub struct AskedModel {
    key: &'static str,
    held: ModelLocation,
    tokenizer: Arc<TextTokenizer>,
}

/// A model that can be asked now.
pub struct Ready<'a>(Option<Model>, Option<&'a Remote>);

impl Ready<'_> {
    /// What writes.
    pub fn writer(&self) -> Result<Writer<'_>> {
        match self {
            Self(Some(model), _) => Ok(Writer::Here(model)),
            Self(None, Some(remote)) => Ok(Writer::There(remote)),
            Self(None, None) => Err(Error::run("no model was kept")),
        }
    }

    /// A model whose files are here.
    pub fn here(model: Model) -> Self {
        Self(Some(model), None)
    }
}

impl AskedModel {
    /// The model that `named.url` names; `own` is where the tokenizer of the task's model lies.
    pub fn find(context: &Context, named: Named<'_>, own: impl FnOnce() -> Option<PathBuf>) -> Result<Self> {
        let key = named.key;
        if is_server(named.url) {
            named.allow(context)?;
            let own = own().filter(|_| named.tokenizer.is_none());
            let model = Box::new(RemoteModel::find(context, named, own.as_deref())?);
            let tokenizer = model.tokenizer().clone();
            return Ok(Self { key, held: ModelLocation::There { model, remote: OnceCell::new() }, tokenizer });
        }
        let source = source::resolve(named.url, &[&context.config.dir], context.allow_network).context(key)?;
        let tokenizer = Arc::new(TextTokenizer::load(source.tokenizer_path())?);
        Ok(Self { key, held: ModelLocation::Here { source, hash: OnceCell::new() }, tokenizer })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// The path and hash that `run.json` names: of a model on a server its tokenizer's; address and name stand in the
    /// config.
    pub fn used(&self) -> Result<(PathBuf, String)> {
        match &self.held {
            ModelLocation::Here { source, hash } => Ok((source.path.clone(), hashed(source, hash)?.to_owned())),
            ModelLocation::There { model, .. } => {
                Ok((model.tokenizer_path().to_owned(), self.tokenizer.hash().to_owned()))
            }
        }
    }

    /// What it is known by in a fingerprint.
    pub fn identity(&self) -> Result<Value> {
        match &self.held {
            ModelLocation::Here { source, hash } => Ok(json!(hashed(source, hash)?)),
            ModelLocation::There { model, .. } => Ok(model.identity()),
        }
    }

    /// Its arithmetic and how it is stored, where that is ours.
    pub fn precision(&self, context: &Context) -> Result<[(&'static str, Value); 2]> {
        let (dtype, quantize) = match &self.held {
            ModelLocation::Here { .. } => (json!(context.dtype()?.as_str()), context.config.model.quantize),
            ModelLocation::There { .. } => (Value::Null, Quantize::None),
        };
        Ok([("model.dtype", dtype), ("model.quantize", json!(quantize))])
    }

    /// Tries its server, unless `file` holds answers that `folder` keeps: what is finished needs none. With `scores`,
    /// it must give log-probabilities of prompts (exit 2).
    pub fn check(
        &self,
        context: &Context,
        (folder, file): (&Folder, &Path),
        longest: usize,
        scores: bool,
    ) -> Result<()> {
        if folder.holds(file) {
            return Ok(());
        }
        let Some(remote) = self.remote(context, longest)? else { return Ok(()) };
        if !scores || remote.server().scores()? {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{}: the baseline token_probability cannot be had of {}: it gives no log-probabilities of a prompt's own \
            tokens (echo with logprobs on /completions, by token ids or text), or not those it writes them with",
            self.key,
            remote.server().model().url()
        ))
        .hint("vLLM gives them; or name a model folder, or leave token_probability out"))
    }

    /// How prompts are sent, for the fingerprint of `file`; of one that is whole, with its `lines`, how they were.
    pub fn prompts(&self, context: &Context, file: &Path, lines: usize, longest: usize) -> Result<Value> {
        let ModelLocation::There { .. } = &self.held else { return Ok(Value::Null) };
        let whole = log::lines(file) >= lines;
        if let Some(made) = log::made_by(file).filter(|_| whole) {
            return Ok(made.get(PROMPTS).clone());
        }
        let chat =
            self.remote(context, longest)?.is_some_and(|remote| remote.server().transport() == PromptTransport::Chat);
        Ok(if chat { json!("/chat/completions") } else { Value::Null })
    }

    /// Reads the model, or tries its server.
    pub fn ready(&self, context: &Context, windows: &Windows) -> Result<Ready<'_>> {
        let ModelLocation::Here { source, .. } = &self.held else {
            return Ok(Ready(None, self.remote(context, windows.input + windows.output)?));
        };
        let shape = source.config()?;
        self.tokenizer.check_vocab(shape.vocab_size)?;
        shape.check_window(windows.input, windows.output, windows.allow_long).context(self.key)?;
        let longest = Longest { input: windows.input, output: windows.output, key: "model.max_input_tokens".into() };
        scoring::check_memory_of(context, source, longest.clone()).context(self.key)?;
        Ok(Ready::here(loading::load_writer(context, self.key, source, longest)?))
    }

    fn remote(&self, context: &Context, longest: usize) -> Result<Option<&Remote>> {
        let ModelLocation::There { model, remote } = &self.held else { return Ok(None) };
        if remote.get().is_none() {
            let _ = remote.set(Remote::new(Server::connect(context, RemoteModel::clone(model), longest)?));
        }
        Ok(remote.get())
    }
}

fn hashed<'a>(source: &ModelSource, hash: &'a OnceCell<String>) -> Result<&'a str> {
    if hash.get().is_none() {
        let _ = hash.set(source.hash()?);
    }
    Ok(hash.get().map_or("", String::as_str))
}
