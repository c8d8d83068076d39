//! Word pieces and their vectors, from any Hugging Face BERT folder.

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;

use crate::{
    data::Record,
    error::{Error, Result},
    foreign,
    labels::Class,
    model::{source, weights},
};

const TENSOR: &str = "embeddings.word_embeddings.weight";

/// A tokenizer and a table of vectors.
pub struct Embeddings {
    tokenizer: Tokenizer,
    separator: Option<u32>,
    /// `(vocabulary, D)`.
    table: Tensor,
}

/// A record as word pieces. `Debug` prints counts only.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Ids, cut to `max_tokens`.
    pub ids: Vec<u32>,
    /// Its class; 0 where it has none.
    pub label: Class,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("tokens", &self.ids.len()).field("label", &self.label).finish()
    }
}

impl Embeddings {
    /// Reads `tokenizer.json` and `embeddings.word_embeddings.weight` (under any prefix, such as `bert.`).
    pub fn load(dir: &Path) -> Result<Self> {
        let source =
            source::resolve(&dir.display().to_string(), &[], false).map_err(|e| e.context("cnn.embeddings"))?;
        let path = dir.join("tokenizer.json");
        let bytes = foreign::read(&path, foreign::LARGE).ok();
        let read = |bytes: Vec<u8>| foreign::caught(|| Tokenizer::from_bytes(&bytes).ok()).flatten();
        let tokenizer = bytes.and_then(read).ok_or_else(|| {
            Error::model(format!("{}: no word-piece tokenizer can be read", path.display())).hint(
                "cnn.embeddings is a Hugging Face BERT folder; one with vocab.txt alone gets its tokenizer.json from \
                transformers: \
                     AutoTokenizer.from_pretrained('DIR').save_pretrained('DIR')",
            )
        })?;
        let table = weights::read_one(&source, TENSOR, &Device::Cpu)?;
        let (rows, _) = table.dims2()?;
        Self::new(tokenizer, table).and_then(|embeddings| match embeddings.tokenizer.get_vocab_size(true) {
            size if size <= rows => Ok(embeddings),
            size => Err(Error::model(format!(
                "{}: the tokenizer knows {size} pieces, {TENSOR} has {rows} rows",
                dir.display()
            ))),
        })
    }

    /// Embeddings of this table, `(vocabulary, D)`, f32.
    pub fn new(mut tokenizer: Tokenizer, table: Tensor) -> Result<Self> {
        // Neither cut nor padded, and `[SEP]` in a note is five characters, not the separator.
        let unlimited = tokenizer
            .with_truncation(None)
            .map(|_| ())
            .map_err(|_| Error::model("the tokenizer cannot be set to read whole texts"));
        unlimited?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(true);
        let separator = tokenizer.token_to_id("[SEP]");
        Ok(Self { tokenizer, separator, table })
    }

    /// The word pieces of a record's fields, in order, `[SEP]` between them; the first `max_tokens`.
    pub fn document(&self, record: &Record, fields: &[String], max_tokens: usize) -> Result<Document> {
        let mut ids = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let text = record
                .field(field)
                .ok_or_else(|| Error::data(format!("record {}: field {field} is missing", record.place())))?;
            let encoding = foreign::caught(|| self.tokenizer.encode_fast(text, false).ok())
                .flatten()
                .ok_or_else(|| Error::run("the tokenizer cannot encode a text"))?;
            ids.extend(self.separator.filter(|_| i > 0));
            ids.extend(encoding.get_ids());
        }
        ids.truncate(max_tokens);
        Ok(Document { ids, label: record.label.unwrap_or_default() })
    }

    /// Width D of a vector.
    pub fn width(&self) -> Result<usize> {
        Ok(self.table.dim(1)?)
    }

    /// The vectors of `ids`, and zeros up to `least` of them: `(tokens, D)`.
    pub fn embed(&self, ids: &[u32], least: usize) -> Result<Tensor> {
        let rows = self.table.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        Ok(rows.pad_with_zeros(0, 0, least.saturating_sub(ids.len()))?)
    }
}
