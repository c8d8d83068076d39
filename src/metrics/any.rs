//! Two classes or more: one name for the predictions of a split, and for what was measured on them.

use serde::{Deserialize, Serialize};

use super::{
    Evaluation, Metric, Sample,
    evaluation::Judge,
    evidence::EvidenceMetrics,
    multiclass::{self, Row},
    perplexity::Perplexity,
    quality::EpochTerms,
};

/// Predictions of a split with their gold labels.
#[derive(Debug, Clone)]
pub enum AnySample {
    /// Of two classes.
    Two(Sample),
    /// Of more.
    More(multiclass::Sample),
}

impl AnySample {
    /// The rows in their order; of two classes a row's probabilities are one, that of class 1.
    ///
    /// # Errors
    /// Names the first row (from 1) that does not fit.
    pub fn new<'a>(classes: usize, rows: impl Iterator<Item = Row<'a>>) -> Result<Self, String> {
        if classes != 2 {
            return multiclass::Sample::new(classes, rows).map(Self::More);
        }
        let mut sample = Sample::new();
        for (i, row) in rows.enumerate() {
            let [probability] = *row.probabilities else {
                return Err(format!("row {}: {} probabilities of class 1", i + 1, row.probabilities.len()));
            };
            sample.push(probability, row.label == 1, row.verbalized.map(|label| label == 1), row.group);
        }
        Ok(Self::Two(sample))
    }

    /// Says that no text was generated at all, so that there is no parsable rate to speak of.
    pub fn set_silent(&mut self) {
        match self {
            Self::Two(sample) => sample.set_silent(),
            Self::More(sample) => sample.set_silent(),
        }
    }

    /// Records.
    pub fn len(&self) -> usize {
        match self {
            Self::Two(sample) => sample.len(),
            Self::More(sample) => sample.len(),
        }
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records and their classes, as titles have them: `394 records, 113 positive`.
    pub fn counts(&self) -> String {
        match self {
            Self::Two(sample) => format!("{} records, {} positive", sample.len(), sample.positives()),
            Self::More(sample) => {
                let counts: Vec<String> = sample.class_counts().iter().map(usize::to_string).collect();
                format!("{} records, by class {}", sample.len(), counts.join(" / "))
            }
        }
    }
}

/// Everything measured on a split: the content of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnyEvaluation {
    /// Of two classes.
    Two(Box<Evaluation>),
    /// Of more.
    More(Box<multiclass::Evaluation>),
}

impl AnyEvaluation {
    /// The metrics of two classes; none of more.
    pub fn two(&self) -> Option<&Evaluation> {
        match self {
            Self::Two(evaluation) => Some(evaluation),
            Self::More(_) => None,
        }
    }

    /// Names of the classes; none of two, which are not measured one by one.
    pub fn classes(&self) -> &[String] {
        match self {
            Self::Two(_) => &[],
            Self::More(evaluation) => &evaluation.classes,
        }
    }

    /// Records.
    pub fn n(&self) -> usize {
        match self {
            Self::Two(evaluation) => evaluation.n,
            Self::More(evaluation) => evaluation.n,
        }
    }

    /// AUROC against gold; of more classes their macro mean.
    pub fn auroc(&self) -> &Metric {
        match self {
            Self::Two(evaluation) => &evaluation.auroc,
            Self::More(evaluation) => &evaluation.auroc,
        }
    }

    /// AUROC against the verbalized class; of more classes their macro mean.
    pub fn auroc_align(&self) -> &Metric {
        match self {
            Self::Two(evaluation) => &evaluation.auroc_align,
            Self::More(evaluation) => &evaluation.auroc_align,
        }
    }

    /// κ of head and text: at 0.5, or of the arg max.
    pub fn kappa(&self) -> Option<&Metric> {
        match self {
            Self::Two(evaluation) => evaluation.default.kappa.as_ref(),
            Self::More(evaluation) => Some(&evaluation.kappa),
        }
    }

    /// F1 at 0.5; of more classes the macro mean of the arg max's.
    pub fn f1(&self) -> &Metric {
        match self {
            Self::Two(evaluation) => &evaluation.default.f1,
            Self::More(evaluation) => &evaluation.calls.macro_mean.f1,
        }
    }

    /// Share of texts that name a class.
    pub fn parsable(&self) -> &Metric {
        match self {
            Self::Two(evaluation) => &evaluation.parsable,
            Self::More(evaluation) => &evaluation.parsable,
        }
    }

    /// What of the explanations stands in the records.
    pub fn evidence(&self) -> Option<&EvidenceMetrics> {
        match self {
            Self::Two(evaluation) => evaluation.evidence.as_deref(),
            Self::More(evaluation) => evaluation.evidence.as_deref(),
        }
    }

    /// Says what of the explanations stands in the records.
    pub fn set_evidence(&mut self, evidence: Option<EvidenceMetrics>) {
        *match self {
            Self::Two(evaluation) => &mut evaluation.evidence,
            Self::More(evaluation) => &mut evaluation.evidence,
        } = evidence.map(Box::new);
    }

    /// Says what tuning forgot.
    pub fn set_perplexity(&mut self, perplexity: Option<Perplexity>) {
        *match self {
            Self::Two(evaluation) => &mut evaluation.perplexity,
            Self::More(evaluation) => &mut evaluation.perplexity,
        } = perplexity.map(Box::new);
    }

    /// Says what the judge found.
    pub fn set_judge(&mut self, judge: Judge) {
        *match self {
            Self::Two(evaluation) => &mut evaluation.judge,
            Self::More(evaluation) => &mut evaluation.judge,
        } = judge;
    }

    /// Brier score.
    pub fn brier(&self) -> &Metric {
        match self {
            Self::Two(evaluation) => &evaluation.calibration.brier,
            Self::More(evaluation) => &evaluation.calibration.brier,
        }
    }

    /// What the quality score of an epoch is made of (paper A.2.2), but for the loss.
    pub fn terms(&self) -> EpochTerms {
        EpochTerms {
            auroc: self.auroc().value,
            auroc_align: self.auroc_align().value,
            kappa: self.kappa().and_then(|kappa| kappa.value),
            dev_loss: None,
        }
    }
}
