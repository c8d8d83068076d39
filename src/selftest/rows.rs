//! Ops whose rows stand alone: linear, RMSNorm, cross-entropy, embedding.

use candle_core::{DType, Tensor};

use super::{Bench, F32, numbers, reference, some_of};
use crate::{
    error::Result,
    ops::{cross_entropy, embedding, linear, rms_norm},
};

pub(super) fn linear(bench: &mut Bench<'_>) -> Result<()> {
    // No dimension is a multiple of a tile.
    let m = 37;
    let n_in = 131;
    let n_out = 70;
    let (x, x64) = bench.random(1, &[m, n_in])?;
    let (w, w64) = bench.random(2, &[n_out, n_in])?;
    let (b, b64) = bench.random(3, &[n_out])?;
    let (dy, dy64) = bench.random(4, &[m, n_out])?;
    let y64 = reference::linear(&x64, &w64, Some(&b64), n_in);
    bench.check("linear", "forward", &linear::forward(&x, &w, Some(&b))?, &y64, F32)?;
    bench.check("linear", "decode", &linear::decode(&x.narrow(0, 0, 3)?, &w, Some(&b))?, &y64[..3 * n_out], F32)?;
    let dx64 = reference::linear(&dy64, &reference::transpose(&w64, n_in), None, n_out);
    bench.check("linear", "backward x", &linear::backward_input(&dy, &w)?, &dx64, F32)?;
    let dw64 = reference::linear(&reference::transpose(&dy64, n_out), &reference::transpose(&x64, n_in), None, m);
    bench.check("linear", "backward w", &linear::backward_weight(&dy, &x)?, &dw64, F32)?;

    // With a bf16 weight both operands are bf16: the reference takes them as rounded, so that only the arithmetic is
    // measured.
    let w = bench.cast(&w, DType::BF16)?;
    let rounded = |x: &Tensor| bench.cast(&bench.cast(x, DType::BF16)?, DType::F32);
    let x = rounded(&x)?;
    let dy = rounded(&dy)?;
    let w64 = numbers(&w)?;
    let x64 = numbers(&x)?;
    let dy64 = numbers(&dy)?;
    let y64 = reference::linear(&x64, &w64, None, n_in);
    bench.check("linear, bf16 weight", "forward", &linear::forward(&x, &w, None)?, &y64, F32)?;
    bench.check(
        "linear, bf16 weight",
        "decode",
        &linear::decode(&x.narrow(0, 0, 3)?, &w, None)?,
        &y64[..3 * n_out],
        F32,
    )?;
    let dx64 = reference::linear(&dy64, &reference::transpose(&w64, n_in), None, n_out);
    bench.check("linear, bf16 weight", "backward x", &linear::backward_input(&dy, &w)?, &dx64, F32)
}

pub(super) fn rms_norm(bench: &mut Bench<'_>) -> Result<()> {
    let rows = 9;
    let hidden = 131;
    let eps = 1e-5;
    let (x, x64) = bench.random(5, &[rows, hidden])?;
    let (w, w64) = bench.random(6, &[hidden])?;
    let (dy, dy64) = bench.random(7, &[rows, hidden])?;
    let (y, rstd) = rms_norm::forward(&x, &w, eps)?;
    bench.check("rms_norm", "forward", &y, &reference::rms_norm(&x64, &w64, eps), F32)?;
    let at = some_of(x64.len(), 200);
    let dx64 = reference::gradient(&x64, &at, &dy64, |x| reference::rms_norm(x, &w64, eps));
    bench.check_at("rms_norm", "backward x", &rms_norm::backward(&x, &w, &rstd, &dy)?, &at, &dx64, F32)?;
    let at = some_of(hidden, hidden);
    let dw64 = reference::gradient(&w64, &at, &dy64, |w| reference::rms_norm(&x64, w, eps));
    bench.check_at("rms_norm", "backward w", &rms_norm::backward_weight(&x, &rstd, &dy)?, &at, &dw64, F32)
}

pub(super) fn cross_entropy(bench: &mut Bench<'_>) -> Result<()> {
    let rows = 5;
    let vocab = 1003;
    let (logits, logits64) = bench.random(8, &[rows, vocab])?;
    let targets: Vec<u32> = vec![0, 1002, 500, 7, 7];
    let scales = [0.5f32, 0.25, 1.0, 2.0, 0.125];
    let (losses, lse) = cross_entropy::forward(&logits, &targets)?;
    let losses: Vec<f64> = losses.into_iter().map(f64::from).collect();
    bench.compare(
        "cross_entropy",
        "forward",
        &[rows, vocab],
        &losses,
        &reference::cross_entropy(&logits64, &targets),
        F32,
    );
    let at: Vec<usize> = some_of(logits64.len(), 200)
        .into_iter()
        .chain(targets.iter().enumerate().map(|(i, t)| i * vocab + *t as usize))
        .collect();
    let dy: Vec<f64> = scales.iter().map(|&s| f64::from(s)).collect();
    let expected = reference::gradient(&logits64, &at, &dy, |x| reference::cross_entropy(x, &targets));
    bench.check_at(
        "cross_entropy",
        "backward",
        &cross_entropy::backward(logits, &targets, &lse, &scales)?,
        &at,
        &expected,
        F32,
    )
}

pub(super) fn embedding(bench: &mut Bench<'_>) -> Result<()> {
    let vocab = 31;
    let hidden = 20;
    let ids = [3u32, 30, 0, 3, 3];
    let (weight, w64) = bench.random(9, &[vocab, hidden])?;
    let (dy, dy64) = bench.random(10, &[ids.len(), hidden])?;
    let lookup =
        |w: &[f64]| ids.iter().flat_map(|&id| w[id as usize * hidden..][..hidden].to_vec()).collect::<Vec<f64>>();
    bench.check("embedding", "forward", &embedding::forward(&weight, &ids)?, &lookup(&w64), F32)?;
    let at = some_of(w64.len(), w64.len());
    let expected = reference::gradient(&w64, &at, &dy64, lookup);
    bench.check_at("embedding", "backward", &embedding::backward(vocab, &ids, &dy)?, &at, &expected, F32)
}
