//! Every metric over one set of predictions, measured on the same resamples.

use super::{
    Calls, Evaluation, KappaCall, Metric, Options, Outcome, Sample, TunedCalls,
    bootstrap::{Resampler, Statistic},
    calibration,
    classification::Confusion,
    decision::Confidence,
    evaluation::{Calibration, Judge},
    parsable,
    ranking::Ranking,
    shared::{delong_auroc, gold_table, in_sample, no_threshold, nothing_parsable},
    threshold::{Costs, Thresholds},
};

/// Statistics in the order they are asked for, measured together so that every one sees the same resamples.
struct StatisticSet<'a> {
    sample: &'a Sample,
    statistics: Vec<Statistic<'a>>,
    handles: usize,
}

/// Where a statistic stands in the set.
#[derive(Clone, Copy)]
struct StatisticHandle(usize);

impl<'a> StatisticSet<'a> {
    fn new(sample: &'a Sample) -> Self {
        Self { sample, statistics: Vec::new(), handles: 0 }
    }

    fn add(&mut self, n: usize, compute: impl Fn(&[u32]) -> Outcome + Sync + 'a) -> StatisticHandle {
        let [handle] = self.several(n, move |weights| [compute(weights)]);
        handle
    }

    /// A statistic of the calls against gold that is a share of the records that `among` picks.
    fn share(
        &mut self,
        threshold: f64,
        statistic: impl Fn(&Confusion) -> Outcome + Sync + 'a,
        among: impl Fn(bool, bool) -> bool,
    ) -> StatisticHandle {
        let sample = self.sample;
        let clusters = sample.clusters_among(|i| among(sample.labels()[i], sample.probabilities()[i] >= threshold));
        let handle = self.calls(threshold, statistic);
        self.proportion(handle, clusters)
    }

    /// Says that the statistic just added is a proportion over so many clusters.
    fn proportion(&mut self, handle: StatisticHandle, clusters: usize) -> StatisticHandle {
        if let Some(last) = self.statistics.pop() {
            self.statistics.push(last.proportion_of(clusters));
        }
        handle
    }

    fn several<const N: usize>(
        &mut self,
        n: usize,
        compute: impl Fn(&[u32]) -> [Outcome; N] + Sync + 'a,
    ) -> [StatisticHandle; N] {
        let first = self.handles;
        self.handles += N;
        self.statistics.push(Statistic::several(n, compute));
        std::array::from_fn(|k| StatisticHandle(first + k))
    }

    /// A statistic of the calls against gold.
    fn calls(&mut self, threshold: f64, statistic: impl Fn(&Confusion) -> Outcome + Sync + 'a) -> StatisticHandle {
        let sample = self.sample;
        self.add(sample.len(), move |weights| statistic(&gold_table(sample, threshold, weights)))
    }

    /// κ of the calls and the verbalized labels.
    fn kappa(&mut self, n: usize, threshold: f64) -> StatisticHandle {
        let sample = self.sample;
        self.add(n, move |weights| match n {
            0 => Err(nothing_parsable(sample)),
            _ => verbalized_table(sample, threshold, weights).kappa(),
        })
    }

    /// The parsable rate.
    fn parsable(&mut self) -> StatisticHandle {
        let sample = self.sample;
        let rate = move |weights: &[u32]| parsable::rate(sample.verbalized(), sample.is_silent(), weights);
        let handle = self.add(sample.len(), rate);
        self.proportion(handle, sample.cluster_count())
    }
}

/// A record as the calibration statistics read it. Sorted and taken to the logit scale once, not in every resample.
struct Row {
    record: usize,
    probability: f64,
    logit: f64,
    label: bool,
}

fn ascending(sample: &Sample) -> Vec<Row> {
    let rows = sample.probabilities().iter().zip(sample.labels()).enumerate();
    let mut rows: Vec<Row> = rows
        .map(|(record, (&probability, &label))| Row {
            record,
            probability,
            logit: calibration::logit(probability),
            label,
        })
        .collect();
    rows.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    rows
}

