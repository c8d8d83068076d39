//! One joint optimizer step with random weights:
//! `cargo bench --bench train -- TOKENS [A|B] [f32|bf16] [keep|recompute] [STEPS]`.
//!
//! Shape A is a tiny Llama (3.4M weights), B (the default) SmolLM2-135M's. Batch 1, three quarters of the tokens
//! prompt, one quarter target; LoRA r = 8 on q, k, v, o and the 2,048-wide head, AdamW, LoRA dropout off as in the
//! PyTorch + PEFT script it is compared with. Prints the median of STEPS (five; fifteen for A) and the process's peak
//! memory. One size a process, so that the peak is that size's own.

#[path = "common/training.rs"]
mod training;

use candle_core::{DType, Device};
use clsgen::{
    device,
    error::Result,
    model::{ActivationCheckpointing, Llama},
    ops,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    ops::cpu::allocator::keep_freed_memory();
    device::on_a_worker(run)
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<usize>().ok());
    let Some(tokens) = numbers.next() else {
        println!("usage: cargo bench --bench train -- TOKENS [A|B] [f32|bf16] [keep|recompute] [STEPS]");
        return Ok(());
    };
    let one_of = |names: [&'static str; 2]| names[usize::from(arguments.iter().any(|argument| argument == names[1]))];
    let [shape, dtype, memory] = [one_of(["B", "A"]), one_of(["f32", "bf16"]), one_of(["keep", "recompute"])];
    let steps = numbers.next().unwrap_or(if shape == "A" { 15 } else { 5 });
    let weights = if dtype == "bf16" { DType::BF16 } else { DType::F32 };
    let llama = Llama::random(training::config(shape)?, weights, 1, &Device::Cpu)?;
    let example = training::example(llama.config.vocab_size, tokens, tokens.div_ceil(4));
    let kept = if memory == "recompute" { ActivationCheckpointing::Recompute } else { ActivationCheckpointing::Keep };
    let median = training::time_steps(&mut training::trainer(llama, kept, steps)?, example, steps)?;
    let rate = tokens as f64 / median;
    println!(
        "{shape}, {tokens} tokens, {dtype}, {memory}: {median:.3} s a step, {rate:.0} tokens/s, peak {:.0} MB",
        training::peak_mb()
    );
    Ok(())
}
