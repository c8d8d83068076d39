//! Other methods on the same records of K > 2 classes: their metrics over runs, and each against the model, paired.
//!
//! A method answers a record with a class and, where it has them, a probability of every class. An answer that cannot
//! be parsed is no class: wrong for accuracy, a miss for its gold class. AUROC is over the records that have
//! probabilities. Over several runs each number is the mean over the runs; its interval resamples records (clusters),
//! the runs held fixed. Against the model a method enters by its first run.

use serde::{Deserialize, Serialize};

use super::{
    Averages, ClassCalls, Sample,
    answers::{ClassAnswers, Scored, noted},
    confusion::{ClassOutcome, NAMELESS, unnamed},
    paired::{self, Called, Pair},
    ranking::OneVsRest,
};
use crate::metrics::{
    Metric, Options,
    bootstrap::Statistic,
    comparison::Comparison,
    methods::{NOTHING_WRITTEN, mean, unscored},
    parsable,
};

/// One run of a method: an entry a record, in the records' order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MethodRun {
    /// The class that it names; `None`: unparsable.
    pub calls: ClassAnswers,
    /// The probability of each class, (K); `None` where it gives none.
    pub probabilities: Vec<Option<Vec<f64>>>,
}

impl MethodRun {
    /// The records whose classes it gives probabilities.
    fn scored(&self) -> Vec<u32> {
        (0..self.probabilities.len() as u32).filter(|&i| self.probabilities[i as usize].is_some()).collect()
    }

    /// Its order of those records; `None` where there is none.
    fn ranking(&self, sample: &Sample) -> Option<OneVsRest> {
        let scored = self.scored();
        let of_class = |class: u8| {
            let probability = |row: &Option<Vec<f64>>| row.as_ref()?.get(usize::from(class)).copied();
            self.probabilities.iter().map(|row| probability(row).unwrap_or(f64::NAN)).collect()
        };
        (!scored.is_empty()).then(|| OneVsRest::others(sample, &scored, of_class))
    }
}

/// A method's metrics: means over its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// Macro AUROC of the probabilities, one class against the rest.
    pub auroc: Metric,
    /// Accuracy and macro means of the answers.
    #[serde(flatten)]
    pub averages: Averages,
    /// Share of parsable answers.
    pub parsable: Metric,
    /// Each class against the rest.
    pub per_class: Vec<ClassCalls>,
}

impl MethodMetrics {
    /// Each metric of all classes with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 7] {
        let [accuracy, balanced_accuracy, precision, recall, f1] = self.averages.named();
        let auroc = ("auroc", &self.auroc);
        [auroc, accuracy, balanced_accuracy, precision, recall, f1, ("parsable", &self.parsable)]
    }
}

