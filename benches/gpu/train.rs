//! The joint training step: LoRA r = 8 on q, k, v, o and the 2,048-wide head, one record; without dropout, as PEFT is
//! timed, and with the paper's.

use clsgen::{
    config::Parameters,
    model::{ActivationCheckpointing, LlamaConfig},
    train::{mfu::Operations, step::Trainer},
};

use crate::{
    Subject,
    report::{Report, Work},
    training::{example, time_steps},
};

const STEPS: usize = 5;
/// Of the adapters' input (paper, table 5).
const DROPOUT: f64 = 0.05;

pub fn measure(subject: &Subject, trainer: &mut Trainer, report: &mut Report) {
    for tokens in subject.tokens {
        for (memory, dropout, name) in [
            (ActivationCheckpointing::Recompute, 0.0, "recompute"),
            (ActivationCheckpointing::Keep, 0.0, "keep"),
            (ActivationCheckpointing::Keep, DROPOUT, "keep, dropout"),
        ] {
            let target = subject.targets(tokens);
            trainer.pass.memory = memory;
            trainer.pass.dropout = (dropout > 0.0).then_some(1);
            trainer.model.llama.set_lora_dropout(dropout);
            let name = format!("training step, {tokens} tokens, {name}");
            report.attempt(&name, |report| {
                let seconds = time_steps(trainer, example(subject.config.vocab_size, tokens, target), STEPS)?;
                let counts = Operations::of(&subject.config, Parameters::Lora);
                let operations = counts.total(tokens, tokens * (tokens + 1) / 2, target);
                let work = Work { bytes: 0.0, operations };
                report.row(&name, Some(seconds), format!("{:.0} tokens/s", tokens as f64 / seconds), Some(work));
                Ok(())
            });
        }
    }
}

/// Weights of the layers' products, and of the LM head's.
pub fn weights(config: &LlamaConfig) -> (usize, usize) {
    let d = config.hidden_size;
    let ffn = config.intermediate_size;
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    (config.num_hidden_layers * (2 * d * q + 2 * d * kv + 3 * d * ffn), config.vocab_size * d)
}

/// Operations of causal attention forward, counted to the token.
pub fn attention_forward(config: &LlamaConfig, tokens: usize) -> f64 {
    let pairs = tokens * (tokens + 1) / 2;
    4.0 * (pairs * config.num_attention_heads * config.head_dim) as f64
}
