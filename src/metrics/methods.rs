//! Other methods on the same records: their metrics over runs, and each against the model, paired.
//!
//! A method answers a record with a call and, where it has one, a score. F1, precision and recall are over all records:
//! an answer that cannot be parsed is no positive call, and its gold label still counts. AUROC is over the records that
//! are answered. Over several runs each number is the mean over the runs; its interval resamples records (clusters),
//! the runs held fixed. Against the model a method enters by its first run.

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Interval, Resampler, Statistic},
    classification::Confusion,
    comparison::Comparison,
    delong,
    paired::auroc_without_interval,
    ranking::Ranking,
    shared::gold_table,
};

/// What a method says of one record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinaryAnswer {
    /// Ranks records for AUROC; a probability or a share of votes.
    pub score: Option<f64>,
    /// Whether it calls the record positive.
    pub call: bool,
}

/// One run of a method: an answer a record, in the records' order; `None` where it is unparsable.
pub type BinaryAnswers = Vec<Option<BinaryAnswer>>;

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
        [
            ("auroc", &self.auroc),
            ("f1", &self.f1),
            ("precision", &self.precision),
            ("recall", &self.recall),
            ("parsable", &self.parsable),
        ]
    }
}

impl MethodMetrics {
    /// Gives every mean that leaves out some of the runs, `each` measured alone, the reason that says so.
    pub fn note_undefined(&mut self, each: &[Self]) {
        let metrics = [&mut self.auroc, &mut self.f1, &mut self.precision, &mut self.recall, &mut self.parsable];
        for (i, metric) in metrics.into_iter().enumerate() {
            let mut reasons = each.iter().map(|run| run.named()[i].1).filter(|run| run.value.is_none());
            let Some(first) = reasons.next().filter(|_| metric.value.is_some()) else { continue };
            let left_out = 1 + reasons.count();
            let why = first.reason.as_deref().unwrap_or("undefined");
            note_left_out(metric, left_out, each.len(), why);
        }
    }
}

/// Says that a mean over `runs` runs leaves out so many, undefined.
pub(super) fn note_left_out(metric: &mut Metric, left_out: usize, runs: usize, why: &str) {
    metric.add_reason(&format!("mean over {} of {runs} runs: the others are undefined, {why}", runs - left_out));
}

/// Why a method has no AUROC.
const NO_SCORE: &str = "the method gives no score";
const NO_ANSWER: &str = "no answer could be parsed";
/// Why a method that writes nothing has no parsable rate.
pub(super) const NOTHING_WRITTEN: &str = "the method writes nothing";

/// Why a method of which no record has a score has no AUROC.
pub(super) fn unscored(answered: bool) -> &'static str {
    if answered { NO_SCORE } else { NO_ANSWER }
}

/// A run's scores in order, over the records that have one.
fn ranking(answers: &BinaryAnswers) -> Option<Ranking> {
    let scores: Vec<f64> =
        answers.iter().map(|answer| answer.and_then(|answer| answer.score).unwrap_or(f64::NAN)).collect();
    let scored: Vec<u32> = (0..scores.len() as u32).filter(|&i| !scores[i as usize].is_nan()).collect();
    (!scored.is_empty()).then(|| Ranking::of(&scores, scored))
}

/// A run's calls over all records: what cannot be parsed is no positive call.
fn calls(sample: &Sample, answers: &BinaryAnswers, weights: &[u32]) -> Confusion {
    let rows = answers.iter().zip(sample.labels()).zip(weights);
    Confusion::count(rows.map(|((answer, &label), &weight)| (label, is_call(answer), weight)))
}

fn is_call(answer: &Option<BinaryAnswer>) -> bool {
    answer.is_some_and(|answer| answer.call)
}

/// The parsable rate of a run.
fn parsable(answers: &BinaryAnswers, weights: &[u32]) -> Outcome {
    let part = |keep: fn(&Option<BinaryAnswer>) -> bool| {
        answers
            .iter()
            .zip(weights)
            .filter(|(answer, _)| keep(answer))
            .fold(0.0, |sum, (_, &weight)| sum + f64::from(weight))
    };
    let all = part(|_| true);
    if all > 0.0 { Ok(part(Option::is_some) / all) } else { Err("no record") }
}

