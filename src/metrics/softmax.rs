//! From logits to probabilities.

/// softmax of finite logits, in f64. Of two classes each is `1 / (1 + exp(other − own))`, which keeps what is small;
/// of more the largest is taken out first, so that nothing overflows.
///
/// ```
/// use clsgen::metrics::softmax;
/// assert_eq!(softmax(&[-1000.0, 1000.0]), [0.0, 1.0]);
/// assert_eq!(softmax(&[3.0, 3.0, 3.0, 3.0]), [0.25; 4]);
/// ```
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    if let [zero, one] = *logits {
        let share = |own: f64, other: f64| 1.0 / (1.0 + (other - own).exp());
        return vec![share(zero, one), share(one, zero)];
    }
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// log softmax of f32 logits, in f64: `x − max − log Σ exp(x − max)`.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |x: &f32| f64::from(*x) - f64::from(max);
    let log_sum = logits.iter().map(|x| shifted(x).exp()).sum::<f64>().ln();
    logits.iter().map(|x| shifted(x) - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::{log_softmax, softmax};

    #[test]
    fn softmax_holds_at_any_size() {
        assert!((softmax(&[0.0, f64::from(3f32.ln())])[1] - 0.75).abs() < 1e-7);
        assert_eq!(softmax(&[1000.0, -1000.0]), [1.0, 0.0]);
        assert_eq!(softmax(&[-1000.0, 1000.0, -1000.0]), [0.0, 1.0, 0.0]);
        let total: f64 = [1.0f64, 2.0, 4.0].iter().map(|l| l.exp()).sum();
        for (p, logit) in softmax(&[1.0, 2.0, 4.0]).iter().zip([1.0f64, 2.0, 4.0]) {
            assert!((p - logit.exp() / total).abs() < 1e-15);
        }
    }

    #[test]
    fn log_softmax_sums_to_one_at_any_size() {
        for logits in [[0.0, 1.0, 2.0], [1000.0, -1000.0, 999.0]] {
            let sum: f64 = log_softmax(&logits).iter().map(|x| x.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
        assert!((log_softmax(&[0.0, 3f32.ln()])[1].exp() - 0.75).abs() < 1e-7);
    }
}
