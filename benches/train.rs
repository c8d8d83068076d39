//! One joint optimizer step with random weights: `cargo bench --bench train -- TOKENS [A|B] [f32|bf16] [keep|recompute]`.
//!
//! Shape A is a tiny Llama (3.4M weights), B (the default) SmolLM2-135M's. Batch 1, three quarters of the tokens prompt, one
//! quarter target; LoRA r = 8 on q, k, v, o and the 2,048-wide head, AdamW, LoRA dropout off as in the PyTorch + PEFT script it
//! is compared with. Prints the median of five steps (of fifteen for A) and the process's peak memory. One size a process, so
//! that the peak is that size's own.

use std::time::Instant;

use candle_core::{DType, Device};
use clsgen::{
    config::{Activation, Lora, Objective, Parameters, Train},
    device,
    error::{Error, Result},
    model::{ClsHead, Llama, LlamaConfig, LoraConfig, Memory, Model, checkpoint, source},
    storage::AtomicDir,
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

fn config(shape: &str) -> Result<LlamaConfig> {
    let [vocab, hidden, intermediate, layers, heads, kv_heads] = match shape {
        "A" => [2048, 256, 688, 4, 4, 2],
        _ => [49152, 576, 1536, 30, 9, 3],
    };
    let shape = serde_json::json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0, "tie_word_embeddings": true, "max_position_embeddings": 8192
    });
    LlamaConfig::parse(shape.as_object().ok_or_else(|| Error::run("no shape"))?)
}

/// Random weights, held as `dtype`: bf16 ones by way of a checkpoint, as users have them.
fn llama(shape: &str, dtype: DType) -> Result<Llama> {
    let llama = Llama::random(config(shape)?, 1, &Device::Cpu)?;
    if dtype == DType::F32 {
        return Ok(llama);
    }
    let folder = std::env::temp_dir().join(format!("clsgen-bench-{}", std::process::id()));
    let dir = AtomicDir::create(&folder)?;
    checkpoint::write_folder(&dir, &llama, None, dtype)?;
    dir.commit(false)?;
    drop(llama);
    let loaded = source::resolve(&folder.display().to_string(), &[], false).and_then(|source| Llama::load(&source, dtype, &Device::Cpu));
    std::fs::remove_dir_all(&folder).map_err(|e| Error::run(format!("{}: {e}", folder.display())))?;
    loaded
}

fn trainer(mut llama: Llama, memory: Memory, steps: usize) -> Result<Trainer> {
    llama.add_lora(&LoraConfig::from(&Lora { dropout: 0.0, ..Lora::default() }), 1)?;
    let head = ClsHead::new(llama.config.hidden_size, 2048, Activation::Gelu, 0.0, 1, &Device::Cpu)?;
    let model = Model { llama, head };
    let optimizer = Optimizer::new(model.trainable(Parameters::Lora)?, &Train::default())?;
    let plan = Plan { records: 1, batch_size: 1, accumulation: 1, ranks: 1, epochs: steps + 1, shuffle: false, short_first: None, seed: 1 };
    let weights = LossWeights { objective: Objective::Joint, generation: 1.0, classification: 1.0, prompt: 0.0 };
    let pass = Pass { weights, parameters: Parameters::Lora, label_smoothing: 0.0, memory, dropout: None };
    let schedule = LinearSchedule { peak: 1e-4, warmup: 0, total: steps + 1 };
    let weight_schedule = WeightSchedule { end: None, total: steps + 1 };
    Ok(Trainer { model, optimizer, plan, schedule, weight_schedule, pass, rank: 0 })
}

/// Highest resident set of this process so far, in MB (Linux).
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<()> {
    device::keep_freed_memory();
    device::on_a_worker(run)
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(tokens) = arguments.first().and_then(|tokens| tokens.parse::<u32>().ok()) else {
        println!("usage: cargo bench --bench train -- TOKENS [A|B] [f32|bf16] [keep|recompute]");
        return Ok(());
    };
    let one_of = |names: [&'static str; 2]| names[usize::from(arguments.iter().any(|argument| argument == names[1]))];
    let [shape, dtype, memory] = [one_of(["B", "A"]), one_of(["f32", "bf16"]), one_of(["keep", "recompute"])];
    let steps = if shape == "A" { 15 } else { 5 };
    let llama = llama(shape, if dtype == "bf16" { DType::BF16 } else { DType::F32 })?;
    let vocab = llama.config.vocab_size as u32;
    let mut trainer = trainer(llama, if memory == "recompute" { Memory::Recompute } else { Memory::Keep }, steps)?;
    let ids: Vec<u32> = (0..tokens).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
    let (prompt, target) = ids.split_at(ids.len() * 3 / 4);
    let examples = [Example { prompt: prompt.to_vec(), target: target.to_vec(), class: 1 }];
    let mut seconds = Vec::new();
    for k in 1..=steps + 1 {
        let start = Instant::now();
        trainer.step(k, &examples, &[0])?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first step touches fresh memory: it warms up and does not count.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[steps / 2];
    let rate = f64::from(tokens) / median;
    println!("{shape}, {tokens} tokens, {dtype}, {memory}: {median:.3} s a step, {rate:.0} tokens/s, peak {:.0} MB", peak_mb());
    Ok(())
}
