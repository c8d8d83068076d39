//! Do the probabilities of K classes mean what they say?
//!
//! - **Brier** score over all classes, mean of `Σ_k (p_k − y_k)²`, 0 to 2 (Brier, *Mon. Weather Rev.* 78, 1950).
//! - **ECE**, class-wise: the mean over the classes of the equal-width ECE of p_k against "is it class k" (Kull et al.,
//!   NeurIPS 2019).
//! - **Log loss**, mean of −ln p of the gold class, kept off infinity as scikit-learn does.

use crate::metrics::{
    Options, Outcome,
    bootstrap::Statistic,
    calibration::{equal_width, expected_error},
    shared::in_sample,
};

use super::{Calibration, Sample};

/// log loss takes no probability as further from 0 and 1.
const LOG_MARGIN: f64 = f64::EPSILON;

/// Weighted mean of a term a record.
fn mean(terms: &[f64], weights: &[u32]) -> Outcome {
    let add =
        |(sum, n): (f64, f64), (&term, &weight): (&f64, &u32)| (sum + f64::from(weight) * term, n + f64::from(weight));
    let (sum, n) = terms.iter().zip(weights).fold((0.0, 0.0), add);
    if n == 0.0 { Err("no record") } else { Ok(sum / n) }
}

/// Each record's part of the Brier score.
fn squared_distances(sample: &Sample) -> Vec<f64> {
    let distance = |(row, &label): (&[f64], &u8)| {
        let each = row.iter().enumerate().map(|(k, p)| (p - f64::from(k == usize::from(label))).powi(2));
        each.sum()
    };
    sample.rows().zip(sample.labels()).map(distance).collect()
}

/// Each record's part of the log loss.
fn surprises(sample: &Sample) -> Vec<f64> {
    let surprise = |(row, &label): (&[f64], &u8)| -row[usize::from(label)].clamp(LOG_MARGIN, 1.0 - LOG_MARGIN).ln();
    sample.rows().zip(sample.labels()).map(surprise).collect()
}

/// Class-wise ECE over `bins` bins of equal width, with a weight a record.
fn class_wise_error(columns: &[Vec<f64>], labels: &[u8], weights: &[u32], bins: usize) -> Outcome {
    let class = |(k, column): (usize, &Vec<f64>)| {
        let rows = column.iter().zip(labels).zip(weights).filter(|(_, weight)| **weight > 0);
        let rows = rows.map(|((&p, &label), &weight)| (p, usize::from(label) == k, f64::from(weight)));
        expected_error(&equal_width(rows, bins))
    };
    let sum = columns.iter().enumerate().map(class).try_fold(0.0, |sum, error| error.map(|error| sum + error))?;
    Ok(sum / columns.len() as f64)
}

/// What a resample needs of every record.
pub(super) struct Terms<'a> {
    sample: &'a Sample,
    distances: Vec<f64>,
    surprises: Vec<f64>,
    /// The probabilities of each class.
    columns: Vec<Vec<f64>>,
    bins: usize,
}

impl<'a> Terms<'a> {
    pub(super) fn new(sample: &'a Sample, bins: usize) -> Self {
        let columns = (0..sample.classes()).map(|k| sample.column(k as u8)).collect();
        Self { sample, distances: squared_distances(sample), surprises: surprises(sample), columns, bins }
    }

    pub(super) fn brier(&self, weights: &[u32]) -> Outcome {
        mean(&self.distances, weights)
    }

    pub(super) fn ece(&self, weights: &[u32]) -> Outcome {
        class_wise_error(&self.columns, self.sample.labels(), weights, self.bins)
    }

    pub(super) fn log_loss(&self, weights: &[u32]) -> Outcome {
        mean(&self.surprises, weights)
    }
}

/// Brier score, class-wise ECE and log loss, in this order.
pub(super) fn statistic(sample: &Sample, bins: usize) -> Statistic<'_> {
    let terms = Terms::new(sample, bins);
    Statistic::several(sample.len(), move |weights| [terms.brier(weights), terms.ece(weights), terms.log_loss(weights)])
}

/// The calibration metrics alone, on the same resamples as [`super::evaluate`]'s: for calibrated probabilities.
pub fn evaluate_calibration(sample: &Sample, options: &Options) -> Calibration {
    let statistics = [statistic(sample, options.bins)];
    let note = |metric| if options.in_sample { in_sample(metric, "the calibrator was fitted") } else { metric };
    Calibration::take(&mut sample.resampler(options.seed).measure(&statistics, options.bootstrap).into_iter().map(note))
}
