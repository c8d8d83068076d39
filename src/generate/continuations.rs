//! How likely a model finds given continuations of a prompt, without writing any.

use candle_core::{DType, Tensor};

use super::PrefixCache;
use crate::{
    error::{Error, Result},
    metrics::log_softmax,
    model::{Llama, kv_cache::round_up_to_blocks},
    ops::Offsets,
};

/// `log p(continuation | prompt)` of each continuation: the sum over its tokens of their log-probabilities under the LM
/// head, each given the prompt and the tokens before it.
///
/// The prompt is prefilled once, behind what `prefixes` has of it (of at most its own length); the continuations share
/// it. They are read one at a time. So the numbers do not depend on what else is asked.
pub fn log_probabilities(
    llama: &Llama,
    prefixes: &mut PrefixCache,
    prompt: &[u32],
    continuations: &[Vec<u32>],
) -> Result<Vec<f64>> {
    if prompt.is_empty() || continuations.iter().any(Vec::is_empty) {
        return Err(Error::run("a prompt and its continuations need a token each"));
    }
    let mut caches = prefixes.lookup_or_prefill(llama, &[prompt], round_up_to_blocks(prompt.len()))?;
    let rest = &prompt[caches[0].len()..];
    let first = llama.prefill(rest, &Offsets::from_lengths(&[rest.len()]), &mut caches)?;
    let prefix = &caches[0];
    let log_first = log_softmax(&logits(llama, &first)?);
    let read = |ids: &Vec<u32>| -> Result<f64> {
        let mut cache = prefix.clone();
        let mut sum = pick(&log_first, ids[0])?;
        for pair in ids.windows(2) {
            let hidden = llama.decode(&pair[..1], &mut [&mut cache])?;
            sum += pick(&log_softmax(&logits(llama, &hidden)?), pair[1])?;
        }
        Ok(sum)
    };
    continuations.iter().map(read).collect()
}

/// LM-head logits of one row, `(1, hidden)` → vocab.
fn logits(llama: &Llama, hidden: &Tensor) -> Result<Vec<f32>> {
    Ok(llama.decode_logits(hidden)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn pick(log_probabilities: &[f64], id: u32) -> Result<f64> {
    let value = log_probabilities.get(id as usize).copied().filter(|value| value.is_finite());
    value.ok_or_else(|| {
        Error::model("the model's output is not a number, or lacks a token of the label")
            .hint("the weights may be damaged")
    })
}
