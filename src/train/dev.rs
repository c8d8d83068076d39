//! Validation on the dev split after each epoch: predictions, the metrics that select a checkpoint, and the loss.

use serde::{Deserialize, Serialize};

use super::{
    examples::{Batch, Example},
    loss::{self, Counts, LossSums, LossWeights},
    plan::Sample,
};
use crate::{
    data::{Prediction, Record},
    device,
    error::Result,
    generate::predict::{Settings, score_records},
    labels::Class,
    metrics::{self, Evaluation, quality::EpochTerms},
    model::Model,
    prompt::Prompter,
};

/// The dev split, ready to score.
pub struct Dev {
    /// All records of the split, not tokenized.
    pub records: Vec<Record>,
    /// The records that have an explanation, tokenized: L_gen of dev is computed on these.
    pub explained: Vec<Example>,
    /// Decoding settings.
    pub settings: Settings,
}

/// `dev.metrics.json`: the metrics of `eval/metrics.json`, without bootstrap intervals, and the losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DevMetrics {
    /// Weighted sum of the losses that are defined; null if none is, or if it is not finite.
    pub loss: Option<f64>,
    /// L_gen over dev's own explanations; null without any.
    pub loss_gen: Option<f64>,
    /// L_cls over dev's records.
    pub loss_cls: Option<f64>,
    /// The metrics of `eval`, at the decision threshold 0.5.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

impl DevMetrics {
    /// The inputs of the quality score that selects a checkpoint.
    pub fn terms(&self) -> EpochTerms {
        EpochTerms {
            auroc: self.evaluation.auroc.value,
            auroc_align: self.evaluation.auroc_align.value,
            kappa: self.evaluation.default.kappa.as_ref().and_then(|kappa| kappa.value),
            dev_loss: self.loss,
        }
    }

    /// What TensorBoard shows.
    pub fn scalars(&self) -> Vec<(&'static str, Option<f64>)> {
        let terms = self.terms();
        vec![
            ("dev/loss", self.loss),
            ("dev/loss_gen", self.loss_gen),
            ("dev/loss_cls", self.loss_cls),
            ("dev/auroc", terms.auroc),
            ("dev/auroc_align", terms.auroc_align),
            ("dev/kappa", terms.kappa),
            ("dev/f1", self.evaluation.default.f1.value),
            ("dev/parsable", self.evaluation.parsable.value),
            ("dev/brier", self.evaluation.calibration.brier.value),
        ]
    }
}

impl Dev {
    /// Scores the split with the model as it is.
    pub fn score(
        &self,
        model: &Model,
        prompter: &Prompter,
        weights: LossWeights,
    ) -> Result<(Vec<Prediction>, DevMetrics)> {
        let predictions = score_records(model, prompter, &self.records, &self.settings)?;
        let metrics = self.metrics(model, weights, &predictions)?;
        Ok((predictions, metrics))
    }

    fn metrics(&self, model: &Model, weights: LossWeights, predictions: &[Prediction]) -> Result<DevMetrics> {
        let mut sample = metrics::Sample::new();
        let mut classification = 0.0;
        for (record, prediction) in self.records.iter().zip(predictions) {
            let (Some(probability), Some(logits), Some(label)) =
                (prediction.probability, &prediction.logits, record.label)
            else {
                continue;
            };
            let spoken = prediction.verbalized_label.map(|label| label == Class::ONE);
            sample.push(probability, label == Class::ONE, spoken, record.group.as_deref());
            classification += cross_entropy(logits, label);
        }
        let n = sample.len();
        // Over target tokens only, even if training weights prompt tokens too: only the targets are generated.
        let counts =
            Counts { records: n, target_tokens: Counts::of(&self.explained).target_tokens, ..Counts::default() };
        let losses =
            weights.losses(LossSums { generation: self.generation_loss_sum(model, weights)?, classification }, counts);
        let defined = losses.generation.is_some() || losses.classification.is_some();
        Ok(DevMetrics {
            loss: defined.then_some(losses.loss).filter(|loss| loss.is_finite()),
            loss_gen: losses.generation,
            // Reported under `objective = "lm"` too, where the head is untrained and it is no part of `loss`.
            loss_cls: (n > 0).then(|| classification / n as f64),
            evaluation: metrics::evaluate(&sample, None, &metrics::Options::default()),
        })
    }

    /// Sum of the targets' cross-entropy, teacher-forced, a record at a time.
    fn generation_loss_sum(&self, model: &Model, weights: LossWeights) -> Result<f64> {
        let mut sum = 0.0;
        if weights.trains_generation() {
            for record in 0..self.explained.len() {
                device::check_interrupted()?;
                // The key seeds dropout, which is off here.
                sum += loss::generation_loss(model, &Batch::new(&self.explained, &[Sample { record, key: 0 }]))?;
            }
        }
        Ok(sum)
    }
}

/// −log softmax(logits)[label], in f64: ln Σ_k exp(l_k − l_label), the largest term taken out first.
fn cross_entropy(logits: &[f64], label: Class) -> f64 {
    let Some(own) = logits.get(label.index()) else { return f64::NAN };
    let largest = Class::of_largest(logits.iter().copied()).index();
    let others = logits.iter().enumerate().filter(|(k, _)| *k != largest);
    let sum: f64 = others.map(|(_, logit)| (logit - logits[largest]).exp()).sum();
    logits[largest] - own + sum.ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_stable_at_any_size() {
        assert!((cross_entropy(&[0.0, 3f64.ln()], Class::ONE) - (4.0f64 / 3.0).ln()).abs() < 1e-12);
        assert!((cross_entropy(&[0.0, 3f64.ln()], Class::ZERO) - 4.0f64.ln()).abs() < 1e-12);
        assert_eq!(cross_entropy(&[1000.0, 0.0], Class::ONE), 1000.0);
        assert_eq!(cross_entropy(&[1000.0, 0.0], Class::ZERO), 0.0);
    }
}