/// Metrics of `runs` on the records of `sample`, whose classes have these `names`. `written` says that an answer may be
/// unparsable.
///
/// ```
/// use clsgen::metrics::{Options, multiclass::{Row, Sample, methods::{MethodRun, measure}}};
/// let row = |label| Row { probabilities: &[0.3, 0.3, 0.4], label, verbalized: None, group: None };
/// let sample = Sample::new(3, [0, 1, 2, 2].map(row).into_iter()).unwrap();
/// let names = ["a", "b", "c"].map(String::from);
/// let run = MethodRun { calls: vec![Some(0), Some(1), Some(2), None], probabilities: vec![None; 4] };
/// let measured = measure(&sample, &names, &[run], true, &Options::default());
/// assert_eq!(measured.averages.accuracy.value, Some(0.75));
/// assert_eq!((measured.per_class[2].recall.value, measured.parsable.value), (Some(0.5), Some(0.75)));
/// assert_eq!(measured.auroc.reason.as_deref(), Some("the method gives no score"));
/// ```
pub fn measure(
    sample: &Sample,
    names: &[String],
    runs: &[MethodRun],
    written: bool,
    options: &Options,
) -> MethodMetrics {
    let calls: Vec<&ClassAnswers> = runs.iter().map(|run| &run.calls).collect();
    let scored = Scored { sample, runs: &calls };
    let rankings: Vec<Option<OneVsRest>> = runs.iter().map(|run| run.ranking(sample)).collect();
    let unscored = unscored(calls.iter().any(|calls| calls.iter().any(Option::is_some)));
    let auroc = |ranking: &Option<OneVsRest>, weights: &[u32]| match ranking {
        Some(ranking) => ranking.macro_auroc(weights),
        None => Err((NAMELESS, unscored)),
    };
    // Records to whose AUROC some run adds.
    let n = (0..sample.len())
        .filter(|&i| runs.iter().any(|run| run.probabilities.get(i).is_some_and(Option::is_some)))
        .count();
    let share = |weights: &[u32]| {
        if written { mean(calls.iter().map(|run| parsable::rate(run, false, weights))) } else { Err(NOTHING_WRITTEN) }
    };
    let statistics = [
        Statistic::new(n, |weights| mean(rankings.iter().map(|ranking| unnamed(auroc(ranking, weights))))),
        Statistic::new(sample.len(), share).proportion_of(sample.grouping().count()),
        scored.statistic(),
    ];
    let mut measured = sample.resampler(options.seed).measure(&statistics, options.bootstrap).into_iter();
    let ones = vec![1; sample.len()];
    let undefined: Vec<_> = rankings.iter().filter_map(|ranking| auroc(ranking, &ones).err()).collect();
    let auroc = noted(measured.next().unwrap_or_default(), &undefined, runs.len(), Some(names));
    let parsable = measured.next().unwrap_or_default();
    let (averages, per_class) = scored.take(names, &mut measured);
    MethodMetrics { auroc, averages, parsable, per_class }
}

