//! Counts of a 2 × 2 table and what follows from them.
//!
//! F1 is `2TP / (2TP + FP + FN)` (van Rijsbergen, *Information Retrieval*, 1979): 0 where nothing true is called
//! positive, undefined only where there is nothing to find and nothing was called. Precision with nothing called
//! positive is undefined, not 0.

use super::Outcome;

/// Why a statistic of nothing is undefined.
const NO_RECORD: &str = "no record";

/// The four counts of labels against calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confusion {
    /// Positive, called positive.
    pub true_positives: u64,
    /// Negative, called positive.
    pub false_positives: u64,
    /// Positive, called negative.
    pub false_negatives: u64,
    /// Negative, called negative.
    pub true_negatives: u64,
}

impl Confusion {
    /// Counts `(label, call, weight)` triples.
    pub fn count(rows: impl Iterator<Item = (bool, bool, u32)>) -> Self {
        let mut counts = [0u64; 4];
        for (label, call, weight) in rows {
            counts[usize::from(label) * 2 + usize::from(call)] += u64::from(weight);
        }
        let [true_negatives, false_positives, false_negatives, true_positives] = counts;
        Self { true_positives, false_positives, false_negatives, true_negatives }
    }

    /// Counts of `scores ≥ threshold` against `labels`.
    ///
    /// ```
    /// use clsgen::metrics::classification::Confusion;
    /// let table = Confusion::at(&[0.2, 0.5, 0.9], &[true, false, true], 0.5);
    /// assert_eq!((table.precision(), table.recall(), table.f1()), (Ok(0.5), Ok(0.5), Ok(0.5)));
    /// ```
    pub fn at(scores: &[f64], labels: &[bool], threshold: f64) -> Self {
        Self::count(scores.iter().zip(labels).map(|(&score, &label)| (label, score >= threshold, 1)))
    }

    /// Records counted.
    pub fn total(&self) -> u64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }

    /// Share of those called positive that are (positive predictive value).
    pub fn precision(&self) -> Outcome {
        self.ratio(self.true_positives, self.true_positives + self.false_positives, "nothing is predicted positive")
    }

    /// Share of the positives that are called positive (sensitivity).
    pub fn recall(&self) -> Outcome {
        self.ratio(self.true_positives, self.true_positives + self.false_negatives, "no positive record")
    }

    /// Share of the negatives that are called negative.
    pub fn specificity(&self) -> Outcome {
        self.ratio(self.true_negatives, self.true_negatives + self.false_positives, "no negative record")
    }

    /// Share of those called negative that are.
    pub fn negative_predictive_value(&self) -> Outcome {
        self.ratio(self.true_negatives, self.true_negatives + self.false_negatives, "nothing is predicted negative")
    }

    /// Share of the records called as they are.
    pub fn accuracy(&self) -> Outcome {
        self.ratio(self.true_positives + self.true_negatives, self.total(), NO_RECORD)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> Outcome {
        let twice = 2 * self.true_positives;
        self.ratio(
            twice,
            twice + self.false_positives + self.false_negatives,
            "no positive record and nothing is predicted positive",
        )
    }

    /// Youden's J = sensitivity + specificity − 1 (*Cancer* 3, 1950), from one division so that equal tables are
    /// equal.
    pub fn youden(&self) -> Outcome {
        let positives = i128::from(self.true_positives + self.false_negatives);
        let negatives = i128::from(self.false_positives + self.true_negatives);
        if positives * negatives == 0 {
            return Err(if self.total() == 0 { NO_RECORD } else { "only one class is present" });
        }
        let numerator = i128::from(self.true_positives) * negatives - i128::from(self.false_positives) * positives;
        Ok(numerator as f64 / (positives * negatives) as f64)
    }

    /// Cohen's κ of labels and calls; see [`super::agreement::kappa`].
    pub fn kappa(&self) -> Outcome {
        let [tp, fp, fneg, tn] =
            [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives].map(i128::from);
        let expected = (tp + fneg) * (fneg + tn) + (tp + fp) * (fp + tn);
        if expected == 0 {
            return Err(if self.total() == 0 {
                NO_RECORD
            } else {
                "both raters give one and the same label throughout"
            });
        }
        Ok((expected - (tp + fp + fneg + tn) * (fp + fneg)) as f64 / expected as f64)
    }

    /// `part / whole`, or the reason it is undefined.
    fn ratio(&self, part: u64, whole: u64, reason: &'static str) -> Outcome {
        match (whole, self.total()) {
            (0, 0) => Err(NO_RECORD),
            (0, _) => Err(reason),
            _ => Ok(part as f64 / whole as f64),
        }
    }
}
