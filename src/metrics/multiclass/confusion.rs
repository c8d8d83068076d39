//! Counts of a K × K table and what follows from them.
//!
//! Per class, one against the rest, precision, recall and F1 are those of two classes (see
//! [`crate::metrics::classification`]); the macro mean is over all K classes and undefined where a class's is. Balanced
//! accuracy is the macro mean of the recalls (Brodersen et al., ICPR 2010). An answer that names no class counts in the
//! denominators of accuracy and of its gold class's recall, and is a call of nothing.
//!
//! κ is `1 − Σ w·observed / Σ w·expected` disagreement, with w = 1 off the diagonal (Cohen 1960) or
//! w = (i − j)² (Cohen, *Psychol. Bull.* 70, 1968): one division of integers, so equal tables give equal bits.

use crate::metrics::{Metric, Outcome, classification, parsable};

/// A statistic over classes, or the class for which it is undefined and why.
pub type ClassOutcome = Result<f64, (usize, &'static str)>;

/// In the place of the class, where a statistic is undefined for none in particular.
pub(super) const NAMELESS: usize = usize::MAX;

/// The statistic without the class for which it is undefined.
pub(super) fn unnamed(outcome: ClassOutcome) -> Outcome {
    outcome.map_err(|(_, why)| why)
}

/// Why a statistic is undefined, with the name of the class for which it is.
pub(super) fn of_class((class, why): (usize, &'static str), names: &[String]) -> String {
    match names.get(class) {
        Some(name) if why != parsable::NO_RECORD => format!("class {name}: {why}"),
        _ => why.to_owned(),
    }
}

/// A metric whose value `whole` is, with the name of the class for which it is undefined.
pub(super) fn named(mut metric: Metric, whole: ClassOutcome, names: &[String]) -> Metric {
    if let (None, Err(undefined)) = (metric.value, whole) {
        metric.reason = Some(of_class(undefined, names));
    }
    metric
}

/// The mean of a statistic over `classes` classes.
///
/// # Errors
/// The first class for which it is undefined, and why.
pub fn macro_mean(classes: usize, statistic: impl Fn(usize) -> Outcome) -> ClassOutcome {
    let sum = (0..classes).try_fold(0.0, |sum, k| statistic(k).map(|value| sum + value).map_err(|why| (k, why)))?;
    Ok(sum / classes as f64)
}

/// Records by gold class (rows) and by answer (columns; the last one is no class).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// (K, K + 1), row-major.
    counts: Vec<u64>,
}

impl Confusion {
    /// Counts `(gold, answer, weight)` triples of `classes` classes.
    pub fn count(classes: usize, rows: impl Iterator<Item = (u8, Option<u8>, u32)>) -> Self {
        let mut counts = vec![0; classes * (classes + 1)];
        for (gold, answer, weight) in rows {
            let column = answer.map_or(classes, usize::from);
            counts[usize::from(gold) * (classes + 1) + column] += u64::from(weight);
        }
        Self { classes, counts }
    }

    /// The counts of gold class `k`: K answers, and those that name no class.
    pub fn row(&self, k: usize) -> &[u64] {
        &self.counts[k * (self.classes + 1)..(k + 1) * (self.classes + 1)]
    }

    /// Records counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Class `k` against the rest.
    pub fn one_vs_rest(&self, k: usize) -> classification::Confusion {
        let true_positives = self.row(k)[k];
        let gold: u64 = self.row(k).iter().sum();
        let called: u64 = (0..self.classes).map(|gold| self.row(gold)[k]).sum();
        classification::Confusion {
            true_positives,
            false_positives: called - true_positives,
            false_negatives: gold - true_positives,
            true_negatives: self.total() + true_positives - gold - called,
        }
    }

    /// Share of the records that are answered as they are.
    pub fn accuracy(&self) -> Outcome {
        let right: u64 = (0..self.classes).map(|k| self.row(k)[k]).sum();
        let total = self.total();
        if total == 0 { Err("no record") } else { Ok(right as f64 / total as f64) }
    }

    /// Macro mean of a statistic of two classes.
    pub fn macro_mean(&self, statistic: fn(&classification::Confusion) -> Outcome) -> ClassOutcome {
        macro_mean(self.classes, |k| statistic(&self.one_vs_rest(k)))
    }

    /// Cohen's κ of gold and answer, over the answers that name a class.
    ///
    /// ```
    /// use clsgen::metrics::multiclass::{Confusion, Disagreement};
    /// let rows = [(0, Some(0), 2), (1, Some(2), 1), (2, Some(2), 1)];
    /// let table = Confusion::count(3, rows.into_iter());
    /// // One of four differs; by chance 1 − (2·2 + 1·0 + 1·2) / 16 would.
    /// assert_eq!(table.kappa(Disagreement::Nominal), Ok(1.0 - 0.25 / 0.625));
    /// ```
    pub fn kappa(&self, weight: Disagreement) -> Outcome {
        let rows = |k: usize| self.row(k)[..self.classes].iter().map(|&count| i128::from(count)).sum::<i128>();
        let columns = |k: usize| (0..self.classes).map(|gold| i128::from(self.row(gold)[k])).sum::<i128>();
        let mut observed = 0;
        let mut expected = 0;
        for i in 0..self.classes {
            for j in 0..self.classes {
                let weight = weight.of(i, j);
                observed += weight * i128::from(self.row(i)[j]);
                expected += weight * rows(i) * columns(j);
            }
        }
        let total: i128 = (0..self.classes).map(rows).sum();
        match (total, expected) {
            (0, _) => Err("no record"),
            (_, 0) => Err("both raters give one and the same label throughout"),
            _ => Ok((expected - total * observed) as f64 / expected as f64),
        }
    }
}

/// How much two classes disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disagreement {
    /// Any two as much as any other.
    Nominal,
    /// By the square of their distance: for classes in an order.
    Quadratic,
}

