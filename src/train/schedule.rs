//! Learning rate: linear warmup, then linear decay to zero, exactly HF's `get_linear_schedule_with_warmup`; or, for the CNN
//! baseline, the cosine of [`CosineSchedule`].
//!
//! λ(s) = s / max(1, W) for s < W, else max(0, (T − s) / max(1, T − W)). Steps count from 0: optimizer step k, counted
//! from 1 as the log does, uses λ(k − 1), so the first step of a warmup has a learning rate of 0.

/// Peak learning rate, warmup steps W and total steps T.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSchedule {
    /// Learning rate at λ = 1.
    pub peak: f64,
    /// W.
    pub warmup: usize,
    /// T, whether or not training stops earlier.
    pub total: usize,
}

impl LinearSchedule {
    /// λ(s), with s counted from 0.
    pub fn factor(&self, s: usize) -> f64 {
        if s < self.warmup {
            return s as f64 / self.warmup.max(1) as f64;
        }
        let left = self.total as f64 - s as f64;
        (left / self.total.saturating_sub(self.warmup).max(1) as f64).max(0.0)
    }

    /// The learning rate of optimizer step `k`, counted from 1.
    pub fn learning_rate(&self, k: usize) -> f64 {
        self.peak * self.factor(k - 1)
    }
}

/// Linear warmup, then half a cosine down to zero, exactly HF's `get_cosine_schedule_with_warmup`:
/// λ(s) = s / max(1, W) for s < W, else ½(1 + cos(π (s − W) / max(1, T − W))).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineSchedule {
    /// Learning rate at λ = 1.
    pub peak: f64,
    /// W.
    pub warmup: usize,
    /// T, whether or not training stops earlier.
    pub total: usize,
}

impl CosineSchedule {
    /// The learning rate of optimizer step `k`, counted from 1: λ(k − 1) of the peak.
    pub fn learning_rate(&self, k: usize) -> f64 {
        let s = k - 1;
        if s < self.warmup {
            return self.peak * s as f64 / self.warmup.max(1) as f64;
        }
        let progress = (s - self.warmup) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        self.peak * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `transformers.get_linear_schedule_with_warmup(optimizer, 3, 10)` of transformers 4.57.
    #[test]
    fn factors_are_those_of_hf() {
        let schedule = LinearSchedule { peak: 1.0, warmup: 3, total: 10 };
        let expected = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 6.0 / 7.0, 5.0 / 7.0, 4.0 / 7.0, 3.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0, 0.0];
        for (s, factor) in expected.iter().enumerate() {
            assert!((schedule.factor(s) - factor).abs() < 1e-12, "λ({s})");
        }
        assert_eq!(schedule.learning_rate(1), 0.0);
    }

    #[test]
    fn a_warmup_longer_than_training_and_no_warmup_are_both_defined() {
        assert_eq!(LinearSchedule { peak: 2.0, warmup: 100, total: 10 }.learning_rate(10), 0.18);
        assert_eq!(LinearSchedule { peak: 2.0, warmup: 0, total: 4 }.learning_rate(1), 2.0);
    }

    /// `transformers.get_cosine_schedule_with_warmup(optimizer, 2, 6)`.
    #[test]
    fn cosine_factors_are_those_of_hf() {
        let schedule = CosineSchedule { peak: 1.0, warmup: 2, total: 6 };
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        for (k, expected) in [0.0, 0.5, 1.0, 0.5 + half, 0.5, 0.5 - half, 0.0].iter().enumerate() {
            assert!((schedule.learning_rate(k + 1) - expected).abs() < 1e-12, "step {}", k + 1);
        }
    }
}
