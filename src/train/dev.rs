//! Validation on the dev split after each epoch: predictions, the metrics that select a checkpoint, and the loss.

use serde::{Deserialize, Serialize};

use super::{
    examples::{self, Batch, Example},
    loss::{self, Counts, LossSums, LossWeights},
    plan::Sample,
};
use crate::{
    config::Objective,
    data::{Prediction, Record},
    device,
    error::{Error, Result},
    generate::predict::{PromptedRecord, Settings, score},
    labels::{Class, Labels},
    metrics::{
        self, AnyEvaluation, AnySample, Options,
        multiclass::{self, Row},
        quality::EpochTerms,
    },
    model::Model,
    prompt::Prompter,
};

/// The dev split, ready to score.
pub struct Dev {
    /// All records of the split.
    records: Vec<PromptedRecord>,
    /// Target ids of each, empty where there is none to write: L_gen of dev is computed on these.
    targets: Vec<Vec<u32>>,
    settings: Settings,
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
    /// The metrics of `eval`, at the decision threshold 0.5; of more than two classes, of the arg max.
    #[serde(flatten)]
    pub evaluation: AnyEvaluation,
}

impl DevMetrics {
    /// The inputs of the quality score that selects a checkpoint.
    pub fn terms(&self) -> EpochTerms {
        EpochTerms { dev_loss: self.loss, ..self.evaluation.terms() }
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
            ("dev/f1", self.evaluation.f1().value),
            ("dev/parsable", self.evaluation.parsable().value),
            ("dev/brier", self.evaluation.brier().value),
        ]
    }
}

impl Dev {
    /// Tokenizes the split, which is then not needed any more. `settings` are those of decoding.
    pub fn new(prompter: &Prompter, records: &[Record], objective: Objective, settings: Settings) -> Result<Self> {
        let mut dev = Self { records: Vec::with_capacity(records.len()), targets: Vec::new(), settings };
        for record in records {
            dev.records.push(PromptedRecord::new(record, prompter.prompt(record)?));
            dev.targets.push(examples::target(prompter, record, objective)?.map_or_else(Vec::new, |target| target.ids));
        }
        Ok(dev)
    }

    /// Scores the split with the model as it is.
    pub fn score(
        &self,
        model: &Model,
        prompter: &Prompter,
        weights: LossWeights,
    ) -> Result<(Vec<Prediction>, DevMetrics)> {
        let mut predictions = Vec::with_capacity(self.records.len());
        let records = self.records.iter().map(|record| Ok(Ok(record.clone())));
        score(model, prompter, records, &self.settings, &mut |prediction| {
            // Metrics over what is left would pass for metrics over all.
            if let Some(error) = &prediction.error {
                return Err(error.fatal());
            }
            predictions.push(prediction);
            Ok(())
        })?;
        let metrics = self.metrics(model, prompter.labels(), weights, &predictions)?;
        Ok((predictions, metrics))
    }

    fn metrics(
        &self,
        model: &Model,
        labels: &Labels,
        weights: LossWeights,
        predictions: &[Prediction],
    ) -> Result<DevMetrics> {
        let rows = || predictions.iter().filter_map(|p| Some((p, p.label?, p.logits.as_ref()?)));
        let classification: f64 = rows().map(|(_, label, logits)| cross_entropy(logits, label)).sum();
        let n = rows().count();
        // Over target tokens only, even if training weights prompt tokens too: only the targets are generated.
        let target_tokens = self.targets.iter().map(Vec::len).sum();
        let counts = Counts { records: n, target_tokens, ..Counts::default() };
        let losses =
            weights.losses(LossSums { generation: self.generation_loss_sum(model, weights)?, classification }, counts);
        let defined = losses.generation.is_some() || losses.classification.is_some();
        Ok(DevMetrics {
            loss: defined.then_some(losses.loss).filter(|loss| loss.is_finite()),
            loss_gen: losses.generation,
            // Reported under `objective = "lm"` too, where the head is untrained and it is no part of `loss`.
            loss_cls: (n > 0).then(|| classification / n as f64),
            evaluation: evaluate(rows().map(|(prediction, label, _)| (prediction, label)), labels)?,
        })
    }

    /// Sum of the targets' cross-entropy, teacher-forced, a record at a time.
    fn generation_loss_sum(&self, model: &Model, weights: LossWeights) -> Result<f64> {
        let mut sum = 0.0;
        if weights.trains_generation() {
            for (record, target) in self.records.iter().zip(&self.targets).filter(|(_, target)| !target.is_empty()) {
                device::check_interrupted()?;
                // Neither the class nor the key, which seeds dropout, has a part in this loss.
                let example = Example { prompt: record.prompt.ids.clone(), target: target.clone(), class: 0 };
                sum += loss::generation_loss(model, &Batch::new(&[example], &[Sample { record: 0, key: 0 }]))?;
            }
        }
        Ok(sum)
    }
}

/// The metrics of predictions with their gold classes, without intervals.
fn evaluate<'a>(rows: impl Iterator<Item = (&'a Prediction, Class)>, labels: &Labels) -> Result<AnyEvaluation> {
    let rows = rows.filter_map(|(prediction, label)| {
        Some(Row {
            probabilities: prediction.scores()?,
            label: label.into(),
            verbalized: prediction.verbalized_label.map(u8::from),
            group: prediction.group.as_deref(),
        })
    });
    let options = Options::default();
    Ok(match AnySample::new(labels.count(), rows).map_err(Error::run)? {
        AnySample::Two(sample) => AnyEvaluation::Two(Box::new(metrics::evaluate(&sample, None, &options))),
        AnySample::More(sample) => {
            AnyEvaluation::More(Box::new(multiclass::evaluate(&sample, labels, false, &options)))
        }
    })
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
