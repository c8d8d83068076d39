//! Speed of prefill and decode of one model, as the engine runs them: `cargo bench --bench generate -- MODEL_DIR`.
//!
//! Prefill: one prompt of 2,048 tokens, keys and values kept. Decode: greedy steps of 1 and of 8 rows behind a shared prompt of
//! 512 tokens, LM head included. The best of three runs, a line each.

use std::{path::Path, time::Instant};

use candle_core::{DType, Device};
use clsgen::{
    error::{Error, Result},
    model::{Llama, kv_cache::SequenceCache, source},
    ops::Offsets,
};

const RUNS: usize = 3;
const STEPS: usize = 32;

fn main() -> Result<()> {
    // `cargo bench` adds `--bench` of its own; without a model there is nothing to measure (`cargo test` runs benches so).
    let Some(dir) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!("usage: cargo bench --bench generate -- MODEL_DIR [--bf16]");
        return Ok(());
    };
    let dtype = if std::env::args().any(|arg| arg == "--bf16") { DType::BF16 } else { DType::F32 };
    let llama = Llama::load(&source::resolve(&dir, &[Path::new(".")], false)?, dtype, &Device::Cpu)?;
    println!("{dir}, {dtype:?}, {} threads", rayon::current_num_threads());
    let prefill = best(|| Ok(time_prefill(&llama, 2048)?.0))?;
    println!("prefill 2048 tokens: {:.0} tok/s", 2048.0 / prefill);
    for rows in [1, 8] {
        let seconds = best(|| time_decode(&llama, 512, rows))?;
        println!("decode batch {rows}: {:.1} tok/s", (STEPS * rows) as f64 / seconds);
    }
    Ok(())
}

fn best(run: impl Fn() -> Result<f64>) -> Result<f64> {
    (0..RUNS).map(|_| run()).try_fold(f64::INFINITY, |best, seconds| Ok(best.min(seconds?)))
}

/// Seconds of one prefill, and its cache.
fn time_prefill(llama: &Llama, tokens: usize) -> Result<(f64, SequenceCache)> {
    let vocab = llama.config.vocab_size;
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocab) as u32).collect();
    let mut caches = [SequenceCache::default()];
    let start = Instant::now();
    llama.prefill(&ids, &Offsets::from_lengths(&[tokens]), &mut caches)?;
    let seconds = start.elapsed().as_secs_f64();
    let [cache] = caches;
    Ok((seconds, cache))
}

/// Seconds of [`STEPS`] greedy steps of `rows` rows.
fn time_decode(llama: &Llama, prompt: usize, rows: usize) -> Result<f64> {
    let prefix = time_prefill(llama, prompt)?.1.into_prefix()?;
    let mut caches: Vec<SequenceCache> = (0..rows).map(|_| SequenceCache::with_prefix(prefix.clone())).collect();
    let mut ids: Vec<u32> = (1..=rows as u32).collect();
    let start = Instant::now();
    for _ in 0..STEPS {
        let mut rows: Vec<&mut SequenceCache> = caches.iter_mut().collect();
        let hidden = llama.decode(&ids, &mut rows)?;
        let logits: Vec<Vec<f32>> = llama.decode_logits(&hidden)?.to_vec2()?;
        let argmax = |row: &Vec<f32>| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id as u32);
        ids = logits.iter().map(|row| argmax(row).ok_or_else(|| Error::run("no logits"))).collect::<Result<_>>()?;
    }
    Ok(start.elapsed().as_secs_f64())
}