/// The mean over the runs in which the statistic is defined; [`MethodMetrics::note_undefined`] says that there are
/// others.
pub(super) fn mean(values: impl Iterator<Item = Outcome>) -> Outcome {
    let mut sum = 0.0;
    let mut count = 0;
    let mut reason = "no run";
    for value in values {
        match value {
            Ok(value) => (sum, count) = (sum + value, count + 1),
            Err(why) => reason = why,
        }
    }
    if count == 0 { Err(reason) } else { Ok(sum / f64::from(count)) }
}

/// Metrics of `runs` on the records of `sample`. `written` says that an answer may be unparsable.
pub fn measure(sample: &Sample, runs: &[BinaryAnswers], written: bool, options: &Options) -> MethodMetrics {
    let rankings: Vec<Option<Ranking>> = runs.iter().map(ranking).collect();
    // Records to whose AUROC some run adds.
    let scored = (0..sample.len())
        .filter(|&i| runs.iter().any(|run| run[i].is_some_and(|answer| answer.score.is_some())))
        .count();
    let unscored = unscored(runs.iter().flatten().any(Option::is_some));
    let over_calls = |statistic: fn(&Confusion) -> Outcome| {
        Statistic::new(sample.len(), move |weights: &[u32]| {
            mean(runs.iter().map(|run| statistic(&calls(sample, run, weights))))
        })
    };
    let called = runs.iter().map(|run| sample.clusters_among(|i| is_call(&run[i]))).filter(|&clusters| clusters > 0);
    let statistics = [
        Statistic::new(scored, |weights: &[u32]| {
            mean(rankings.iter().map(|ranking| match ranking {
                Some(ranking) => ranking.auroc(sample.labels(), weights),
                None => Err(unscored),
            }))
        }),
        over_calls(Confusion::f1),
        // Of several runs, the one that calls the fewest clusters tells least.
        over_calls(Confusion::precision).proportion_of(called.min().unwrap_or(0)),
        over_calls(Confusion::recall).proportion_of(sample.clusters_among(|i| sample.labels()[i])),
        Statistic::new(sample.len(), |weights: &[u32]| {
            if written { mean(runs.iter().map(|run| parsable(run, weights))) } else { Err(NOTHING_WRITTEN) }
        })
        .proportion_of(sample.cluster_count()),
    ];
    let mut measured = Resampler::new(sample, options.seed).measure(&statistics, options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    let mut auroc = next();
    // Runs that all say the same are one.
    if let Some((run, others)) = runs.split_first()
        && others.iter().all(|other| other == run)
        && auroc.value.is_some()
    {
        auroc = Metric::new(auroc.value.ok_or(unscored), scored).with_interval(delong_interval(sample, run));
    }
    MethodMetrics { auroc, f1: next(), precision: next(), recall: next(), parsable: next() }
}

/// DeLong's interval of one run's AUROC, or Obuchowski's of records in groups: as the model's own has it.
fn delong_interval(sample: &Sample, run: &BinaryAnswers) -> Interval {
    let rows: Vec<(usize, f64)> =
        run.iter().enumerate().filter_map(|(i, answer)| Some((i, answer.and_then(|answer| answer.score)?))).collect();
    let scores: Vec<f64> = rows.iter().map(|row| row.1).collect();
    let labels: Vec<bool> = rows.iter().map(|&(i, _)| sample.labels()[i]).collect();
    let clusters: Vec<u32> = rows.iter().map(|&(i, _)| sample.clusters()[i]).collect();
    let area = delong::auroc(&scores, &labels, &clusters, sample.cluster_count());
    area.map_or(Err(delong::undefined(&labels)), |area| area.interval())
}

/// The model (its probability, called at 0.5) against one run of a method: AUROC by DeLong's paired test on the records
/// that the run scores; F1, precision, recall and, where the run is `written`, the parsable rate by the paired
/// bootstrap, right and wrong calls by McNemar's exact test or its sign-flip over groups, on all records.
pub fn compare(sample: &Sample, run: &BinaryAnswers, written: bool, options: &Options) -> Vec<Comparison> {
    let mut compared: Vec<Comparison> = delong_difference(sample, run).into_iter().collect();
    if !run.is_empty() {
        compared.extend(bootstrap_differences(sample, run, written && !sample.is_silent(), options));
        compared.push(accuracy_difference(sample, run, options));
    }
    compared
}

fn delong_difference(sample: &Sample, run: &BinaryAnswers) -> Option<Comparison> {
    let rows: Vec<(usize, f64)> =
        run.iter().enumerate().filter_map(|(i, answer)| Some((i, answer.and_then(|answer| answer.score)?))).collect();
    let column = |pick: &dyn Fn(usize) -> f64| rows.iter().map(|&(i, _)| pick(i)).collect::<Vec<_>>();
    let model = column(&|i| sample.probabilities()[i]);
    let method = rows.iter().map(|row| row.1).collect::<Vec<_>>();
    let labels: Vec<bool> = rows.iter().map(|&(i, _)| sample.labels()[i]).collect();
    let clusters: Vec<u32> = rows.iter().map(|&(i, _)| sample.clusters()[i]).collect();
    if rows.is_empty() {
        return None;
    }
    let difference = delong::paired(&model, &method, &labels, &clusters, sample.cluster_count());
    let metric = match difference {
        Some(difference) => Metric::new(Ok(difference.value), rows.len()).with_interval(difference.interval()),
        None => auroc_without_interval(&model, &method, &labels),
    };
    Some(Comparison {
        metric: "auroc".into(),
        difference: metric,
        p_value: difference.and_then(|d| d.p_value()),
        test: "DeLong".into(),
    })
}

/// The model's call of record i at 0.5.
fn model_call(sample: &Sample, i: usize) -> bool {
    sample.probabilities()[i] >= 0.5
}

fn bootstrap_differences(
    sample: &Sample,
    run: &BinaryAnswers,
    written: bool,
    options: &Options,
) -> impl Iterator<Item = Comparison> {
    let n = sample.len();
    let of_calls = |statistic: fn(&Confusion) -> Outcome| {
        Statistic::new(n, move |weights: &[u32]| {
            Ok(statistic(&gold_table(sample, 0.5, weights))? - statistic(&calls(sample, run, weights))?)
        })
    };
    let mut statistics = vec![of_calls(Confusion::f1), of_calls(Confusion::precision), of_calls(Confusion::recall)];
    if written {
        let own: BinaryAnswers =
            sample.verbalized().iter().map(|label| label.map(|call| BinaryAnswer { score: None, call })).collect();
        statistics
            .push(Statistic::new(n, move |weights: &[u32]| Ok(parsable(&own, weights)? - parsable(run, weights)?)));
    }
    let measured = Resampler::new(sample, options.seed).differences(&statistics, options.bootstrap);
    let metrics = ["f1", "precision", "recall", "parsable"].into_iter();
    metrics.zip(measured).map(|(metric, measured)| Comparison::of_resamples(metric, measured))
}

/// Whether the run is right of record i; an answer that cannot be parsed is not.
fn is_right(sample: &Sample, run: &BinaryAnswers, i: usize) -> bool {
    run[i].is_some_and(|answer| answer.call == sample.labels()[i])
}

fn accuracy_difference(sample: &Sample, run: &BinaryAnswers, options: &Options) -> Comparison {
    let of_record: Vec<i64> = (0..sample.len())
        .map(|i| i64::from(model_call(sample, i) == sample.labels()[i]) - i64::from(is_right(sample, run, i)))
        .collect();
    let resampler = Resampler::new(sample, options.seed);
    Comparison::of_right_calls(&of_record, sample.grouping(), &resampler, options.bootstrap)
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

    fn run(calls: [Option<(f64, bool)>; 6]) -> BinaryAnswers {
        calls.into_iter().map(|call| call.map(|(score, call)| BinaryAnswer { score: Some(score), call })).collect()
    }

    #[test]
    fn means_over_runs_count_what_is_unparsable_as_no_positive_call() {
        let first = run([Some((0.9, true)), Some((0.1, false)), None, Some((0.8, true)), None, Some((0.5, true))]);
        let second = run([
            Some((0.2, false)),
            Some((0.1, false)),
            Some((0.9, true)),
            Some((0.3, false)),
            Some((0.4, false)),
            None,
        ]);
        let metrics = measure(&sample(), &[first, second], true, &Options::default());
        // Positives are 0, 2, 5. Run 1: TP 0, 5, FP 3, FN 2. Run 2: TP 2, FN 0, 5.
        assert_eq!(metrics.precision.value, Some((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!(metrics.recall.value, Some((2.0 / 3.0 + 1.0 / 3.0) / 2.0));
        assert_eq!(metrics.parsable.value, Some((4.0 / 6.0 + 5.0 / 6.0) / 2.0));
        // AUROC of run 1: positives .9 .5, negatives .1 .8: 3 of 4 pairs; run 2: positives .2 .9, negatives .1 .3 .4: 4
        // of 6.
        assert!((metrics.auroc.value.unwrap() - (3.0 / 4.0 + 4.0 / 6.0) / 2.0).abs() < 1e-15);
        assert_eq!((metrics.auroc.n, metrics.f1.n), (6, 6));
    }

    #[test]
    fn a_mean_that_leaves_out_a_run_says_so() {
        let defined = run([Some((0.9, true)), Some((0.1, false)), None, Some((0.8, true)), None, Some((0.5, true))]);
        let runs = [defined, run([Some((0.2, false)); 6])];
        let each = runs.each_ref().map(|run| measure(&sample(), std::slice::from_ref(run), true, &Options::default()));
        let mut metrics = measure(&sample(), &runs, true, &Options::default());
        metrics.note_undefined(&each);
        assert_eq!(metrics.precision.value, Some(2.0 / 3.0));
        let reason = metrics.precision.reason.as_deref().unwrap();
        assert!(reason.starts_with("mean over 1 of 2 runs: the others are undefined, "), "{reason}");
        assert_eq!(metrics.recall.value, Some(1.0 / 3.0));
        assert!(!metrics.recall.reason.unwrap().contains("runs:"));
    }

    #[test]
    fn a_method_without_scores_has_no_auroc_and_the_reason_is_said() {
        let calls: BinaryAnswers =
            sample().labels().iter().map(|&call| Some(BinaryAnswer { score: None, call })).collect();
        let metrics = measure(&sample(), std::slice::from_ref(&calls), false, &Options::default());
        assert_eq!((metrics.auroc.value, metrics.auroc.reason.as_deref()), (None, Some(NO_SCORE)));
        assert_eq!((metrics.f1.value, metrics.parsable.value), (Some(1.0), None));
        let compared = compare(&sample(), &calls, false, &Options { bootstrap: 300, ..Options::default() });
        assert_eq!(
            compared.iter().map(|c| c.metric.as_str()).collect::<Vec<_>>(),
            ["f1", "precision", "recall", "accuracy"]
        );
        // The model errs on records 4 and 5, the method on none: 0 against 2 discordant pairs.
        assert_eq!((compared[3].p_value, compared[3].difference.value), (Some(0.5), Some(-2.0 / 6.0)));
        assert!(compared.iter().all(|c| c.p_value.is_some()), "{compared:?}");
    }

    #[test]
    fn the_model_against_itself_does_not_differ() {
        let sample = sample();
        let itself: BinaryAnswers =
            sample.probabilities().iter().map(|&p| Some(BinaryAnswer { score: Some(p), call: p >= 0.5 })).collect();
        for comparison in compare(&sample, &itself, false, &Options { bootstrap: 300, ..Options::default() }) {
            assert_eq!((comparison.difference.value, comparison.p_value), (Some(0.0), Some(1.0)), "{comparison:?}");
        }
    }
}
