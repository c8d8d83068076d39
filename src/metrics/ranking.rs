//! Statistics of the order of the scores: AUROC, average precision, and their curves.
//!
//! AUROC is the probability that a random positive outscores a random negative, a tie counting ½ (Hanley & McNeil,
//! *Radiology* 143, 1982): `U / (positives · negatives)` with Mann and Whitney's U. Average precision is
//! `Σ (Rᵢ − Rᵢ₋₁) Pᵢ` over the distinct scores, without interpolation (Davis & Goadrich, ICML 2006), as
//! scikit-learn's `average_precision_score`.

use super::Outcome;

/// Why a statistic of nothing is undefined.
const NO_RECORD: &str = "no record";
/// Why a ranking statistic is undefined.
const ONE_CLASS: &str = "only one class is present";

/// Records in descending order of score, in blocks of equal scores.
///
/// Sorting once lets every bootstrap resample be one pass over weights.
#[derive(Debug, Clone)]
pub struct Ranking {
    order: Vec<u32>,
    ends: Vec<u32>,
}

impl Ranking {
    /// Ranks all records.
    pub fn new(scores: &[f64]) -> Self {
        Self::of(scores, (0..scores.len() as u32).collect())
    }

    /// Ranks the records at these indices.
    pub fn of(scores: &[f64], mut order: Vec<u32>) -> Self {
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        // `==`, not total_cmp: −0 and 0 are the same score.
        let breaks = (1..order.len()).filter(|&i| scores[order[i - 1] as usize] != scores[order[i] as usize]);
        let ends = breaks.chain((!order.is_empty()).then_some(order.len())).map(|end| end as u32).collect();
        Self { order, ends }
    }

    /// Blocks of equal scores, highest first.
    pub fn blocks(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.order[start as usize..end as usize])
    }

    /// Weighted positives and negatives at or above each distinct score, highest first.
    pub(super) fn cumulative<'a>(
        &'a self,
        labels: &'a [bool],
        weights: &'a [u32],
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.blocks().scan((0, 0), |(positives, negatives), block| {
            for &i in block {
                let count = if labels[i as usize] { &mut *positives } else { &mut *negatives };
                *count += u64::from(weights[i as usize]);
            }
            Some((*positives, *negatives))
        })
    }

    /// AUROC with a weight a record.
    pub fn auroc(&self, labels: &[bool], weights: &[u32]) -> Outcome {
        let mut twice_u = 0u128;
        let mut above = (0, 0);
        for (positives, negatives) in self.cumulative(labels, weights) {
            // A negative of this block loses to the positives above and ties with the block's own.
            twice_u += u128::from(negatives - above.1) * u128::from(positives + above.0);
            above = (positives, negatives);
        }
        let pairs = u128::from(above.0) * u128::from(above.1);
        match (pairs, above) {
            (0, (0, 0)) => Err(NO_RECORD),
            (0, _) => Err(ONE_CLASS),
            _ => Ok(twice_u as f64 / (2 * pairs) as f64),
        }
    }

    /// Average precision with a weight a record.
    pub fn average_precision(&self, labels: &[bool], weights: &[u32]) -> Outcome {
        let mut sum = 0.0;
        let mut above = 0;
        let mut total = 0;
        for (positives, negatives) in self.cumulative(labels, weights) {
            if positives > above {
                sum += (positives - above) as f64 * (positives as f64 / (positives + negatives) as f64);
            }
            (above, total) = (positives, positives + negatives);
        }
        match (above, total) {
            (0, 0) => Err(NO_RECORD),
            (0, _) => Err("no positive record"),
            _ => Ok(sum / above as f64),
        }
    }
}

/// AUROC of `scores` against `labels`, ties ½.
///
/// ```
/// use clsgen::metrics::ranking::auroc;
/// assert_eq!(auroc(&[0.1, 0.4, 0.4, 0.8], &[false, false, true, true]), Ok(0.875));
/// assert!(auroc(&[0.1, 0.4], &[true, true]).is_err());
/// ```
pub fn auroc(scores: &[f64], labels: &[bool]) -> Outcome {
    Ranking::new(scores).auroc(labels, &vec![1; scores.len()])
}

/// Average precision (AUPRC) of `scores` against `labels`.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Outcome {
    Ranking::new(scores).average_precision(labels, &vec![1; scores.len()])
}

/// A point of a ROC or precision–recall curve: what is called positive at `threshold` and above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The score.
    pub threshold: f64,
    /// Share of the positives called positive (recall).
    pub true_positive_rate: f64,
    /// Share of the negatives called positive.
    pub false_positive_rate: f64,
    /// Share of those called positive that are.
    pub precision: f64,
}

/// The curves' points at every distinct score, highest first; empty where a class is missing.
pub fn curve(scores: &[f64], labels: &[bool]) -> Vec<CurvePoint> {
    let ranking = Ranking::new(scores);
    let ones = vec![1; scores.len()];
    let totals = ranking.cumulative(labels, &ones).last().unwrap_or((0, 0));
    if totals.0 == 0 || totals.1 == 0 {
        return Vec::new();
    }
    let thresholds = ranking.blocks().map(|block| scores[block[0] as usize]);
    let points =
        thresholds.zip(ranking.cumulative(labels, &ones)).map(|(threshold, (positives, negatives))| CurvePoint {
            threshold,
            true_positive_rate: positives as f64 / totals.0 as f64,
            false_positive_rate: negatives as f64 / totals.1 as f64,
            precision: positives as f64 / (positives + negatives) as f64,
        });
    points.collect()
}
