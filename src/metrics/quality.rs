//! The quality score that picks the best epoch (paper A.2.2): `S = z(AUROC) + z(AUROC-Align) + z(κ at 0.5)` on dev,
//! where `z` runs over all checkpoints.
//!
//! Where the paper says nothing: `z` uses the population SD; a term that does not vary is 0 throughout; a null counts
//! as that metric's lowest finite value; a metric that is null everywhere is 0; ties go to the earliest epoch; with
//! nothing to go by at all, the lowest dev loss wins.

/// What one checkpoint brings to the score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EpochTerms {
    /// Dev AUROC.
    pub auroc: Option<f64>,
    /// Dev AUROC-Align.
    pub auroc_align: Option<f64>,
    /// Dev κ at 0.5 between head and verbalized label.
    pub kappa: Option<f64>,
    /// Dev loss, read only when every term of every checkpoint is null.
    pub dev_loss: Option<f64>,
}

/// The score of every checkpoint and the index of the best.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// S, in the order given.
    pub scores: Vec<f64>,
    /// Index of the best; `None` only without checkpoints.
    pub best: Option<usize>,
}

/// Scores that differ by less are equal: three z-scores summed in another order differ in the last bits.
const TIE: f64 = 1e-12;

/// Scores every checkpoint and picks the best.
///
/// ```
/// use clsgen::metrics::quality::{EpochTerms, quality};
/// let epoch = |auroc, kappa| EpochTerms { auroc: Some(auroc), kappa, ..EpochTerms::default() };
/// let quality = quality(&[epoch(0.6, None), epoch(0.8, Some(0.3)), epoch(0.7, Some(0.1))]);
/// assert_eq!(quality.best, Some(1));
/// ```
pub fn quality(epochs: &[EpochTerms]) -> Quality {
    let terms: [fn(&EpochTerms) -> Option<f64>; 3] = [|e| e.auroc, |e| e.auroc_align, |e| e.kappa];
    let columns = terms.map(|term| z_scores(&epochs.iter().map(term).collect::<Vec<_>>()));
    // Nothing below a tie is said of them: a score of −1e-15 is 0.
    let rounded = |sum: f64| (sum / TIE).round() / TIE.recip() + 0.0;
    let scores: Vec<f64> = (0..epochs.len()).map(|i| rounded(columns.iter().map(|column| column[i]).sum())).collect();
    let informed = epochs.iter().any(|epoch| terms.iter().any(|term| finite(term(epoch)).is_some()));
    let best = if informed {
        earliest_highest(scores.iter().map(|&score| Some(score)))
    } else {
        earliest_highest(epochs.iter().map(|epoch| finite(epoch.dev_loss).map(|loss| -loss)))
    };
    Quality { scores, best: best.or((!epochs.is_empty()).then_some(0)) }
}

/// z-scores under the null rules above.
fn z_scores(values: &[Option<f64>]) -> Vec<f64> {
    let Some(lowest) = values.iter().filter_map(|&value| finite(value)).reduce(f64::min) else {
        return vec![0.0; values.len()];
    };
    let filled: Vec<f64> = values.iter().map(|&value| finite(value).unwrap_or(lowest)).collect();
    // Tested by equality: rounding of the mean can leave equal values a variance of 1e-34.
    if filled.iter().all(|&value| value == lowest) {
        return vec![0.0; values.len()];
    }
    let n = filled.len() as f64;
    let mean = filled.iter().sum::<f64>() / n;
    let deviation = (filled.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    filled.iter().map(|value| (value - mean) / deviation).collect()
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

/// Index of the highest value; the earliest of equals.
fn earliest_highest(values: impl Iterator<Item = Option<f64>>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, value) in values.enumerate() {
        if let Some(value) = value
            && best.is_none_or(|(_, highest)| value > highest + TIE)
        {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(auroc: Option<f64>, auroc_align: Option<f64>, kappa: Option<f64>) -> EpochTerms {
        EpochTerms { auroc, auroc_align, kappa, dev_loss: None }
    }

    #[test]
    fn z_uses_the_population_deviation() {
        // Mean 2, population SD √(2/3).
        let z = z_scores(&[Some(1.0), Some(2.0), Some(3.0)]);
        assert!((z[2] - 1.0 / (2.0f64 / 3.0).sqrt()).abs() < 1e-15, "{z:?}");
    }

    #[test]
    fn a_null_counts_as_the_lowest_and_no_variance_as_zero() {
        assert_eq!(z_scores(&[None, Some(0.5), Some(0.9)])[0], z_scores(&[Some(0.5), Some(0.5), Some(0.9)])[0]);
        assert_eq!(z_scores(&[Some(0.1), Some(0.1), None]), [0.0; 3]);
        assert_eq!(z_scores(&[None, None]), [0.0; 2]);
        assert_eq!(z_scores(&[Some(f64::NAN), Some(0.4), Some(0.6)]), z_scores(&[None, Some(0.4), Some(0.6)]));
    }

    #[test]
    fn ties_go_to_the_earliest_epoch() {
        let same = epoch(Some(0.7), Some(0.8), Some(0.2));
        assert_eq!(quality(&[epoch(Some(0.6), None, None), same, same]).best, Some(1));
        // The same three z-scores in another order.
        let rotated = [
            epoch(Some(0.1), Some(0.2), Some(0.4)),
            epoch(Some(0.2), Some(0.4), Some(0.1)),
            epoch(Some(0.4), Some(0.1), Some(0.2)),
        ];
        assert_eq!(quality(&rotated).best, Some(0));
    }

    #[test]
    fn two_epochs_that_each_win_one_term_score_zero() {
        let scores =
            quality(&[epoch(Some(0.674_405_749), None, Some(0.0)), epoch(Some(0.75), None, Some(-0.008))]).scores;
        assert_eq!(scores, [0.0, 0.0]);
        assert!(scores.iter().all(|score| score.is_sign_positive()));
    }

    #[test]
    fn with_nothing_to_go_by_the_lowest_loss_wins() {
        let loss = |dev_loss| EpochTerms { dev_loss, ..EpochTerms::default() };
        assert_eq!(quality(&[loss(None), loss(Some(2.0)), loss(Some(1.0)), loss(Some(1.0))]).best, Some(2));
        assert_eq!(quality(&[loss(None), loss(None)]).best, Some(0));
        assert_eq!(quality(&[]).best, None);
    }
}