/// The model (its probabilities and their arg max) against one run of a method: macro AUROC, on the records to which
/// the run gives probabilities, balanced accuracy, macro F1 and, where the run is `written`, the parsable rate by the
/// paired bootstrap; accuracy by McNemar's exact test or its sign-flip over groups.
pub fn compare(
    sample: &Sample,
    names: &[String],
    run: &MethodRun,
    written: bool,
    options: &Options,
) -> Vec<Comparison> {
    if run.calls.is_empty() {
        return Vec::new();
    }
    let own = sample.calls();
    let called = [&Called { sample, calls: &own }, &Called { sample, calls: &run.calls }];
    let scored = run.scored();
    let rankings = run.ranking(sample).map(|theirs| [OneVsRest::gold_among(sample, &scored), theirs]);
    let texts = sample.verbalized().to_vec();
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    if let Some(rankings) = &rankings {
        pairs.push(Pair::new("auroc", scored.len(), rankings.each_ref(), OneVsRest::macro_auroc));
    }
    pairs.push(Pair::new("balanced_accuracy", sample.len(), called, Called::balanced_accuracy));
    pairs.push(Pair::new("macro.f1", sample.len(), called, Called::macro_f1));
    if written && !sample.is_silent() {
        let rate = |calls: &ClassAnswers, weights: &[u32]| -> ClassOutcome {
            parsable::rate(calls, false, weights).map_err(|why| (NAMELESS, why))
        };
        pairs.push(Pair::new("parsable", sample.len(), [&texts, &run.calls], rate));
    }
    let mut compared = paired::bootstrap(sample, names, &pairs, options);
    compared.insert(usize::from(rankings.is_some()), paired::accuracy(called, options));
    compared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::multiclass::Row;

    fn names() -> [String; 3] {
        ["a", "b", "c"].map(String::from)
    }

    fn sample() -> Sample {
        let rows =
            [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]];
        let row = |i: usize| Row { probabilities: &rows[i], label: (i / 2) as u8, verbalized: None, group: None };
        Sample::new(3, (0..6).map(row)).unwrap()
    }

    /// A run that gives its class 0.6 and the others 0.2.
    fn run(calls: [Option<u8>; 6]) -> MethodRun {
        let probabilities = |class: u8| (0..3).map(|k| if k == class { 0.6 } else { 0.2 }).collect();
        MethodRun { calls: calls.to_vec(), probabilities: calls.iter().map(|call| call.map(probabilities)).collect() }
    }

    #[test]
    fn auroc_is_over_the_answered_and_a_mean_that_leaves_out_a_run_says_so() {
        let first = run([Some(0), Some(1), Some(1), None, Some(2), Some(2)]);
        // Nothing of class c is answered.
        let second = run([Some(0), Some(0), Some(1), Some(1), None, None]);
        let one = measure(&sample(), &names(), std::slice::from_ref(&first), true, &Options::default());
        // a: 0.6 and 0.2 against three of 0.2. b: 0.6 against 0.6 and three of 0.2. c: both above all others.
        let want = (4.5 / 6.0 + 3.5 / 4.0 + 1.0) / 3.0;
        assert!((one.auroc.value.unwrap() - want).abs() < 1e-15, "{one:?}");
        assert_eq!((one.auroc.n, one.averages.accuracy.value), (5, Some(4.0 / 6.0)));
        let both = measure(&sample(), &names(), &[first, second], true, &Options::default());
        assert_eq!((both.auroc.value, both.auroc.n), (one.auroc.value, 6));
        let reason = both.auroc.reason.unwrap();
        assert!(reason.starts_with("mean over 1 of 2 runs: the others are undefined, class c: "), "{reason}");
        assert_eq!(both.parsable.value, Some((5.0 / 6.0 + 4.0 / 6.0) / 2.0));
    }

    #[test]
    fn a_method_without_probabilities_is_compared_by_its_calls() {
        let calls = vec![Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)];
        let right = MethodRun { calls, probabilities: vec![None; 6] };
        let found = compare(&sample(), &names(), &right, false, &Options { bootstrap: 300, ..Options::default() });
        let metrics: Vec<&str> = found.iter().map(|comparison| comparison.metric.as_str()).collect();
        assert_eq!(metrics, ["accuracy", "balanced_accuracy", "macro.f1"]);
        // The model errs on records 1 and 3, the method on none: 0 against 2 discordant pairs.
        assert_eq!((found[0].difference.value, found[0].p_value), (Some(-2.0 / 6.0), Some(0.5)));
        assert!((found[1].difference.value.unwrap() + 1.0 / 3.0).abs() < 1e-15, "recalls of 1/2, 1/2, 1 and of 1");
    }

    #[test]
    fn the_model_against_itself_does_not_differ() {
        let sample = sample();
        let probabilities = sample.rows().map(|row| Some(row.to_vec())).collect();
        let itself = MethodRun { calls: sample.calls(), probabilities };
        let found = compare(&sample, &names(), &itself, true, &Options { bootstrap: 300, ..Options::default() });
        assert_eq!(found[0].metric, "auroc");
        for comparison in found.iter().filter(|comparison| comparison.metric != "parsable") {
            assert_eq!((comparison.difference.value, comparison.p_value), (Some(0.0), Some(1.0)), "{comparison:?}");
        }
        assert_eq!(found.last().unwrap().difference.value, Some(-1.0), "the model's texts name no class");
    }

    #[test]
    fn a_method_that_says_nothing_is_wrong_throughout() {
        let silent = run([None; 6]);
        let measured = measure(&sample(), &names(), std::slice::from_ref(&silent), true, &Options::default());
        assert_eq!(measured.auroc.reason.as_deref(), Some("no answer could be parsed"));
        assert_eq!((measured.averages.accuracy.value, measured.averages.macro_mean.f1.value), (Some(0.0), Some(0.0)));
        let found = compare(&sample(), &names(), &silent, true, &Options::default());
        assert_eq!(found[0].difference.value, Some(4.0 / 6.0));
    }
}
