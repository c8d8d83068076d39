//! The base model of a run, found and looked at: none of its weights is read but for their hash.

use std::sync::Arc;

use candle_core::{DType, Device};

use super::{super::Context, agreement};
use crate::{
    config::{Dtype, Parameters},
    device,
    error::{Error, Result},
    model::{LlamaConfig, Loading, ModelSource, Precision},
    prompt::TextTokenizer,
    train::cards,
};

/// What is known of the base model before it is loaded.
pub struct FoundBase {
    pub source: ModelSource,
    pub llama_config: LlamaConfig,
    pub tokenizer: Arc<TextTokenizer>,
    /// BLAKE3 of its files.
    pub hash: String,
    /// Where it will compute, and in what.
    pub device: Device,
    pub dtype: DType,
    pub precision: Precision,
    /// Bytes of its weights in memory.
    pub held: u64,
}

impl FoundBase {
    /// Finds `model.base`; `elsewhere`: for the plan of a job whose device another machine has, made on a login node.
    /// The second says whether the weights alone have room: a dry run tells what is needed, then what is lacking here;
    /// any other ends with it at once (exit 5).
    pub fn find(context: &Context, elsewhere: bool) -> Result<(Self, Result<()>)> {
        let config = &context.config;
        let source = agreement::base(context)?;
        let device = if elsewhere { Device::Cpu } else { context.device()? };
        let dtype = if elsewhere { cards::dtype(config) } else { device::dtype(config.model.dtype, &device) };
        // What a GPU, which is elsewhere, makes of the key: "auto" is bf16 there.
        let asked = if elsewhere && config.model.dtype != Dtype::F32 { DType::BF16 } else { dtype };
        if config.train.parameters == Parameters::Full && asked != DType::F32 {
            return Err(Error::usage(
                "train.parameters = \"full\" trains weights in f32, which model.dtype is not here",
            )
            .hint("add --set model.dtype=f32"));
        }
        let precision = Precision::new(dtype, config.model.quantize);
        precision.check(&device)?;
        let llama_config = source.config()?;
        // Before the files are read through for their hash: the weights alone must fit.
        let loading = Loading::of(&source, &llama_config, precision, &device);
        let what = format!("{} ({} of weights)", source.path.display(), device::format_bytes(loading.held));
        let fits = if elsewhere { Ok(()) } else { loading.check(0, &device, &what, &|_| None) };
        let fits = if context.dry_run { fits } else { fits.map(|()| Ok(()))? };
        let hash = source.hash()?;
        let tokenizer = Arc::new(TextTokenizer::load(source.tokenizer_path())?);
        Ok((Self { source, llama_config, tokenizer, hash, device, dtype, precision, held: loading.held }, fits))
    }

    /// Refuses (exit 2) a tokenizer that the embedding does not hold, and a window that the model does not have.
    pub fn check_window(&self, context: &Context) -> Result<()> {
        let window = &context.config.model;
        self.tokenizer.check_vocab(self.llama_config.vocab_size)?;
        self.llama_config.check_window(window.max_input_tokens, window.max_output_tokens, window.allow_long)
    }
}
