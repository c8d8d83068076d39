//! Two sets of predictions of the same records of K > 2 classes: their differences, with intervals and p-values that
//! are not adjusted for their number.
//!
//! Accuracy by McNemar's exact test or its sign-flip over groups; the rest by the paired bootstrap, both sets seeing
//! the same resamples.

use super::{
    Confusion, Disagreement, Sample,
    answers::{ClassAnswers, table},
    calibration::Terms,
    confusion::{ClassOutcome, NAMELESS, named, unnamed},
    evaluate::Agreement,
};
use crate::metrics::{Options, Outcome, bootstrap::Statistic, classification, comparison::Comparison, parsable};

/// What a difference is with a weight a record.
type Difference<'a> = dyn Fn(&[u32]) -> ClassOutcome + Sync + 'a;

/// The difference of one statistic of two sets.
pub(super) struct Pair<'a> {
    metric: &'static str,
    n: usize,
    difference: Box<Difference<'a>>,
}

impl<'a> Pair<'a> {
    /// `statistic` of the first less that of the second, over `n` records.
    pub(super) fn new<S: Sync>(
        metric: &'static str,
        n: usize,
        [first, second]: [&'a S; 2],
        statistic: impl Fn(&S, &[u32]) -> ClassOutcome + Sync + 'a,
    ) -> Self {
        let difference = move |weights: &[u32]| Ok(statistic(first, weights)? - statistic(second, weights)?);
        Self { metric, n, difference: Box::new(difference) }
    }
}

/// The paired bootstrap of every pair, on the same resamples of `sample`.
pub(super) fn bootstrap(sample: &Sample, names: &[String], pairs: &[Pair<'_>], options: &Options) -> Vec<Comparison> {
    let statistics: Vec<Statistic<'_>> = pairs
        .iter()
        .map(|pair| Statistic::new(pair.n, move |weights: &[u32]| unnamed((pair.difference)(weights))))
        .collect();
    let measured = sample.resampler(options.seed).differences(&statistics, options.bootstrap);
    let ones = vec![1; sample.len()];
    let each = measured.into_iter().zip(pairs).map(|((metric, p_value), pair)| {
        Comparison::of_resamples(pair.metric, (named(metric, (pair.difference)(&ones), names), p_value))
    });
    each.collect()
}

/// What is called of each record.
pub(super) struct Called<'a> {
    pub(super) sample: &'a Sample,
    pub(super) calls: &'a ClassAnswers,
}

impl Called<'_> {
    fn table(&self, weights: &[u32]) -> Confusion {
        table(self.sample, self.calls, weights)
    }

    /// The mean of the classes' recalls.
    pub(super) fn balanced_accuracy(&self, weights: &[u32]) -> ClassOutcome {
        self.table(weights).macro_mean(classification::Confusion::recall)
    }

    fn macro_precision(&self, weights: &[u32]) -> ClassOutcome {
        self.table(weights).macro_mean(classification::Confusion::precision)
    }

    /// The mean of the classes' F1.
    pub(super) fn macro_f1(&self, weights: &[u32]) -> ClassOutcome {
        self.table(weights).macro_mean(classification::Confusion::f1)
    }

    fn is_right(&self, i: usize) -> bool {
        self.calls[i] == Some(self.sample.labels()[i])
    }
}