/// Calls against verbalized labels, over the parsable records.
pub(super) fn verbalized_table(sample: &Sample, threshold: f64, weights: &[u32]) -> Confusion {
    let rows = sample.probabilities().iter().zip(sample.verbalized()).zip(weights);
    Confusion::count(
        rows.filter_map(|((&probability, &label), &weight)| {
            label.map(|label| (label, probability >= threshold, weight))
        }),
    )
}

/// Slots of [`Calls`].
struct CallHandles {
    threshold: f64,
    f1: StatisticHandle,
    precision: StatisticHandle,
    recall: StatisticHandle,
    specificity: StatisticHandle,
    cost: StatisticHandle,
}

impl CallHandles {
    fn add(set: &mut StatisticSet<'_>, threshold: f64, costs: Costs) -> Self {
        Self {
            threshold,
            f1: set.calls(threshold, Confusion::f1),
            precision: set.share(threshold, Confusion::precision, |_, call| call),
            recall: set.share(threshold, Confusion::recall, |label, _| label),
            specificity: set.share(threshold, Confusion::specificity, |label, _| !label),
            cost: set.calls(threshold, move |table| costs.mean(table)),
        }
    }
}

/// Computes every metric of `sample`, at `thresholds` where dev gave them.
pub fn evaluate(sample: &Sample, thresholds: Option<&Thresholds>, options: &Options) -> Evaluation {
    let parsable = sample.parsable();
    let spoken: Vec<bool> = sample.verbalized().iter().map(|label| *label == Some(true)).collect();
    let gold_ranking = Ranking::new(sample.probabilities());
    let confidence = Confidence::new(sample.probabilities(), sample.labels());
    let order = ascending(sample);
    let mut set = StatisticSet::new(sample);
    let aurc = set.add(sample.len(), |weights| confidence.aurc(weights));
    let auprc = set.add(sample.len(), |weights| gold_ranking.average_precision(sample.labels(), weights));
    let parsable_rate = set.parsable();
    let default = CallHandles::add(&mut set, 0.5, options.costs);
    let default_kappa = set.kappa(parsable.len(), 0.5);
    let tuned = thresholds.map(|tuned| {
        let calls = [tuned.f1, tuned.youden, tuned.cost]
            .map(|t| t.map(|t| CallHandles::add(&mut set, t.threshold, options.costs)));
        (
            calls,
            tuned.kappa.map(|t| (t.threshold, set.kappa(parsable.len(), t.threshold))),
            tuned.reasons.map(no_threshold),
        )
    });
    let calibration = calibration_handles(&mut set, &order, options.bins);

    let measured = Resampler::new(sample, options.seed).measure(&set.statistics, options.bootstrap);
    let take = |handle: StatisticHandle| measured[handle.0].clone();
    let note = |metric: Metric| if options.in_sample { in_sample(metric, "the threshold was tuned") } else { metric };
    let calls = |handles: &CallHandles, note: &dyn Fn(Metric) -> Metric| Calls {
        threshold: Some(handles.threshold),
        f1: note(take(handles.f1)),
        precision: note(take(handles.precision)),
        recall: note(take(handles.recall)),
        specificity: note(take(handles.specificity)),
        kappa: None,
        cost: Some(note(take(handles.cost))),
    };
    let tuned_calls = |handles: &Option<CallHandles>, reason: &str| match handles {
        Some(handles) => calls(handles, &note),
        None => untuned(sample.len(), reason),
    };
    Evaluation {
        schema: 1,
        n: sample.len(),
        dev_overlap: 0,
        auroc: delong_auroc(sample, sample.labels(), None),
        auprc: take(auprc),
        aurc: take(aurc),
        default: Calls { kappa: Some(take(default_kappa)), ..calls(&default, &|metric| metric) },
        tuned: tuned.as_ref().map(|([f1, youden, cost], kappa, [no_f1, no_kappa, no_youden, no_cost])| TunedCalls {
            f1: tuned_calls(f1, no_f1),
            kappa: kappa.map_or_else(
                || KappaCall { threshold: None, kappa: Metric::undefined(no_kappa, parsable.len()) },
                |(threshold, handle)| KappaCall { threshold: Some(threshold), kappa: note(take(handle)) },
            ),
            youden: tuned_calls(youden, no_youden),
            cost: tuned_calls(cost, no_cost),
        }),
        auroc_align: delong_auroc(sample, &spoken, Some(&parsable)),
        parsable: take(parsable_rate),
        judge: Judge::default(),
        calibration: calibration_of(calibration.map(take)),
        operating_points: Vec::new(),
        subgroups: Default::default(),
        perplexity: None,
        evidence: None,
    }
}

