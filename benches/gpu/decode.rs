//! Prefill and greedy decoding behind a long prompt, adapters included.

use clsgen::{
    error::Result,
    model::{Llama, kv_cache::SequenceCache},
    ops::decode_step::DecodeGraphs,
};

use crate::{
    Subject,
    inference::{time_decode, time_prefill},
    report::{Report, Work},
    train::{attention_forward, weights},
};

const STEPS: usize = 32;
const RUNS: usize = 3;

pub fn measure(subject: &Subject, llama: &Llama, report: &mut Report) {
    // The prompt of a 7,424-token record: what its explanation is decoded behind.
    let prompt = subject.longest() - subject.target;
    report.attempt("prefill", |report| prefill(subject, llama, prompt, report));
    report.attempt("decoding, 1 row", |report| decode(llama, prompt, 1, true, report));
    report.attempt("decoding of one prompt", |report| decode(llama, prompt, subject.rows, true, report));
    report.attempt("decoding of many prompts", |report| decode(llama, prompt, subject.rows, false, report));
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn prefill(subject: &Subject, llama: &Llama, tokens: usize, report: &mut Report) -> Result<()> {
    time_prefill(llama, tokens)?;
    let seconds = median((0..RUNS).map(|_| Ok(time_prefill(llama, tokens)?.0)).collect::<Result<_>>()?);
    let layers = subject.config.num_hidden_layers as f64;
    let operations =
        2.0 * weights(&subject.config).0 as f64 * tokens as f64 + layers * attention_forward(&subject.config, tokens);
    let rate = format!("{:.0} tokens/s", tokens as f64 / seconds);
    report.row(&format!("prefill, {tokens} tokens"), Some(seconds), rate, Some(Work { bytes: 0.0, operations }));
    Ok(())
}

/// A step reads the weights once, and each prompt's keys and values once: those of a shared prompt once for all its
/// rows.
fn decode(llama: &Llama, prompt: usize, rows: usize, shared: bool, report: &mut Report) -> Result<()> {
    let caches = || -> Result<Vec<SequenceCache>> {
        let cache = || Ok(time_prefill(llama, prompt)?.1);
        if !shared {
            return (0..rows).map(|_| cache()).collect();
        }
        Ok(vec![cache()?; rows])
    };
    let mut graphs = DecodeGraphs::as_asked();
    // The first step runs op by op, the second is captured.
    time_decode(llama, caches()?, 2, &mut graphs)?;
    let mut run = || Ok(time_decode(llama, caches()?, STEPS, &mut graphs)? / STEPS as f64);
    let seconds = median((0..RUNS).map(|_| run()).collect::<Result<_>>()?);
    let (body, vocabulary) = weights(&llama.config);
    let keys_and_values = llama.kv_bytes_per_token() * (prompt + STEPS / 2) * if shared { 1 } else { rows };
    let work = Work { bytes: (2 * (body + vocabulary) + keys_and_values) as f64, operations: 0.0 };
    let name = format!(
        "decoding, {rows} rows behind {prompt} tokens{}{}",
        if shared { " of one prompt" } else { " of their own" },
        if graphs.launches() > 0 { ", by graphs" } else { "" }
    );
    report.row(&name, Some(seconds), format!("{:.0} tokens/s", rows as f64 / seconds), Some(work));
    Ok(())
}