impl Disagreement {
    fn of(self, i: usize, j: usize) -> i128 {
        match self {
            Self::Nominal => i128::from(i != j),
            Self::Quadratic => (i.abs_diff(j) as i128).pow(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_have_the_kappa_of_two_classes_to_the_bit() {
        for seed in 0..50u32 {
            let cell = |k: u32| (seed * 7 + k * k * 13) % 11;
            let rows = (0..4).map(|k| ((k / 2) as u8, Some((k % 2) as u8), cell(k)));
            let table = Confusion::count(2, rows);
            let two = classification::Confusion::count((0..4).map(|k| (k / 2 == 1, k % 2 == 1, cell(k))));
            assert_eq!(table.one_vs_rest(1), two);
            assert_eq!(table.kappa(Disagreement::Nominal), two.kappa());
            assert_eq!(table.kappa(Disagreement::Quadratic), two.kappa());
        }
    }

    #[test]
    fn an_answer_without_a_class_is_wrong_and_a_miss_of_its_gold_class() {
        let rows = [(0, Some(0)), (0, None), (1, Some(1)), (2, Some(2))];
        let table = Confusion::count(3, rows.into_iter().map(|(gold, answer)| (gold, answer, 1)));
        assert_eq!(table.accuracy(), Ok(0.75));
        let first = table.one_vs_rest(0);
        assert_eq!((first.recall(), first.precision(), first.specificity()), (Ok(0.5), Ok(1.0), Ok(1.0)));
        assert_eq!(table.kappa(Disagreement::Nominal), Ok(1.0), "κ is over what was answered");
    }

    #[test]
    fn a_macro_mean_names_the_class_that_has_none() {
        let table = Confusion::count(3, [(0, Some(0), 1), (1, Some(0), 1)].into_iter());
        assert_eq!(table.macro_mean(classification::Confusion::precision), Err((1, "nothing is predicted positive")));
        assert_eq!(table.macro_mean(classification::Confusion::recall), Err((2, "no positive record")));
    }
}
