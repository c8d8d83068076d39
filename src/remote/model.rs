//! Where a model is, what it is called there, and whose tokenizer makes its prompts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    context::Context,
    error::{Error, Result, ResultExt},
    model::tokenizer,
    prompt::TextTokenizer,
};

/// What the config says of a model on a server.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The key: `construct.teacher`.
    pub key: &'static str,
    /// Its value: an address, or a folder or hub id where the model may be here too.
    pub url: &'a str,
    /// `<key>_name`
    pub name: Option<&'a str>,
    /// `<key>_tokenizer`
    pub tokenizer: Option<&'a str>,
}

impl Named<'_> {
    /// Refuses (exit 2) to ask without `--allow-network`.
    pub fn allow(&self, context: &Context) -> Result<()> {
        allow(context, self.key, self.url)
    }
}

fn allow(context: &Context, key: &str, url: &str) -> Result<()> {
    if context.allow_network {
        return Ok(());
    }
    Err(Error::usage(format!("{key} = {url:?} is a server, and the network is not allowed"))
        .hint("pass --allow-network to let it be asked, one on this machine too"))
}

/// A model on a server.
#[derive(Clone)]
pub struct RemoteModel {
    pub(super) key: &'static str,
    /// Without a slash at its end.
    pub(super) url: String,
    pub(super) name: String,
    tokenizer: Arc<TextTokenizer>,
    tokenizer_path: PathBuf,
}

impl RemoteModel {
    /// Finds the tokenizer: the one named, else the one that the model's name stands for here, else the task's `own`.
    pub fn find(context: &Context, named: Named<'_>, own: Option<&Path>) -> Result<Self> {
        let Named { key, url, name, tokenizer: given } = named;
        let name = name.ok_or_else(|| {
            Error::usage(format!("{key}_name is not set"))
                .hint(format!("the model's name on the server: --set {key}_name=NAME"))
        })?;
        let search = [context.config.dir.as_path(), Path::new(".")];
        let tokenizer_path = match given {
            Some(given) => tokenizer::resolve(&format!("{key}_tokenizer"), given, &search)?,
            None => match tokenizer::find(name, &search) {
                Some(path) => path,
                None => {
                    let own = own.ok_or_else(|| {
                        Error::usage(format!("{key}_tokenizer is not set, and {name} is not in the hub cache"))
                            .hint(format!("prompts need its tokenizer: --set {key}_tokenizer=DIR, a folder or hub id"))
                    })?;
                    tracing::warn!(
                        "{key}_tokenizer is not set: prompts for {name} are made by the tokenizer and chat template of \
                        {}",
                        own.display()
                    );
                    own.to_owned()
                }
            },
        };
        let tokenizer = TextTokenizer::load(&tokenizer_path).context(format!("{key}_tokenizer"))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { key, url, name: name.to_owned(), tokenizer: Arc::new(tokenizer), tokenizer_path })
    }

    /// Refuses (exit 2) to ask without `--allow-network`.
    pub fn allow(&self, context: &Context) -> Result<()> {
        allow(context, self.key, &self.url)
    }

    /// The key of the config that names it.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tokenizer of its prompts.
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// Where that lies.
    pub fn tokenizer_path(&self) -> &Path {
        &self.tokenizer_path
    }

    /// What it is known by in a fingerprint: another address may have the same model.
    pub fn identity(&self) -> Value {
        json!(format!("{} on a server", self.name))
    }
}
