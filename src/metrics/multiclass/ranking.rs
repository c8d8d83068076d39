//! AUROC of each class against the rest and its macro mean (Provost & Domingos 2000; scikit-learn's
//! `roc_auc_score(multi_class = "ovr", average = "macro")`).

use super::{
    Sample,
    confusion::{ClassOutcome, macro_mean},
};
use crate::metrics::{Outcome, ranking::Ranking};

/// The records ranked by the probability of every class, once for all resamples.
pub(super) struct OneVsRest {
    /// A class: the order of the records, and which of all records are of it.
    classes: Vec<(Ranking, Vec<bool>)>,
}

impl OneVsRest {
    /// Against the gold class, over all records.
    pub(super) fn gold(sample: &Sample) -> Self {
        let all: Vec<u32> = (0..sample.len() as u32).collect();
        Self::of(sample, &all, |i, class| sample.labels()[i] == class)
    }

    /// Against the verbalized class, over the parsable records.
    pub(super) fn verbalized(sample: &Sample) -> Self {
        Self::of(sample, &sample.parsable(), |i, class| sample.verbalized()[i] == Some(class))
    }

    fn of(sample: &Sample, records: &[u32], is: impl Fn(usize, u8) -> bool) -> Self {
        let class = |class: u8| {
            let labels = (0..sample.len()).map(|i| is(i, class)).collect();
            (Ranking::of(&sample.column(class), records.to_vec()), labels)
        };
        Self { classes: (0..sample.classes()).map(|k| class(k as u8)).collect() }
    }

    fn class(&self, k: usize, weights: &[u32]) -> Outcome {
        let (ranking, labels) = &self.classes[k];
        ranking.auroc(labels, weights)
    }

    /// The macro mean with a weight a record.
    pub(super) fn macro_auroc(&self, weights: &[u32]) -> ClassOutcome {
        macro_mean(self.classes.len(), |k| self.class(k, weights))
    }
}