/// The difference of the accuracies.
pub(super) fn accuracy([first, second]: [&Called<'_>; 2], options: &Options) -> Comparison {
    let sample = first.sample;
    let of_record: Vec<i64> =
        (0..sample.len()).map(|i| i64::from(first.is_right(i)) - i64::from(second.is_right(i))).collect();
    let resampler = sample.resampler(options.seed);
    Comparison::of_right_calls(&of_record, sample.grouping(), &resampler, options.bootstrap)
}

/// `second − first` of what [`super::evaluate`] measures of all classes; macro recall is the balanced accuracy. The
/// samples hold the same records in the same order.
pub fn differences(first: &Sample, second: &Sample, names: &[String], options: &Options) -> Vec<Comparison> {
    let n = second.len();
    let whole = |outcome: Outcome| outcome.map_err(|why| (NAMELESS, why));
    let first_calls = first.calls();
    let second_calls = second.calls();
    let called = [&Called { sample: second, calls: &second_calls }, &Called { sample: first, calls: &first_calls }];
    let agreement = [&Agreement::new(second), &Agreement::new(first)];
    let terms = [&Terms::new(second, options.bins), &Terms::new(first, options.bins)];
    let rate = |of: &Sample, weights: &[u32]| whole(parsable::rate(of.verbalized(), of.is_silent(), weights));
    let pairs = [
        Pair::new("auroc", n, agreement, Agreement::auroc),
        Pair::new("balanced_accuracy", n, called, Called::balanced_accuracy),
        Pair::new("macro.precision", n, called, Called::macro_precision),
        Pair::new("macro.f1", n, called, Called::macro_f1),
        Pair::new("auroc_align", n, agreement, Agreement::auroc_align),
        Pair::new("kappa", n, agreement, |of, weights| of.kappa(Disagreement::Nominal, weights)),
        Pair::new("parsable", n, [second, first], rate),
        Pair::new("brier", n, terms, |of, weights| whole(of.brier(weights))),
        Pair::new("ece", n, terms, |of, weights| whole(of.ece(weights))),
        Pair::new("log_loss", n, terms, |of, weights| whole(of.log_loss(weights))),
    ];
    let mut compared = bootstrap(second, names, &pairs, options);
    compared.insert(1, accuracy(called, options));
    compared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::multiclass::{Row, evaluate};

    fn names() -> [String; 3] {
        ["lower", "same", "higher"].map(String::from)
    }

    /// 60 records in groups of two; the larger `shift`, the better the head, the text as good as the head.
    fn sample(shift: usize) -> Sample {
        let probabilities: Vec<[f64; 3]> = (0..60)
            .map(|i| {
                let mut row = [0.2 + (i % 7) as f64 / 100.0; 3];
                let right = i % 10 < 4 + shift;
                let called = if right { i % 3 } else { (i + 1) % 3 };
                row[called] = 0.0;
                row[called] = 1.0 - row.iter().sum::<f64>();
                row
            })
            .collect();
        let groups: Vec<String> = (0..60).map(|i| format!("{}", i / 2)).collect();
        let rows = (0..60).map(|i| Row {
            probabilities: &probabilities[i],
            label: (i % 3) as u8,
            verbalized: (i % 11 > 3 - shift.min(3)).then_some(((i + i / 40) % 3) as u8),
            group: Some(&groups[i]),
        });
        Sample::new(3, rows).unwrap()
    }

    #[test]
    fn differences_are_those_of_the_two_evaluations() {
        let options = Options { bootstrap: 300, ..Options::default() };
        let before = sample(0);
        let after = sample(5);
        let found = differences(&before, &after, &names(), &options);
        let [before, after] = [before, after].map(|of| {
            let evaluation = evaluate(&of, &names(), false, &options);
            serde_json::to_value(evaluation).unwrap()
        });
        assert_eq!(found.len(), 11);
        for comparison in &found {
            let path = match comparison.metric.as_str() {
                key @ ("brier" | "ece" | "log_loss") => format!("/calibration/{key}/value"),
                key => format!("/{}/value", key.replace('.', "/")),
            };
            let value = |of: &serde_json::Value| of.pointer(&path).and_then(serde_json::Value::as_f64).unwrap();
            let difference = comparison.difference.value.unwrap();
            assert!((difference - (value(&after) - value(&before))).abs() < 1e-12, "{comparison:?}");
            let accuracy = comparison.metric == "accuracy";
            assert_eq!(comparison.test == "sign-flip over groups, exact", accuracy, "{comparison:?}");
            assert!(comparison.p_value.is_some() && comparison.difference.ci95.is_some(), "{comparison:?}");
        }
        assert!(found[1].p_value.unwrap() < 0.01 && found[0].p_value.unwrap() < 0.01);
    }

    #[test]
    fn a_sample_does_not_differ_from_itself() {
        let same = sample(2);
        for comparison in differences(&same, &same, &names(), &Options { bootstrap: 300, ..Options::default() }) {
            assert_eq!((comparison.difference.value, comparison.p_value), (Some(0.0), Some(1.0)), "{comparison:?}");
        }
    }

    #[test]
    fn what_is_undefined_names_its_class() {
        let row =
            |i: usize| Row { probabilities: &[0.5, 0.3, 0.2], label: (i % 2) as u8, verbalized: None, group: None };
        let two = Sample::new(3, (0..20).map(row)).unwrap();
        let found = differences(&two, &two, &names(), &Options::default());
        let reason = |metric: &str| {
            let comparison = found.iter().find(|comparison| comparison.metric == metric).unwrap();
            (comparison.difference.value, comparison.difference.reason.clone().unwrap_or_default())
        };
        assert_eq!(reason("auroc"), (None, "class higher: only one class is present".to_owned()));
        assert_eq!(reason("balanced_accuracy"), (None, "class higher: no positive record".to_owned()));
        assert_eq!(reason("kappa"), (None, "no generated text could be parsed".to_owned()));
        assert_eq!(found[1].p_value, Some(1.0), "accuracy needs no class in particular");
    }
}
