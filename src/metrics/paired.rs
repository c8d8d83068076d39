//! Paired comparison of two sets of predictions of the same records: the main metrics' differences, with intervals and
//! p-values that are not adjusted for their number.
//!
//! AUROC by DeLong's paired test; the rest by the paired bootstrap, both sets seeing the same resamples.

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    comparison::Comparison,
    delong,
    evaluate::verbalized_table,
    ranking::{self, Ranking},
    shared::gold_table,
};

/// `second − first` of seven metrics, null where either side is undefined. The samples hold the same records in the
/// same order.
pub fn differences(first: &Sample, second: &Sample, options: &Options) -> Vec<Comparison> {
    let resampler = Resampler::new(second, options.seed);
    let bootstrap =
        |metric: &str, statistic: &(dyn Fn(&Sample, &[u32]) -> Outcome + Sync)| {
            let difference = Statistic::new(second.len(), |weights: &[u32]| {
                Ok(statistic(second, weights)? - statistic(first, weights)?)
            });
            Comparison::of_resamples(metric, resampler.differences(&[difference], options.bootstrap).swap_remove(0))
        };
    vec![
        auroc(first, second),
        bootstrap("f1", &|sample, weights| gold_table(sample, 0.5, weights).f1()),
        bootstrap("precision", &|sample, weights| gold_table(sample, 0.5, weights).precision()),
        bootstrap("recall", &|sample, weights| gold_table(sample, 0.5, weights).recall()),
        bootstrap("parsable", &parsable),
        bootstrap("auroc_align", &auroc_align),
        bootstrap("kappa", &|sample, weights| verbalized_table(sample, 0.5, weights).kappa()),
    ]
}

fn auroc(first: &Sample, second: &Sample) -> Comparison {
    let minuend = second.probabilities();
    let subtrahend = first.probabilities();
    let difference = delong::paired(minuend, subtrahend, second.labels(), second.clusters(), second.cluster_count());
    let metric = match difference {
        Some(difference) => Metric::new(Ok(difference.value), second.len()).with_interval(difference.interval()),
        None => auroc_without_interval(minuend, subtrahend, second.labels()),
    };
    Comparison {
        metric: "auroc".into(),
        difference: metric,
        p_value: difference.and_then(|d| d.p_value()),
        test: "DeLong".into(),
    }
}

/// AUROC difference without an interval, for when DeLong's standard error is undefined.
pub(super) fn auroc_without_interval(minuend: &[f64], subtrahend: &[f64], labels: &[bool]) -> Metric {
    let difference = || Ok(ranking::auroc(minuend, labels)? - ranking::auroc(subtrahend, labels)?);
    Metric::new(difference(), labels.len()).with_interval(Err(delong::undefined(labels)))
}

fn parsable(sample: &Sample, weights: &[u32]) -> Outcome {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let spoken = sample.verbalized().iter().zip(weights).filter(|(label, _)| label.is_some());
    if sample.is_silent() {
        return Err("the predictions hold no generated text");
    }
    if total > 0.0 {
        Ok(spoken.fold(0.0, |sum, (_, &weight)| sum + f64::from(weight)) / total)
    } else {
        Err("no record")
    }
}

fn auroc_align(sample: &Sample, weights: &[u32]) -> Outcome {
    let spoken: Vec<bool> = sample.verbalized().iter().map(|label| *label == Some(true)).collect();
    Ranking::of(sample.probabilities(), sample.parsable()).auroc(&spoken, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    fn sample(shift: f64) -> Sample {
        let mut sample = Sample::new();
        for i in 0..40 {
            let label = i % 3 == 0;
            let probability = (0.2 + 0.3 * f64::from(i % 7) / 7.0 + if label { shift } else { 0.0 }).min(1.0);
            let verbalized = (i % 5 != 0 || shift > 0.1).then_some(probability > 0.4);
            sample.push(probability, label, verbalized, None);
        }
        sample
    }

    #[test]
    fn differences_are_those_of_the_two_evaluations() {
        let first = sample(0.05);
        let second = sample(0.4);
        let options = Options { bootstrap: 200, ..Options::default() };
        let before = evaluate(&first, None, &options);
        let after = evaluate(&second, None, &options);
        let value = |metric: &Metric| metric.value.unwrap();
        let expected = [
            value(&after.auroc) - value(&before.auroc),
            value(&after.default.f1) - value(&before.default.f1),
            value(&after.default.precision) - value(&before.default.precision),
            value(&after.default.recall) - value(&before.default.recall),
            value(&after.parsable) - value(&before.parsable),
            value(&after.auroc_align) - value(&before.auroc_align),
            value(after.default.kappa.as_ref().unwrap()) - value(before.default.kappa.as_ref().unwrap()),
        ];
        let found = differences(&first, &second, &options);
        for (comparison, expected) in found.iter().zip(expected) {
            assert!((value(&comparison.difference) - expected).abs() < 1e-12, "{}", comparison.metric);
        }
        assert!(found[0].p_value.unwrap() < 0.05 && found.len() == 7);
    }

    #[test]
    fn a_sample_does_not_differ_from_itself() {
        let same = sample(0.2);
        for comparison in differences(&same, &same, &Options { bootstrap: 300, ..Options::default() }) {
            assert_eq!(
                (comparison.difference.value, comparison.p_value),
                (Some(0.0), Some(1.0)),
                "{}",
                comparison.metric
            );
        }
    }
}
