//! Other methods on the same records: their metrics over runs, and each against the model, paired.
//!
//! A method answers a record with a call and, where it has one, a score; an unparsable answer is left out of F1, precision,
//! recall and AUROC and lowers the parsable rate. Over several runs each number is the mean over the runs; its interval
//! resamples records (clusters), the runs held fixed. Against the model a method enters by its first run.

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    classification::Confusion,
    delong,
    ranking::Ranking,
    significance::mcnemar,
};

/// What a method says of one record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Ranks records for AUROC; a probability or a share of votes.
    pub score: Option<f64>,
    /// Whether it calls the record positive.
    pub call: bool,
}

/// One run of a method: an answer a record, in the records' order; `None` where it is unparsable.
pub type Answers = Vec<Option<Answer>>;

/// A method's metrics: means over its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// AUROC of the scores.
    pub auroc: Metric,
    /// F1 of the calls.
    pub f1: Metric,
    /// Precision of the calls.
    pub precision: Metric,
    /// Recall of the calls.
    pub recall: Metric,
    /// Share of parsable answers.
    pub parsable: Metric,
}

impl MethodMetrics {
    /// Each metric with its key in the paper's tables.
    pub fn named(&self) -> [(&'static str, &Metric); 5] {
        [("auroc", &self.auroc), ("f1", &self.f1), ("precision", &self.precision), ("recall", &self.recall), ("parsable", &self.parsable)]
    }
}

/// Why a method has no AUROC.
const NO_SCORE: &str = "the method gives no score";

/// A run's scores in order, over the records that have one.
fn ranking(answers: &Answers) -> Option<Ranking> {
    let scores: Vec<f64> = answers.iter().map(|answer| answer.and_then(|answer| answer.score).unwrap_or(f64::NAN)).collect();
    let scored: Vec<u32> = (0..scores.len() as u32).filter(|&i| !scores[i as usize].is_nan()).collect();
    (!scored.is_empty()).then(|| Ranking::of(&scores, scored))
}

fn calls(sample: &Sample, answers: &Answers, weights: &[u32]) -> Confusion {
    let rows = answers.iter().zip(sample.labels()).zip(weights);
    Confusion::count(rows.filter_map(|((answer, &label), &weight)| answer.map(|answer| (label, answer.call, weight))))
}

/// The mean over the runs in which the statistic is defined.
fn mean(values: impl Iterator<Item = Outcome>) -> Outcome {
    let (mut sum, mut count, mut reason) = (0.0, 0, "no run");
    for value in values {
        match value {
            Ok(value) => (sum, count) = (sum + value, count + 1),
            Err(why) => reason = why,
        }
    }
    if count == 0 { Err(reason) } else { Ok(sum / f64::from(count)) }
}

/// Metrics of `runs` on the records of `sample`. `written` says that an answer may be unparsable.
pub fn measure(sample: &Sample, runs: &[Answers], written: bool, options: &Options) -> MethodMetrics {
    let rankings: Vec<Option<Ranking>> = runs.iter().map(ranking).collect();
    let n = |has: fn(&Answer) -> bool| {
        // Records that some run answers.
        (0..sample.len()).filter(|&i| runs.iter().any(|run| run[i].as_ref().is_some_and(has))).count()
    };
    let (scored, answered) = (n(|answer| answer.score.is_some()), n(|_| true));
    let over_calls = |statistic: fn(&Confusion) -> Outcome| {
        Statistic::new(answered, move |weights: &[u32]| mean(runs.iter().map(|run| statistic(&calls(sample, run, weights)))))
    };
    let statistics = [
        Statistic::new(scored, |weights: &[u32]| {
            mean(rankings.iter().map(|ranking| match ranking {
                Some(ranking) => ranking.auroc(sample.labels(), weights),
                None => Err(NO_SCORE),
            }))
        }),
        over_calls(Confusion::f1),
        over_calls(Confusion::precision),
        over_calls(Confusion::recall),
        Statistic::new(sample.len(), |weights: &[u32]| {
            if !written {
                return Err("the method writes nothing");
            }
            mean(runs.iter().map(|run| {
                let part = |keep: fn(&Option<Answer>) -> bool| {
                    run.iter().zip(weights).filter(|(answer, _)| keep(answer)).fold(0.0, |sum, (_, &weight)| sum + f64::from(weight))
                };
                let all = part(|_| true);
                if all > 0.0 { Ok(part(Option::is_some) / all) } else { Err("no record") }
            }))
        }),
    ];
    let mut measured = Resampler::new(sample, options.seed).measure(&statistics, options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    MethodMetrics { auroc: next(), f1: next(), precision: next(), recall: next(), parsable: next() }
}

/// Model minus method on the records that both answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// `auroc`, `f1` or `accuracy`.
    pub metric: String,
    /// The difference, its interval, and the records it is over.
    pub difference: Metric,
    /// Two-sided p-value of no difference.
    pub p_value: Option<f64>,
    /// The test.
    pub test: String,
}

/// The model (its probability, called at 0.5) against one run of a method: AUROC by DeLong's paired test, F1 by the paired bootstrap,
/// right and wrong calls by McNemar's exact test.
pub fn compare(sample: &Sample, run: &Answers, options: &Options) -> Vec<Comparison> {
    [delong_difference(sample, run), f1_difference(sample, run, options), accuracy_difference(sample, run, options)]
        .into_iter()
        .flatten()
        .collect()
}

fn delong_difference(sample: &Sample, run: &Answers) -> Option<Comparison> {
    let rows: Vec<(usize, f64)> =
        run.iter().enumerate().filter_map(|(i, answer)| Some((i, answer.and_then(|answer| answer.score)?))).collect();
    let column = |pick: &dyn Fn(usize) -> f64| rows.iter().map(|&(i, _)| pick(i)).collect::<Vec<_>>();
    let (model, method) = (column(&|i| sample.probabilities()[i]), rows.iter().map(|row| row.1).collect::<Vec<_>>());
    let labels: Vec<bool> = rows.iter().map(|&(i, _)| sample.labels()[i]).collect();
    let clusters: Vec<u32> = rows.iter().map(|&(i, _)| sample.clusters()[i]).collect();
    if rows.is_empty() {
        return None;
    }
    let difference = delong::paired(&model, &method, &labels, &clusters, sample.cluster_count());
    let metric = match difference {
        Some(difference) => Metric::new(Ok(difference.value), rows.len()).with_ci95(Some(difference.ci95())),
        None => Metric::undefined("fewer than two groups of a class", rows.len()),
    };
    Some(Comparison { metric: "auroc".into(), difference: metric, p_value: difference.map(|d| d.p_value), test: "DeLong".into() })
}

/// The model's call of record i at 0.5.
fn model_call(sample: &Sample, i: usize) -> bool {
    sample.probabilities()[i] >= 0.5
}

/// The model's calls on the records that the run answers.
fn model_table(sample: &Sample, run: &Answers, weights: &[u32]) -> Confusion {
    let rows = (0..sample.len()).filter(|&i| run[i].is_some());
    Confusion::count(rows.map(|i| (sample.labels()[i], model_call(sample, i), weights[i])))
}

fn f1_difference(sample: &Sample, run: &Answers, options: &Options) -> Option<Comparison> {
    let n = run.iter().flatten().count();
    let statistic = Statistic::new(n, |weights: &[u32]| Ok(model_table(sample, run, weights).f1()? - calls(sample, run, weights).f1()?));
    let (difference, p_value) = Resampler::new(sample, options.seed).difference(&statistic, options.bootstrap);
    let p_value = difference.value.and(p_value);
    (n > 0).then(|| Comparison { metric: "f1".into(), difference, p_value, test: "paired bootstrap".into() })
}

fn accuracy_difference(sample: &Sample, run: &Answers, options: &Options) -> Option<Comparison> {
    let n = run.iter().flatten().count();
    let (mut only_model, mut only_method) = (0, 0);
    for (i, answer) in run.iter().enumerate() {
        let Some(answer) = answer else { continue };
        let (model, method) = (model_call(sample, i) == sample.labels()[i], answer.call == sample.labels()[i]);
        only_model += u64::from(model && !method);
        only_method += u64::from(method && !model);
    }
    let statistic =
        Statistic::new(n, |weights: &[u32]| Ok(model_table(sample, run, weights).accuracy()? - calls(sample, run, weights).accuracy()?));
    let difference = Resampler::new(sample, options.seed).measure(&[statistic], options.bootstrap).into_iter().next()?;
    (n > 0).then(|| Comparison {
        metric: "accuracy".into(),
        difference,
        p_value: Some(mcnemar(only_model, only_method)),
        test: "McNemar, exact".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let mut sample = Sample::new();
        for (probability, label) in [(0.9, true), (0.2, false), (0.7, true), (0.4, false), (0.6, false), (0.3, true)] {
            sample.push(probability, label, None, None);
        }
        sample
    }

    fn run(calls: [Option<(f64, bool)>; 6]) -> Answers {
        calls.into_iter().map(|call| call.map(|(score, call)| Answer { score: Some(score), call })).collect()
    }

    #[test]
    fn means_over_runs_leave_out_what_is_unparsable() {
        let first = run([Some((0.9, true)), Some((0.1, false)), None, Some((0.8, true)), None, Some((0.5, true))]);
        let second = run([Some((0.2, false)), Some((0.1, false)), Some((0.9, true)), Some((0.3, false)), Some((0.4, false)), None]);
        let metrics = measure(&sample(), &[first, second], true, &Options::default());
        // Run 1: records 0, 1, 3, 5: TP 2, FP 1, FN 0. Run 2: records 0 to 4: TP 1, FP 0, FN 1.
        assert_eq!(metrics.precision.value, Some((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!(metrics.recall.value, Some((1.0 + 0.5) / 2.0));
        assert_eq!(metrics.parsable.value, Some((4.0 / 6.0 + 5.0 / 6.0) / 2.0));
        // AUROC of run 1: positives .9 .5, negatives .1 .8: 3 of 4 pairs; run 2: positives .2 .9, negatives .1 .3 .4: 4 of 6.
        assert!((metrics.auroc.value.unwrap() - (3.0 / 4.0 + 4.0 / 6.0) / 2.0).abs() < 1e-15);
        assert_eq!((metrics.auroc.n, metrics.f1.n), (6, 6));
    }

    #[test]
    fn a_method_without_scores_has_no_auroc_and_the_reason_is_said() {
        let calls: Answers = sample().labels().iter().map(|&call| Some(Answer { score: None, call })).collect();
        let metrics = measure(&sample(), std::slice::from_ref(&calls), false, &Options::default());
        assert_eq!((metrics.auroc.value, metrics.auroc.reason.as_deref()), (None, Some(NO_SCORE)));
        assert_eq!((metrics.f1.value, metrics.parsable.value), (Some(1.0), None));
        let compared = compare(&sample(), &calls, &Options { bootstrap: 50, ..Options::default() });
        assert_eq!(compared.iter().map(|c| c.metric.as_str()).collect::<Vec<_>>(), ["f1", "accuracy"]);
        // The model errs on records 4 and 5, the method on none: 0 against 2 discordant pairs.
        assert_eq!((compared[1].p_value, compared[1].difference.value), (Some(0.5), Some(4.0 / 6.0 - 1.0)));
    }

    #[test]
    fn the_model_against_itself_does_not_differ() {
        let sample = sample();
        let itself: Answers = sample.probabilities().iter().map(|&p| Some(Answer { score: Some(p), call: p >= 0.5 })).collect();
        for comparison in compare(&sample, &itself, &Options { bootstrap: 50, ..Options::default() }) {
            assert_eq!((comparison.difference.value, comparison.p_value), (Some(0.0), Some(1.0)), "{comparison:?}");
        }
    }
}
