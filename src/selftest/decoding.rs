//! Whole decoding steps of a tiny Llama: on the device in bf16 against the CPU in f32; and on a GPU prepared for
//! inference and by graphs against adapters as they are trained and op by op, where not a bit may differ.

use candle_core::{DType, Device, Tensor};

use super::{
    Bench, CheckResult, numbers,
    training::{adapt, tiny_llama, tiny_text},
};
use crate::{
    error::Result,
    model::{Llama, kv_cache::SequenceCache},
    ops::{Offsets, cuda::DECODE, decode_step::DecodeGraphs},
};

/// Tokens of the prompts: of one block, of whole ones, of more than a chunk of keys.
const PROMPTS: [usize; 4] = [5, 64, 130, 300];
/// Steps of all rows, then of all but one.
const STEPS: [usize; 2] = [4, 3];
/// Of these the first runs op by op, the second is captured.
const BY_GRAPH: usize = STEPS[0] - 1 + STEPS[1] - 1;
/// Three layers whose activations are rounded to bf16.
const LOGITS: f64 = 1.5e-2;

/// The checks, if they are among `only` or all are asked for.
pub(super) fn rows(device: &Device, only: &[String]) -> Vec<CheckResult> {
    let mut bench = Bench::new(device, only);
    bench.attempt("decoding", |bench| {
        const OP: &str = "decoding, tiny Llama";
        let mut llama = tiny_llama()?;
        adapt(&mut llama)?;
        let ours = llama.held_as(DType::BF16, device)?;
        let (logits, _) = decoded(&ours, false)?;
        let (exact, _) = decoded(&llama.held_as(DType::F32, &Device::Cpu)?, false)?;
        bench.check(OP, "logits", &logits, &numbers(&exact)?, LOGITS)?;
        if device.is_cuda() {
            let mut prepared = ours.clone();
            prepared.prepare_inference()?;
            bench.again(OP, &[&logits], &[&decoded(&prepared, false)?.0])?;
            // Else no step is captured.
            if !DECODE.takes_first() {
                let (by_graph, launches) = decoded(&prepared, true)?;
                bench.again(OP, &[&logits], &[&by_graph])?;
                bench.push(OP, "by graph", &[BY_GRAPH], BY_GRAPH.abs_diff(launches) as f64, 0.0);
            }
        }
        Ok(())
    });
    bench.rows
}

/// The logits of all steps, `(rows, vocab)`, and how many steps were launched as a graph.
fn decoded(llama: &Llama, by_graph: bool) -> Result<(Tensor, usize)> {
    let offsets = Offsets::from_lengths(&PROMPTS);
    let mut caches = vec![SequenceCache::default(); PROMPTS.len()];
    llama.prefill(&tiny_text(offsets.total() as u32), &offsets, &mut caches)?;
    let mut graphs = DecodeGraphs::new(by_graph);
    let mut all = Vec::new();
    for (count, steps) in (1..=PROMPTS.len()).rev().zip(STEPS) {
        for step in 0..steps {
            let ids: Vec<u32> = tiny_text(((step + 1) * count) as u32).split_off(step * count);
            let mut rows: Vec<&mut SequenceCache> = caches.iter_mut().take(count).collect();
            // Copied: the next step writes over it.
            all.push(llama.decode_to_logits(&ids, &mut rows, &mut graphs)?.copy()?);
        }
    }
    Ok((Tensor::cat(&all, 0)?, graphs.launches()))
}
