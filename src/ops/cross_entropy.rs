//! Cross-entropy over rows of logits: `loss = lse − logits[target]`, `dlogits = scale·(softmax − onehot)`.
//!
//! The reduction (mean over the targets of an optimizer step, label weights) is the caller's, through `scales`.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::par_for::ParFor;
use super::cpu::simd::{exp, max, sum, vectorised};
use super::cpu::slice::{View, update_f32};
use crate::error::{Error, Result};

/// `logits (n, vocab)`, `targets (n)` → each row's loss and log-sum-exp.
pub fn forward(logits: &Tensor, targets: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
    let vocab = check(logits, targets)?;
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return cuda::forward(logits, targets);
    }
    let logits = logits.contiguous()?;
    let logits = View::of(&logits)?;
    let pairs: Vec<(f32, f32)> = logits.f32()?.par_chunks(vocab).zip(targets).par_map(|(row, &target)| {
        let lse = log_sum_exp(row);
        (lse - row[target as usize], lse)
    });
    Ok(pairs.into_iter().unzip())
}

/// `dlogits`, written over `logits`, which the caller gives up (handles that share its storage change with it).
pub fn backward(logits: Tensor, targets: &[u32], lse: &[f32], scales: &[f32]) -> Result<Tensor> {
    let vocab = check(&logits, targets)?;
    if lse.len() != targets.len() || scales.len() != targets.len() {
        return Err(Error::run("cross_entropy::backward: one log-sum-exp and one scale a row"));
    }
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return cuda::backward(logits, targets, lse, scales);
    }
    let logits = logits.contiguous()?;
    update_f32(&logits, |values| {
        values.par_chunks_mut(vocab).enumerate().par_for_each(|(i, row)| {
            softmax_inplace(row, lse[i], scales[i]);
            row[targets[i] as usize] -= scales[i];
        });
        Ok(())
    })?;
    Ok(logits)
}

/// [`forward`] and [`backward`] together: each row's loss, and `dlogits` written over `logits`.
pub fn forward_backward(logits: Tensor, targets: &[u32], scales: &[f32]) -> Result<(Vec<f32>, Tensor)> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        check(&logits, targets)?;
        if scales.len() != targets.len() {
            return Err(Error::run("cross_entropy::forward_backward: one scale a row"));
        }
        return cuda::in_place(logits, targets, scales);
    }
    let (losses, lse) = forward(&logits, targets)?;
    Ok((losses, backward(logits, targets, &lse, scales)?))
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
        top + sum([row], |[x]| exp(x - top)).ln()
    }

    fn softmax_inplace(row: &mut [f32], lse: f32, scale: f32) {
        row.iter_mut().for_each(|x| *x = exp(*x - lse) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;
    use crate::ops::tests::{assert_close, on_threads, random_tensor, values};

    #[test]
    fn losses_and_gradients_equal_an_f64_reference() {
        for (n, vocab) in [(1, 2), (63, 65), (64, 1000), (65, 49)] {
            let logits = (random_tensor(1, &[n, vocab]) * 5.0).unwrap();
            let targets: Vec<u32> = (0..n).map(|i| (i * 31 % vocab) as u32).collect();
            let scales: Vec<f32> = (0..n).map(|i| 0.25 + i as f32 / 64.0).collect();
            let mut loss_ref = vec![];
            let mut grad_ref = vec![];
            for (i, row) in values(&logits).chunks(vocab).enumerate() {
                let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                loss_ref.push(total.ln() - f64::from(row[targets[i] as usize]));
                grad_ref.extend(row.iter().enumerate().map(|(c, &x)| {
                    f64::from(scales[i]) * (f64::from(x).exp() / total - f64::from(u8::from(c == targets[i] as usize)))
                }));
            }
            let run = || {
                let (losses, lse) = forward(&logits, &targets).unwrap();
                let copy = logits.copy().unwrap();
                (losses, values(&backward(copy, &targets, &lse, &scales).unwrap()))
            };
            let (losses, grad) = same_on_every_isa(run);
            assert_close(&losses, &loss_ref, 2e-6, "loss");
            assert_close(&grad, &grad_ref, 2e-6, "dlogits");
            assert_eq!(on_threads(2, run), (losses.clone(), grad));
            let alone = forward(&logits.narrow(0, n - 1, 1).unwrap(), &targets[n - 1..]).unwrap().0;
            assert_eq!(alone[0], losses[n - 1]);
        }
    }

    #[test]
    fn bad_targets_are_refused_and_nan_is_not_hidden() {
        let logits = random_tensor(1, &[2, 3]);
        assert!(forward(&logits, &[0]).is_err());
        assert!(forward(&logits, &[0, 3]).is_err());
        let broken = (logits * f64::NAN).unwrap();
        assert!(forward(&broken, &[0, 1]).unwrap().0.iter().all(|loss| loss.is_nan()));
    }
}
