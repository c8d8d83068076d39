//! How likely a model finds given continuations of a prompt, without writing any.

use candle_core::{DType, Tensor};

use super::PrefixCache;
use crate::{
    error::{Error, Result},
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

/// In f64: `x − max − log Σ exp(x − max)`.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |x: &f32| f64::from(*x) - f64::from(max);
    let log_sum = logits.iter().map(|x| shifted(x).exp()).sum::<f64>().ln();
    logits.iter().map(|x| shifted(x) - log_sum).collect()
}

fn pick(log_probabilities: &[f64], id: u32) -> Result<f64> {
    let value = log_probabilities.get(id as usize).copied().filter(|value| value.is_finite());
    value.ok_or_else(|| {
        Error::model("the model's output is not a number, or lacks a token of the label")
            .hint("the weights may be damaged")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_sums_to_one_at_any_size() {
        for logits in [[0.0, 1.0, 2.0], [1000.0, -1000.0, 999.0]] {
            let sum: f64 = log_softmax(&logits).iter().map(|x| x.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
        assert!((log_softmax(&[0.0, 3f32.ln()])[1].exp() - 0.75).abs() < 1e-7);
    }
}
