//! Validation on the dev split after each epoch: predictions, the metrics that select a checkpoint, and the loss.
//!
//! The records are dealt out to the ranks; what each found goes to rank 0, which puts it in the order of the split.

use serde::{Deserialize, Serialize};

use super::{
    examples::{self, Batch, Example},
    loss::{Counts, LossSums, LossWeights},
    micro_batch,
    plan::Sample,
};
use crate::{
    config::Objective,
    data::{Prediction, Record},
    error::{Error, Result},
    generate::predict::{PredictSettings, PromptedRecord, score},
    labels::{Class, Labels},
    metrics::{
        self, AnyEvaluation, AnySample, Options,
        multiclass::{self, Row},
        quality::EpochTerms,
    },
    model::Model,
    parallel::Collective,
    prompt::Prompter,
    signals,
};

/// The dev split, ready to score.
pub struct Dev {
    /// All records of the split.
    records: Vec<PromptedRecord>,
    /// Target ids of each, empty where there is none to write: L_gen of dev is computed on these.
    targets: Vec<Vec<u32>>,
    settings: PredictSettings,
    /// Whether the classes have an order (`task.ordinal`).
    ordinal: bool,
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

    /// The same of a run that does not train the head; `None` where dev has no explanations. Their own loss, whose
    /// weight may be 0 at the first step.
    pub fn loss_alone(&self) -> Option<EpochTerms> {
        self.loss_gen.map(|loss| EpochTerms { dev_loss: Some(loss), ..EpochTerms::default() })
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
    pub fn new(
        prompter: &Prompter,
        records: &[Record],
        objective: Objective,
        ordinal: bool,
        settings: PredictSettings,
    ) -> Result<Self> {
        let mut dev = Self { records: Vec::with_capacity(records.len()), targets: Vec::new(), settings, ordinal };
        for record in records {
            signals::check_interrupted()?;
            dev.records.push(PromptedRecord::new(record, prompter.prompt(record)?));
            dev.targets.push(examples::target(prompter, record, objective)?.map_or_else(Vec::new, |target| target.ids));
        }
        Ok(dev)
    }

    /// Scores the split with the model as it is: the whole on rank 0, `None` on the others.
    pub fn score(
        &self,
        ranks: &Collective,
        model: &Model,
        prompter: &Prompter,
        weights: LossWeights,
    ) -> Result<Option<(Vec<Prediction>, DevMetrics)>> {
        let part = ranks.agree(self.score_part(ranks, model, prompter, weights))?;
        let Some(scored) = self.gather(ranks, part, prompter.labels())? else { return Ok(None) };
        // The sum is over records in their order, whoever scored them.
        let generation = scored.iter().map(|(_, loss)| loss).sum();
        let predictions: Vec<Prediction> = scored.into_iter().map(|(prediction, _)| prediction).collect();
        let metrics = self.metrics(prompter.labels(), weights, generation, &predictions)?;
        Ok(Some((predictions, metrics)))
    }

    /// The predictions of the records that fall to this rank, each with the sum of its target's cross-entropy.
    fn score_part(
        &self,
        ranks: &Collective,
        model: &Model,
        prompter: &Prompter,
        weights: LossWeights,
    ) -> Result<Vec<(Prediction, f64)>> {
        let mut predictions = Vec::new();
        let records = ranks.round_robin(&self.records).map(|record| Ok(Ok(record.clone())));
        score(model, prompter, records, &self.settings, &mut |prediction| {
            // Metrics over what is left would pass for metrics over all.
            if let Some(error) = &prediction.error {
                return Err(error.fatal());
            }
            predictions.push(prediction);
            ranks.check_others()
        })?;
        let references = ranks.round_robin(&self.records).zip(ranks.round_robin(&self.targets));
        let with_loss = |(prediction, (record, target)): (Prediction, (&PromptedRecord, &Vec<u32>))| {
            ranks.check_others()?;
            Ok((prediction, generation_loss(model, record, target, weights)?))
        };
        predictions.into_iter().zip(references).map(with_loss).collect()
    }

    /// Every rank's part, put in order, on rank 0.
    fn gather(
        &self,
        ranks: &Collective,
        part: Vec<(Prediction, f64)>,
        labels: &Labels,
    ) -> Result<Option<Vec<(Prediction, f64)>>> {
        if ranks.size() == 1 {
            return Ok(Some(part));
        }
        let bytes = |(prediction, loss): (Prediction, f64)| {
            Ok([&loss.to_le_bytes(), prediction.to_line()?.as_bytes()].concat())
        };
        let own = part.into_iter().map(bytes).collect::<Result<Vec<_>>>()?;
        let Some(all) = ranks.gather_round_robin(own)? else { return Ok(None) };
        let read = |(bytes, record): (Vec<u8>, &PromptedRecord)| {
            let columns: Vec<String> = record.prediction.columns.keys().cloned().collect();
            let (loss, line) = bytes.split_first_chunk::<8>()?;
            Some((Prediction::from_line(line, labels, &columns).ok()?, f64::from_le_bytes(*loss)))
        };
        let whole: Option<Vec<_>> = all.into_iter().zip(&self.records).map(read).collect();
        let whole = whole.filter(|whole| whole.len() == self.records.len());
        whole.map(Some).ok_or_else(|| Error::run("the predictions of a rank cannot be read"))
    }

    fn metrics(
        &self,
        labels: &Labels,
        weights: LossWeights,
        generation: f64,
        predictions: &[Prediction],
    ) -> Result<DevMetrics> {
        let rows = || predictions.iter().filter_map(|p| Some((p, p.label?, p.logits.as_ref()?)));
        let classification: f64 = rows().map(|(_, label, logits)| cross_entropy(logits, label)).sum();
        let n = rows().count();
        // Over target tokens only, even if training weights prompt tokens too: only the targets are generated.
        let target_tokens = self.targets.iter().map(Vec::len).sum();
        let counts = Counts { records: n, target_tokens, ..Counts::default() };
        let losses = weights.losses(LossSums { generation, classification, ..LossSums::default() }, counts);
        let defined = losses.generation.is_some() || losses.classification.is_some();
        Ok(DevMetrics {
            loss: defined.then_some(losses.loss).filter(|loss| loss.is_finite()),
            loss_gen: losses.generation,
            // Reported under `objective = "lm"` too, where the head is untrained and it is no part of `loss`.
            loss_cls: (n > 0).then(|| classification / n as f64),
            evaluation: evaluate(rows().map(|(prediction, label, _)| (prediction, label)), labels, self.ordinal)?,
        })
    }
}

/// Sum of a target's cross-entropy, teacher-forced; 0 where there is none to write.
fn generation_loss(model: &Model, record: &PromptedRecord, target: &[u32], weights: LossWeights) -> Result<f64> {
    if target.is_empty() || !weights.trains_generation() {
        return Ok(0.0);
    }
    signals::check_interrupted()?;
    // Neither the class nor the key, which seeds dropout, has a part in this loss.
    let example = Example { prompt: record.prompt.ids.clone(), target: target.to_vec(), class: 0, record: 0 };
    micro_batch::generation_loss(model, &Batch::new(&[example], &[Sample { record: 0, key: 0 }]))
}

/// The metrics of predictions with their gold classes, without intervals.
fn evaluate<'a>(
    rows: impl Iterator<Item = (&'a Prediction, Class)>,
    labels: &Labels,
    ordinal: bool,
) -> Result<AnyEvaluation> {
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
            AnyEvaluation::More(Box::new(multiclass::evaluate(&sample, labels, ordinal, &options)))
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
