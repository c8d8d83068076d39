//! What a model that reads and writes takes of memory: known before its weights are read, and the batch that fits
//! once they are.

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{batch::Budget, engine::PREFILL_TOKENS};
use crate::{
    device,
    error::Result,
    model::{Footprint, Llama, LlamaConfig, Loading, ModelSource, Precision, footprint::LIBRARIES, kv_cache},
    ops::cuda,
};

/// Tokens of the longest prompt and of the longest answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Longest {
    /// Of a prompt.
    pub input: usize,
    /// Of an answer.
    pub output: usize,
    /// The config's key that lowers the first.
    pub key: String,
}

/// Bytes beside the weights, by what takes them.
struct Needs {
    /// A token's keys and values.
    cache: u64,
    /// A row of a prefill.
    row: u64,
    /// Three sets of logits of the rows that decode together: the step's, their copy to draw from, the prompts'.
    logits: u64,
}

impl Needs {
    fn of(config: &LlamaConfig, precision: Precision, device: &Device) -> Self {
        Self {
            cache: kv_cache::bytes_per_token(config, precision.dtype, device) as u64,
            row: Footprint::of(config, precision, device.is_cuda(), None).working,
            logits: (3 * Budget::ROWS * config.vocab_size * DType::F32.size_in_bytes()) as u64,
        }
    }

    /// What prompts of up to `longest` tokens take while they are read, their caches aside: short ones are read
    /// together.
    fn working(&self, longest: usize) -> u64 {
        longest.max(PREFILL_TOKENS) as u64 * self.row + self.logits
    }
}

/// Fails (exit 5), before its weights are read, where the model at `source`, held as `precision` says on `device`, and
/// its longest prompt cannot be held: says what is needed, what is free and what would fit.
pub fn check_before_loading(
    source: &ModelSource,
    precision: Precision,
    device: &Device,
    longest: Longest,
) -> Result<()> {
    let Longest { input, output, key } = longest;
    precision.check(device)?;
    let config = source.config()?;
    let needs = Needs::of(&config, precision, device);
    let loading = Loading::of(source, &config, precision, device);
    let answer = needs.cache * output as u64;
    let what = format!(
        "{} ({} of weights) with a prompt of {input} tokens",
        source.path.display(),
        device::format_bytes(loading.held)
    );
    let work = needs.working(input) + needs.cache * input as u64 + answer;
    let beside = if device.is_cuda() { LIBRARIES } else { device::memory_held() };
    let [all, beside] = [beside + loading.held + work, beside].map(device::format_bytes);
    tracing::debug!("{what} needs about {all} of memory, this process itself ({beside}) included");
    loading.check(work, device, &what, &|free| {
        let fits = free.saturating_sub(loading.held + needs.logits + answer) / (needs.row + needs.cache);
        // Prompts are read PREFILL_TOKENS at a time: below that nothing is saved; and where loading is what lacks room,
        // no limit helps.
        (fits as usize > PREFILL_TOKENS && (fits as usize) < input)
            .then(|| format!("about {fits} tokens would fit: --set {key}={fits}, or a smaller model"))
    })
}

impl Budget {
    /// What fits beside a loaded model: half of the free memory for keys and values, or what prompts of up to
    /// `longest` tokens leave of it while they are read; the rest is for activations and everyone else. `tokens`
    /// (`generate.batch_tokens`) goes first.
    pub fn beside(llama: &Llama, longest: usize, tokens: Option<usize>) -> Self {
        let needs = Needs::of(&llama.config, llama.precision(), llama.device());
        let free = cuda::memory_available(llama.device());
        let fits = (free / 2).min(free.saturating_sub(needs.working(longest))) / needs.cache.max(1);
        Self { tokens: tokens.unwrap_or(usize::try_from(fits).unwrap_or(usize::MAX)), rows: Self::ROWS }
    }
}
