//! Learning rate: linear warmup, then linear decay to zero, exactly HF's `get_linear_schedule_with_warmup`; or, for the
//! CNN baseline, the cosine of [`CosineSchedule`].
//!
//! λ(s) = s / max(1, W) for s < W, else max(0, (T − s) / max(1, T − W)). Steps count from 0: optimizer step k,
//! counted from 1 as the log does, uses λ(k − 1), so the first step of a warmup has a learning rate of 0.
//!
//! And the weights of the losses ([`WeightSchedule`]). All are functions of the step, so that a resume goes on as it
//! would have.

use super::loss::LossWeights;

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

/// w_gen and w_cls from the first step to the last: w(k) = (1 − t)·start + t·end, t = (k − 1) / max(1, T − 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightSchedule {
    /// w_gen and w_cls at step T; `None`: the start's, always.
    pub end: Option<[f64; 2]>,
    /// T, whether or not training stops earlier.
    pub total: usize,
}

impl WeightSchedule {
    /// The weights of optimizer step `k`, counted from 1, where step 1 has those of `start`.
    pub fn at(&self, k: usize, start: LossWeights) -> LossWeights {
        let Some([generation, classification]) = self.end else { return start };
        let t = (k.saturating_sub(1) as f64 / self.total.saturating_sub(1).max(1) as f64).min(1.0);
        let between = |from: f64, to: f64| (1.0 - t) * from + t * to;
        LossWeights {
            generation: between(start.generation, generation),
            classification: between(start.classification, classification),
            ..start
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `transformers.get_linear_schedule_with_warmup(optimizer, 3, 10)` of transformers 4.57.
    #[test]
    fn factors_are_those_of_hf() {
        let schedule = LinearSchedule { peak: 1.0, warmup: 3, total: 10 };
        let expected = [
            0.0,
            1.0 / 3.0,
            2.0 / 3.0,
            1.0,
            6.0 / 7.0,
            5.0 / 7.0,
            4.0 / 7.0,
            3.0 / 7.0,
            2.0 / 7.0,
            1.0 / 7.0,
            0.0,
            0.0,
        ];
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

    #[test]
    fn loss_weights_go_from_the_first_step_to_the_last_in_a_line() {
        let start = LossWeights {
            objective: crate::config::Objective::Joint,
            generation: 1.0,
            classification: 0.0,
            consistency: 0.0,
            prompt: 0.5,
        };
        let at = |k| {
            let weights = WeightSchedule { end: Some([0.2, 2.0]), total: 5 }.at(k, start);
            (weights.generation, weights.classification, weights.prompt)
        };
        assert_eq!((at(1), at(3), at(5)), ((1.0, 0.0, 0.5), (0.6, 1.0, 0.5), (0.2, 2.0, 0.5)));
        assert_eq!(WeightSchedule { end: None, total: 5 }.at(3, start), start);
        assert_eq!(WeightSchedule { end: Some([3.0, 3.0]), total: 1 }.at(1, start), start);
    }
}
