//! Decision curve and risk–coverage curve with 95 % bands, as [`super::curves`] makes them: pointwise, over the same
//! resamples.
//!
//! Every resample keeps the classes' shares, so the net benefit of calling everyone positive moves only where groups
//! do.

use super::{
    Sample,
    bootstrap::clopper_pearson_at_end,
    curves::{BandedCurve, banded},
    decision::{Confidence, NetBenefit, thresholds},
};

/// Coverages of the risk–coverage curve: 0.01, 0.02 … 1.
const COVERAGES: usize = 100;

/// What the probabilities are worth to someone who decides by them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecisionCurves {
    /// Net benefit of the model over the threshold probability, in true positives a record.
    pub model: BandedCurve,
    /// Net benefit of calling everyone positive.
    pub all: BandedCurve,
    /// Share of wrong calls (at 0.5) among the most confident records, over the share of records that are called.
    pub risk: BandedCurve,
}

/// The curves of `sample` with bands from `resamples` resamples; `None` without a record.
pub fn decision_curves(sample: &Sample, resamples: usize, seed: u64) -> Option<DecisionCurves> {
    if sample.is_empty() {
        return None;
    }
    let thresholds = thresholds();
    let net_benefit = NetBenefit::new(sample.probabilities(), sample.labels(), &thresholds);
    let confidence = Confidence::new(sample.probabilities(), sample.labels());
    let coverages = (1..=COVERAGES).map(|k| k as f64 / COVERAGES as f64).collect();
    let read = |weights: &[u32]| {
        let [model, all] = net_benefit.of(weights);
        [model, all, risk_on_grid(&confidence, weights)]
    };
    let [model, all, mut risk] =
        banded(sample, resamples, seed, [thresholds.clone(), thresholds.clone(), coverages], read);
    // A risk is a proportion: where none or all of the covered records are called wrongly, resamples cannot tell.
    for (k, (risk, band)) in
        risk.y.iter().zip(&mut risk.band).enumerate().filter(|(_, (risk, _))| **risk == 0.0 || **risk == 1.0)
    {
        let clusters = confidence.clusters(sample, covered(k + 1, sample.len()));
        *band = clopper_pearson_at_end(*risk == 1.0, clusters).filter(|_| resamples > 0);
    }
    Some(DecisionCurves { model, all, risk })
}

/// Records called at step `k` of the coverages, of `n`: the smallest number that covers as much.
pub fn covered(k: usize, n: usize) -> usize {
    // In integers: 0.07 · 100 is not 7.
    (k * n).div_ceil(COVERAGES)
}

fn risk_on_grid(confidence: &Confidence, weights: &[u32]) -> Vec<f64> {
    let mut risks = Vec::with_capacity(weights.len());
    confidence.risks(weights, |risk| risks.push(risk));
    (1..=COVERAGES).map(|k| risks.get(covered(k, risks.len()).wrapping_sub(1)).copied().unwrap_or(f64::NAN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::classification::Confusion;

    #[test]
    fn the_curves_are_those_of_the_calls() {
        let mut sample = Sample::new();
        (0..150).for_each(|i| sample.push(f64::from(i * 7 % 150) / 150.0, i % 3 == 0, None, None));
        let curves = decision_curves(&sample, 300, 3).unwrap();
        for (k, &threshold) in curves.model.x.iter().enumerate() {
            let table = Confusion::at(sample.probabilities(), sample.labels(), threshold);
            let want =
                (table.true_positives as f64 - table.false_positives as f64 * threshold / (1.0 - threshold)) / 150.0;
            assert!((curves.model.y[k] - want).abs() < 1e-12, "{threshold}");
            assert!(
                curves.model.band[k]
                    .is_none_or(|[low, high]| low < high && low <= want + 1e-12 && want <= high + 1e-12)
            );
            // Without groups the classes keep their shares.
            assert_eq!(curves.all.band[k], None);
        }
        let accuracy = Confusion::at(sample.probabilities(), sample.labels(), 0.5).accuracy().unwrap();
        assert!((curves.risk.y[99] - (1.0 - accuracy)).abs() < 1e-12 && curves.risk.x[99] == 1.0);
        assert_eq!(
            [covered(1, 150), covered(50, 150), covered(100, 150), covered(1, 1), covered(7, 100)],
            [2, 75, 150, 1, 7]
        );
    }

    #[test]
    fn one_record_has_curves_and_none_has_not() {
        let mut sample = Sample::new();
        assert!(decision_curves(&sample, 10, 1).is_none());
        sample.push(0.9, true, None, None);
        let curves = decision_curves(&sample, 300, 1).unwrap();
        // One group tells no interval, not even of a risk of 0.
        assert!(curves.risk.band.iter().chain(&curves.model.band).all(Option::is_none));
        assert!(curves.risk.y.iter().all(|&risk| risk == 0.0) && curves.model.y[50] == 1.0);
    }
}