/// The calibration metrics alone, on the same resamples as [`evaluate`]'s: for calibrated probabilities.
pub fn evaluate_calibration(sample: &Sample, options: &Options) -> Calibration {
    let order = ascending(sample);
    let mut set = StatisticSet::new(sample);
    let handles = calibration_handles(&mut set, &order, options.bins);
    let measured = Resampler::new(sample, options.seed).measure(&set.statistics, options.bootstrap);
    let note = |metric| if options.in_sample { in_sample(metric, "the calibrator was fitted") } else { metric };
    calibration_of(handles.map(|handle| note(measured[handle.0].clone())))
}

/// The parsable rate and κ at 0.5 between head and verbalized label with their intervals, and nothing else: for a
/// curve over many checkpoints.
pub fn parsable_and_kappa(sample: &Sample, options: &Options) -> [Metric; 2] {
    let mut set = StatisticSet::new(sample);
    let handles = [set.parsable(), set.kappa(sample.parsable().len(), 0.5)];
    let measured = Resampler::new(sample, options.seed).measure(&set.statistics, options.bootstrap);
    handles.map(|handle| measured[handle.0].clone())
}

fn calibration_of(
    [brier, brier_skill, ece, mce, ece_equal_mass, slope, intercept, observed_expected]: [Metric; 8],
) -> Calibration {
    Calibration {
        brier,
        brier_skill,
        ece,
        mce,
        ece_equal_mass,
        slope,
        intercept,
        observed_expected,
        smooth: None,
        after: None,
    }
}

fn untuned(n: usize, reason: &str) -> Calls {
    let none = || Metric::undefined(reason, n);
    Calls {
        threshold: None,
        f1: none(),
        precision: none(),
        recall: none(),
        specificity: none(),
        kappa: None,
        cost: Some(none()),
    }
}

/// The calibration metrics, in the order of [`calibration_of`]. A resample's records are gathered once for all of them.
fn calibration_handles<'a>(set: &mut StatisticSet<'a>, order: &'a [Row], bins: usize) -> [StatisticHandle; 8] {
    // Newton begins where the whole sample's fits ended: a resample's are near.
    let all: Vec<_> = order.iter().map(|row| (row.logit, f64::from(row.label), 1.0)).collect();
    let line = calibration::logistic(all.iter().copied()).unwrap_or_default();
    let shift = calibration::intercept_from(0.0, &all).unwrap_or_default();
    set.several(set.sample.len(), move |weights| {
        let drawn =
            || order.iter().map(|row| (row, f64::from(weights[row.record]))).filter(|(_, weight)| *weight > 0.0);
        let rows: Vec<_> = drawn().map(|(row, weight)| (row.probability, row.label, weight)).collect();
        let logits: Vec<_> = drawn().map(|(row, weight)| (row.logit, f64::from(row.label), weight)).collect();
        let each = || rows.iter().copied();
        let equal_width = calibration::equal_width(each(), bins);
        [
            calibration::brier(each()),
            calibration::brier_skill(each()),
            calibration::expected_error(&equal_width),
            calibration::maximum_error(&equal_width),
            calibration::expected_error(&calibration::equal_mass_sorted(&rows, bins)),
            calibration::logistic_from(line, logits.iter().copied()).map(|fit| fit.slope),
            calibration::intercept_from(shift, &logits),
            calibration::observed_expected(each()),
        ]
    })
}
