//! How likely a model finds a text as it stands, without a prompt: the forgetting check.

use super::scoring::{read, read_base};
use crate::{
    config::Parameters,
    context::Context,
    error::Result,
    model::{ActivationCheckpointing, Llama, Model, TrainingContext, checkpoint::ClsgenJson},
    ops::{Offsets, cross_entropy, with_spinning_workers},
};
use std::path::Path;

/// Rows whose logits are held at once: of a vocabulary of 128,000, an eighth of a GiB.
const ROWS: usize = 256;

/// A checkpoint's model as trained, or its base as it was before, read on this rank alone.
pub fn read_alone(context: &Context, dir: &Path, info: &ClsgenJson, tuned: bool) -> Result<Model> {
    if tuned { Ok(read(context, dir)?.model) } else { Ok(read_base(context, dir, info)?.0) }
}

/// −log p of every token of a text behind its first, each given all before it, summed.
pub fn negative_log_likelihood(llama: &Llama, ids: &[u32]) -> Result<f64> {
    let Some((_, next)) = ids.split_first().filter(|(_, next)| !next.is_empty()) else { return Ok(0.0) };
    let context = TrainingContext {
        dropout: None,
        memory: ActivationCheckpointing::Recompute,
        trains: Parameters::Lora,
        read_from: None,
    };
    with_spinning_workers(llama.device(), usize::MAX, || {
        let seen = &ids[..next.len()];
        let (hidden_states, _) = llama.forward(seen, &Offsets::from_lengths(&[seen.len()]), &context)?;
        let mut total = 0.0;
        for (k, targets) in next.chunks(ROWS).enumerate() {
            let rows = hidden_states.narrow(0, k * ROWS, targets.len())?;
            let (losses, _) = cross_entropy::forward(&llama.logits(&rows)?, targets)?;
            total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        }
        Ok(total)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use serde_json::json;

    use super::{
        super::{PrefixCache, continuations::log_probabilities},
        *,
    };
    use crate::model::LlamaConfig;

    #[test]
    fn a_text_is_as_likely_as_a_continuation_of_its_first_token() {
        let config = json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
        });
        let config = LlamaConfig::parse(config.as_object().unwrap()).unwrap();
        let llama = Llama::random(config, DType::F32, 3, &Device::Cpu).unwrap();
        // Longer than what is read at once.
        let ids: Vec<u32> = (0..600).map(|i| i * 7 % 40).collect();
        let mut prefixes = PrefixCache::default();
        let read = log_probabilities(&llama, &mut prefixes, &ids[..1], &[ids[1..].to_vec()]).unwrap();
        let found = negative_log_likelihood(&llama, &ids).unwrap();
        assert!((found + read[0]).abs() < 1e-3 * found, "{found} {read:?}");
        assert_eq!(negative_log_likelihood(&llama, &ids[..1]).unwrap(), 0.0);
    }
}
