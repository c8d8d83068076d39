//! Every metric of K > 2 classes over one set of predictions, measured on the same resamples.

use super::{
    Calibration, ClassMetrics, Confusion, Disagreement, Evaluation, Sample,
    answers::{ClassAnswers, Scored},
    calibration,
    confusion::{ClassOutcome, NAMELESS, named, unnamed},
    evaluation::DefaultCalls,
    ranking::OneVsRest,
};
use crate::metrics::{
    Metric, Options, Outcome,
    bootstrap::Statistic,
    comparison::Comparison,
    evaluation::Judge,
    judge::{self, Judged, label_pairs},
    parsable,
    shared::delong_auroc,
};

/// What is called: the arg max, against the verbalized class, over the parsable records.
fn agreement(sample: &Sample, weights: &[u32]) -> Confusion {
    let rows = sample.predicted().iter().zip(sample.verbalized()).zip(weights);
    let parsable = rows.filter(|((_, verbalized), _)| verbalized.is_some());
    Confusion::count(sample.classes(), parsable.map(|((&called, &verbalized), &weight)| (called, verbalized, weight)))
}

/// The statistics of head against text that need no calls against gold.
pub(super) struct Agreement<'a> {
    sample: &'a Sample,
    parsable: usize,
    gold: OneVsRest,
    verbalized: OneVsRest,
}

impl<'a> Agreement<'a> {
    pub(super) fn new(sample: &'a Sample) -> Self {
        let parsable = sample.parsable().len();
        Self { sample, parsable, gold: OneVsRest::gold(sample), verbalized: OneVsRest::verbalized(sample) }
    }

    /// Macro AUROC, or the class without one.
    pub(super) fn auroc(&self, weights: &[u32]) -> ClassOutcome {
        self.gold.macro_auroc(weights)
    }

    /// Macro AUROC against the verbalized class, or the class without one.
    pub(super) fn auroc_align(&self, weights: &[u32]) -> ClassOutcome {
        self.when_parsable(|| self.verbalized.macro_auroc(weights))
    }

    /// κ of head and text.
    pub(super) fn kappa(&self, weight: Disagreement, weights: &[u32]) -> ClassOutcome {
        self.when_parsable(|| agreement(self.sample, weights).kappa(weight).map_err(|why| (NAMELESS, why)))
    }

    fn when_parsable(&self, statistic: impl FnOnce() -> ClassOutcome) -> ClassOutcome {
        match self.parsable {
            0 => Err((NAMELESS, parsable::nothing_parsable(self.sample.is_empty(), self.sample.is_silent()))),
            _ => statistic(),
        }
    }

    /// Macro AUROC, macro AUROC-Align, κ, quadratic κ, parsable rate.
    fn statistics(&self) -> [Statistic<'_>; 5] {
        let sample = self.sample;
        let parsable = self.parsable;
        let rate = |weights: &[u32]| parsable::rate(sample.verbalized(), sample.is_silent(), weights);
        [
            Statistic::new(sample.len(), |weights| unnamed(self.auroc(weights))),
            Statistic::new(parsable, |weights| unnamed(self.auroc_align(weights))),
            Statistic::new(parsable, |weights| unnamed(self.kappa(Disagreement::Nominal, weights))),
            Statistic::new(parsable, |weights| unnamed(self.kappa(Disagreement::Quadratic, weights))),
            Statistic::new(sample.len(), rate).proportion_of(sample.grouping().count()),
        ]
    }

    /// The metrics of [`Agreement::statistics`], from their values in that order.
    fn take(&self, names: &[String], measured: &mut impl Iterator<Item = Metric>) -> AgreementMetrics {
        let ones = vec![1; self.sample.len()];
        let mut next = || measured.next().unwrap_or_default();
        AgreementMetrics {
            auroc: named(next(), self.auroc(&ones), names),
            auroc_align: named(next(), self.auroc_align(&ones), names),
            kappa: next(),
            kappa_quadratic: next(),
            parsable: next(),
        }
    }
}

/// The figures of an epoch's curve: what needs neither a call nor a judge.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementMetrics {
    /// Macro AUROC against gold.
    pub auroc: Metric,
    /// Macro AUROC against the verbalized class.
    pub auroc_align: Metric,
    /// κ of called and verbalized class.
    pub kappa: Metric,
    /// The same weighted by squared distance.
    pub kappa_quadratic: Metric,
    /// Share of parsable records.
    pub parsable: Metric,
}

