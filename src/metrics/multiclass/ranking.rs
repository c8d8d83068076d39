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
        Self::gold_among(sample, &(0..sample.len() as u32).collect::<Vec<_>>())
    }

    /// Against the gold class, over these records.
    pub(super) fn gold_among(sample: &Sample, records: &[u32]) -> Self {
        Self::of(sample, records, |class| sample.column(class), |i, class| sample.labels()[i] == class)
    }

    /// Somebody else's probabilities against the gold class, over these records: `column` gives those of a class, an
    /// entry a record of `sample`.
    pub(super) fn others(sample: &Sample, records: &[u32], column: impl Fn(u8) -> Vec<f64>) -> Self {
        Self::of(sample, records, column, |i, class| sample.labels()[i] == class)
    }

    /// Against the verbalized class, over the parsable records.
    pub(super) fn verbalized(sample: &Sample) -> Self {
        let is = |i: usize, class: u8| sample.verbalized()[i] == Some(class);
        Self::of(sample, &sample.parsable(), |class| sample.column(class), is)
    }

    fn of(sample: &Sample, records: &[u32], column: impl Fn(u8) -> Vec<f64>, is: impl Fn(usize, u8) -> bool) -> Self {
        let class = |class: u8| {
            let labels = (0..sample.len()).map(|i| is(i, class)).collect();
            (Ranking::of(&column(class), records.to_vec()), labels)
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

/// The macro mean over all records of `sample`.
///
/// ```
/// use clsgen::metrics::multiclass::{Row, Sample, macro_auroc};
/// let row = |label: u8| Row { probabilities: &[0.2, 0.3, 0.5], label, verbalized: None, group: None };
/// assert_eq!(macro_auroc(&Sample::new(3, (0..3).map(row)).unwrap()), Ok(0.5), "all records tie");
/// assert_eq!(macro_auroc(&Sample::new(3, (0..2).map(row)).unwrap()), Err((2, "only one class is present")));
/// ```
pub fn macro_auroc(sample: &Sample) -> ClassOutcome {
    OneVsRest::gold(sample).macro_auroc(&vec![1; sample.len()])
}
