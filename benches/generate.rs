//! Speed of prefill and decode of one model, as the engine runs them:
//! `cargo bench --bench generate -- MODEL_DIR [--bf16] [--trials | --rows=N]`.
//!
//! Prefill: one prompt of 2,048 tokens, keys and values kept. Decode: greedy steps of 1 and of 8 rows behind a shared
//! prompt of 2,048 tokens, LM head included. Samples: eight of one 2,048-token prompt, 128 tokens each, end to end.
//! Trials: K = 5 samples of one 1,024-token prompt, 64 tokens each, one after another as Algorithm 1 has them, against
//! five separate runs (alone with `--trials`). The median of three runs, a line each. `--rows=N`: decoding of N rows
//! alone, 128 steps.

#[path = "common/inference.rs"]
mod inference;

use std::{path::Path, time::Instant};

use candle_core::{DType, Device};
use clsgen::{
    device,
    error::Result,
    generate::{Budget, Engine, Request, Sampling},
    model::{ClsHead, Llama, Model, ModelSource, source},
    ops::{self, decode_step::DecodeGraphs},
    prompt::TextTokenizer,
};

const RUNS: usize = 3;
const STEPS: usize = 32;

fn main() -> Result<()> {
    ops::cpu::allocator::keep_freed_memory();
    device::on_a_worker(run)
}

fn run() -> Result<()> {
    // `cargo bench` adds `--bench` of its own; without a model there is nothing to measure (`cargo test` runs benches
    // so).
    let Some(dir) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!("usage: cargo bench --bench generate -- MODEL_DIR [--bf16]");
        return Ok(());
    };
    let dtype = if std::env::args().any(|arg| arg == "--bf16") { DType::BF16 } else { DType::F32 };
    let source = source::resolve(&dir, &[Path::new(".")], false)?;
    let llama = Llama::load(&source, dtype, &Device::Cpu)?;
    println!("{dir}, {dtype:?}, {} threads", rayon::current_num_threads());
    if std::env::args().any(|arg| arg == "--trials") {
        return trials(llama, &source, true);
    }
    if let Some(rows) = std::env::args().find_map(|arg| arg.strip_prefix("--rows=")?.parse().ok()) {
        return decoding(&llama, rows, 128);
    }
    let prefill = median(|| Ok(inference::time_prefill(&llama, 2048)?.0))?;
    println!("prefill 2048 tokens: {:.0} tok/s", 2048.0 / prefill);
    for rows in [1, 8] {
        decoding(&llama, rows, STEPS)?;
    }
    trials(llama, &source, false)
}

/// Greedy steps of so many rows behind one prompt.
fn decoding(llama: &Llama, rows: usize, steps: usize) -> Result<()> {
    let seconds = median(|| {
        let prefix = inference::time_prefill(llama, 2048)?.1;
        inference::time_decode(llama, vec![prefix; rows], steps, &mut DecodeGraphs::new(false))
    })?;
    println!("decode batch {rows}: {:.1} tok/s", (steps * rows) as f64 / seconds);
    Ok(())
}

/// Sampling end to end, and Algorithm 1's cost: `trials` samples of one prompt in one request, against as many
/// requests.
fn trials(llama: Llama, source: &ModelSource, alone: bool) -> Result<()> {
    let head = ClsHead::new(llama.config.hidden_size, 1, 2, Default::default(), 0.0, 0, &Device::Cpu)?;
    let vocab = llama.config.vocab_size;
    let model = Model::new(llama, head);
    let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
    let engine = Engine::new(&model, &tokenizer, Budget::beside(&model.llama, 0, None));
    let seconds = |prompt: usize, requests: usize, samples: usize, max_new_tokens: usize| {
        let prompt: Vec<u32> = (0..prompt).map(|i| (i * 7919 % vocab) as u32).collect();
        median(|| {
            let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 1 };
            let request = |key: usize| Request {
                key: key as u64,
                prompt: prompt.clone(),
                samples,
                max_new_tokens,
                sampling,
                want_probability: false,
                continuations: Vec::new(),
            };
            let start = Instant::now();
            // One request after the other: what five separate runs would do.
            for key in 0..requests {
                match requests * samples {
                    5 => engine.run(std::iter::once(request(key)), &mut |_, _, _| false, &mut |_| Ok(()))?,
                    _ => engine.run_all(std::iter::once(request(key)), &mut |_| Ok(()))?,
                }
            }
            Ok(start.elapsed().as_secs_f64())
        })
    };
    if !alone {
        println!("8 samples of 128 tokens behind 2048: {:.2} s", seconds(2048, 1, 8, 128)?);
    }
    let prefill = seconds(1024, 1, 1, 1)?;
    let shared = seconds(1024, 1, 5, 64)?;
    let separate = seconds(1024, 5, 1, 64)?;
    println!(
        "5 trials behind 1024 tokens: {shared:.2} s in one request, {separate:.2} s in separate ones ({:.2}×); one \
        prefill is {prefill:.2} s",
        separate / shared
    );
    Ok(())
}

/// As the peers' scripts take it.
fn median(run: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut seconds = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[RUNS / 2])
}
