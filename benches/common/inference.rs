//! Prefill and decoding as benches time them.

use std::time::Instant;

use clsgen::{
    error::Result,
    model::{Llama, kv_cache::SequenceCache},
    ops::{
        DECODE_THREADS, Offsets,
        decode_step::DecodeGraphs,
        sample::{Draw, RowLogits, Rows, Sampling},
        with_spinning_workers,
    },
};

/// Seconds of one prefill, and its cache.
pub fn time_prefill(llama: &Llama, tokens: usize) -> Result<(f64, SequenceCache)> {
    let vocab = llama.config.vocab_size;
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocab) as u32).collect();
    let mut caches = [SequenceCache::default()];
    llama.device().synchronize()?;
    let start = Instant::now();
    llama.prefill(&ids, &Offsets::from_lengths(&[tokens]), &mut caches)?;
    llama.device().synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let [cache] = caches;
    Ok((seconds, cache))
}

/// Seconds of `steps` greedy steps of a row a cache, LM head included; a GPU may take them by `graphs`, which holds
/// those of earlier calls.
pub fn time_decode(
    llama: &Llama,
    mut caches: Vec<SequenceCache>,
    steps: usize,
    graphs: &mut DecodeGraphs,
) -> Result<f64> {
    let mut ids: Vec<u32> = (1..=caches.len() as u32).collect();
    llama.device().synchronize()?;
    let start = Instant::now();
    for _ in 0..steps {
        // As in the engine, whose threads stay awake for all of a step.
        ids = with_spinning_workers(llama.device(), DECODE_THREADS, || step(llama, &ids, &mut caches, graphs))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn step(llama: &Llama, ids: &[u32], caches: &mut [SequenceCache], graphs: &mut DecodeGraphs) -> Result<Vec<u32>> {
    let mut rows: Vec<&mut SequenceCache> = caches.iter_mut().collect();
    let logits = llama.decode_to_logits(ids, &mut rows, graphs)?;
    let draws = vec![Draw { sampling: Sampling::greedy(), step: 0, position: 0 }; rows.len()];
    Rows::new(logits, draws)?.all().iter().map(RowLogits::choose).collect()
}