/// Computes every metric of `sample`, whose classes have these `names`, an order if `ordinal`. `judge`, `positive` and
/// `calibration.after` are the caller's to fill in.
pub fn evaluate(sample: &Sample, names: &[String], ordinal: bool, options: &Options) -> Evaluation {
    let own: ClassAnswers = sample.calls();
    let calls = Scored { sample, runs: &[&own] };
    let agreement = Agreement::new(sample);
    let mut statistics = vec![calls.statistic(), calibration::statistic(sample, options.bins)];
    statistics.extend(agreement.statistics());
    let mut measured = sample.resampler(options.seed).measure(&statistics, options.bootstrap).into_iter();
    let (averages, classes) = calls.take(names, &mut measured);
    let calibration = Calibration::take(&mut measured);
    let agreed = agreement.take(names, &mut measured);
    let per_class = classes.into_iter().enumerate().map(|(k, calls)| {
        let [auroc, auroc_align] = class_auroc(sample, k as u8);
        ClassMetrics { calls, auroc, auroc_align }
    });
    Evaluation {
        schema: 1,
        n: sample.len(),
        dev_overlap: 0,
        classes: names.to_vec(),
        auroc: agreed.auroc,
        default: DefaultCalls::default(),
        calls: averages,
        auroc_align: agreed.auroc_align,
        kappa: agreed.kappa,
        kappa_quadratic: ordinal.then_some(agreed.kappa_quadratic),
        parsable: agreed.parsable,
        judge: Judge::default(),
        calibration,
        per_class: per_class.collect(),
        confusion: confusion(sample),
        positive: None,
        operating_points: None,
        subgroups: None,
        perplexity: None,
        evidence: None,
    }
}

/// AUROC and AUROC-Align of one class against the rest, with DeLong's intervals.
fn class_auroc(sample: &Sample, class: u8) -> [Metric; 2] {
    let class = sample.one_vs_rest(class);
    let spoken: Vec<bool> = class.verbalized().iter().map(|label| *label == Some(true)).collect();
    [delong_auroc(&class, class.labels(), None), delong_auroc(&class, &spoken, Some(&class.parsable()))]
}

/// Records by gold and called class, (K, K).
fn confusion(sample: &Sample) -> Vec<Vec<u64>> {
    let rows = sample.labels().iter().zip(sample.predicted()).map(|(&gold, &called)| (gold, Some(called), 1));
    let table = Confusion::count(sample.classes(), rows);
    (0..sample.classes()).map(|k| table.row(k)[..sample.classes()].to_vec()).collect()
}

/// Macro AUROC, macro AUROC-Align, κ and parsable rate with their intervals, and nothing else: for a curve over many
/// checkpoints.
pub fn evaluate_agreement(sample: &Sample, names: &[String], options: &Options) -> AgreementMetrics {
    let agreement = Agreement::new(sample);
    let statistics = agreement.statistics();
    agreement.take(names, &mut sample.resampler(options.seed).measure(&statistics, options.bootstrap).into_iter())
}

/// The judge's metrics; `verdicts` has an entry a record of `sample`, `None` for records without any text.
pub fn judge(sample: &Sample, verdicts: &[Option<Judged<u8>>], options: &Options) -> Judge {
    let resampler = sample.resampler(options.seed);
    judge::measure(sample.grouping(), &resampler, verdicts, judged_kappa(sample.classes()), options.bootstrap)
}

/// `second − first` of the judge's RLI, κ and readability; both have an entry a record of `sample`.
pub fn judge_differences(sample: &Sample, pair: [&[Option<Judged<u8>>]; 2], options: &Options) -> Vec<Comparison> {
    judge::paired(&sample.resampler(options.seed), pair, judged_kappa(sample.classes()), options.bootstrap)
}

/// κ of verbalized and implied class.
fn judged_kappa(classes: usize) -> impl Fn(&[Option<Judged<u8>>], &[u32]) -> Outcome + Sync {
    move |verdicts, weights| {
        let pairs = label_pairs(verdicts, weights).map(|(verbalized, inferred, w)| (verbalized, Some(inferred), w));
        Confusion::count(classes, pairs).kappa(Disagreement::Nominal)
    }
}
