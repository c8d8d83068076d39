//! One joint optimizer step on SmolLM2-135M's shape with random weights: `cargo bench --bench train -- [TOKENS] [keep|recompute]`.
//!
//! Batch 1, three quarters of the tokens prompt, one quarter target; LoRA r = 8 on q, k, v, o and the 2,048-wide head, f32,
//! AdamW, LoRA dropout off as in the PyTorch + PEFT script it is compared with. Prints the median of five steps and the
//! process's peak memory. One size a process, so that the peak is that size's own.

use std::time::Instant;

use candle_core::Device;
use clsgen::{
    config::{Activation, Lora, Objective, Parameters, Train},
    error::{Error, Result},
    model::{ClsHead, Llama, LlamaConfig, LoraConfig, Memory, Model},
    train::{
        examples::Example,
        loss::{LossWeights, Pass},
        optimizer::Optimizer,
        plan::Plan,
        schedule::{LinearSchedule, WeightSchedule},
        step::Trainer,
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: usize = 5;

fn trainer(memory: Memory) -> Result<Trainer> {
    let shape = serde_json::json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true,
        "max_position_embeddings": 8192
    });
    let config = LlamaConfig::parse(shape.as_object().ok_or_else(|| Error::run("no shape"))?)?;
    let mut llama = Llama::random(config, 1, &Device::Cpu)?;
    llama.add_lora(&LoraConfig::from(&Lora { dropout: 0.0, ..Lora::default() }), 1)?;
    let head = ClsHead::new(576, 2048, Activation::Gelu, 0.0, 1, &Device::Cpu)?;
    let model = Model { llama, head };
    let optimizer = Optimizer::new(model.trainable(Parameters::Lora)?, &Train::default())?;
    let plan = Plan { records: 1, batch_size: 1, accumulation: 1, ranks: 1, epochs: STEPS + 1, shuffle: false, short_first: None, seed: 1 };
    let weights = LossWeights { objective: Objective::Joint, generation: 1.0, classification: 1.0, prompt: 0.0 };
    let pass = Pass { weights, parameters: Parameters::Lora, label_smoothing: 0.0, memory, dropout: None };
    let schedule = LinearSchedule { peak: 1e-4, warmup: 0, total: STEPS + 1 };
    let weight_schedule = WeightSchedule { end: None, total: STEPS + 1 };
    Ok(Trainer { model, optimizer, plan, schedule, weight_schedule, pass, rank: 0 })
}

/// Highest resident set of this process so far, in MB (Linux).
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(tokens) = arguments.first().and_then(|tokens| tokens.parse::<usize>().ok()) else {
        println!("usage: cargo bench --bench train -- TOKENS [keep|recompute]");
        return Ok(());
    };
    let recompute = arguments.get(1).is_some_and(|memory| memory == "recompute");
    let mut trainer = trainer(if recompute { Memory::Recompute } else { Memory::Keep })?;
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i.wrapping_mul(2_654_435_761) % 49152).collect();
    let (prompt, target) = ids.split_at(tokens * 3 / 4);
    let examples = [Example { prompt: prompt.to_vec(), target: target.to_vec(), class: 1 }];
    let mut seconds = Vec::new();
    for k in 1..=STEPS + 1 {
        let start = Instant::now();
        trainer.step(k, &examples, &[0])?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first step touches fresh memory: it warms up and does not count.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[STEPS / 2];
    let memory = if recompute { "recompute" } else { "keep" };
    println!("{tokens} tokens, {memory}: {median:.3} s a step, {:.0} tokens/s, peak {:.0} MB", tokens as f64 / median, peak_mb());
    Ok(())
}
