//! Cross-entropy over rows of logits: `loss = lse − logits[target]`, `dlogits = scale·(softmax − onehot)`.
//!
//! The reduction (mean over the targets of an optimizer step, label weights) is the caller's, through `scales`.

use candle_core::Tensor;
use rayon::prelude::*;

use super::simd::{exp, max, sum, vectorised};
use super::slice::{View, update_f32};
use crate::error::{Error, Result};

/// `logits (n, vocab)`, `targets (n)` → each row's loss and log-sum-exp.
pub fn forward(logits: &Tensor, targets: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
    let vocab = check(logits, targets)?;
    let logits = logits.contiguous()?;
    let logits = View::of(&logits)?;
    let pairs: Vec<(f32, f32)> = logits
        .f32()?
        .par_chunks(vocab)
        .zip(targets)
        .map(|(row, &target)| {
            let lse = log_sum_exp(row);
            (lse - row[target as usize], lse)
        })
        .collect();
    Ok(pairs.into_iter().unzip())
}

/// `dlogits`, written over `logits`, which the caller gives up (handles that share its storage change with it).
pub fn backward(logits: Tensor, targets: &[u32], lse: &[f32], scales: &[f32]) -> Result<Tensor> {
    let vocab = check(&logits, targets)?;
    if lse.len() != targets.len() || scales.len() != targets.len() {
        return Err(Error::run("cross_entropy::backward: one log-sum-exp and one scale a row"));
    }
    let logits = logits.contiguous()?;
    update_f32(&logits, |values| {
        values.par_chunks_mut(vocab).enumerate().for_each(|(i, row)| {
            soften(row, lse[i], scales[i]);
            row[targets[i] as usize] -= scales[i];
        });
        Ok(())
    })?;
    Ok(logits)
}

fn check(logits: &Tensor, targets: &[u32]) -> Result<usize> {
    let (n, vocab) = logits.dims2()?;
    if n != targets.len() || targets.iter().any(|&target| target as usize >= vocab) {
        return Err(Error::run(format!("cross_entropy: {} targets, each below {vocab}, for {n} rows", targets.len())));
    }
    Ok(vocab)
}

vectorised! {
    fn log_sum_exp(row: &[f32]) -> f32 {
        let top = max(row);
        top + sum(row.len(), |i| exp(row[i] - top)).ln()
    }

    fn soften(row: &mut [f32], lse: f32, scale: f32) {
        row.iter_mut().for_each(|x| *x = exp(*x - lse) * scale);
    }
}
