//! LLM-as-a-judge as numbers (paper §5.3.2).
//!
//! RLI is the share of explanations whose implied label differs from the verbalized one; κ_RL is Cohen's κ of the
//! two: both over the parsable records of which the judge's answer can be read. Readability is the share of all
//! generated texts that the judge calls readable, parsable or not; an empty text, or one of which the judge's answer
//! cannot be read, is not readable.

use super::{
    Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    classification::Confusion,
    clusters::Clusters,
    comparison::Comparison,
    evaluation::Judge,
};

/// What the judge was asked and said of one record; its labels are `bool`s, or numbers of more than two classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judged<L = bool> {
    /// The label that the model verbalized beside an explanation; `None` where there is none to judge.
    pub verbalized: Option<L>,
    /// The label that its explanation implies; `None` where the judge's answer is unparsable.
    pub inferred: Option<L>,
    /// Whether a text was generated at all.
    pub written: bool,
    /// Whether the judge was asked to read it: an empty text needs no judge.
    pub asked: bool,
    /// Whether the text is readable; `None` where the judge's answer is unparsable.
    pub readable: Option<bool>,
}

/// Keys of the metrics that two sets of texts are compared by, as [`Judge`] has them.
const KEYS: [&str; 3] = ["rli", "rl_kappa", "readability"];

impl<L> Judged<L> {
    /// Questions put to the judge, and answers of it that cannot be read.
    fn answers(&self) -> [u32; 2] {
        let missing = [self.verbalized.is_some() && self.inferred.is_none(), self.asked && self.readable.is_none()];
        [u32::from(self.verbalized.is_some()) + u32::from(self.asked), missing.into_iter().map(u32::from).sum()]
    }
}

/// Verbalized and inferred label of every record that has both, with its weight.
pub(super) fn label_pairs<L: Copy>(
    verdicts: &[Option<Judged<L>>],
    weights: &[u32],
) -> impl Iterator<Item = (L, L, u32)> {
    verdicts.iter().zip(weights).filter_map(|(verdict, &weight)| {
        let verdict = (*verdict)?;
        Some((verdict.verbalized?, verdict.inferred?, weight))
    })
}

/// Weight of the pairs that differ, and of all.
fn differing<L: Copy + PartialEq>(pairs: impl Iterator<Item = (L, L, u32)>) -> [f64; 2] {
    pairs.fold([0.0; 2], |[differing, all], (verbalized, inferred, weight)| {
        let weight = f64::from(weight);
        [differing + if verbalized == inferred { 0.0 } else { weight }, all + weight]
    })
}

fn share(parts: [f64; 2], none: &'static str) -> Outcome {
    if parts[1] > 0.0 { Ok(parts[0] / parts[1]) } else { Err(none) }
}

/// The judge's metrics; `verdicts` has an entry a record of `sample`, `None` for records without any text.
///
/// ```
/// use clsgen::metrics::{Options, Sample, judge::{Judged, judge}};
/// let mut sample = Sample::new();
/// (0..394).for_each(|i| sample.push(0.5, i % 2 == 0, Some(true), None));
/// let implied = |i: usize| Some((i % 2 == 0) != (i < 19));
/// let verdict = |i| Some(Judged { verbalized: Some(i % 2 == 0), inferred: implied(i), ..Judged::default() });
/// let verdicts: Vec<_> = (0..394).map(verdict).collect();
/// let judged = judge(&sample, &verdicts, &Options::default());
/// assert_eq!(format!("{:.4}", judged.rli.value.unwrap()), "0.0482");
/// ```
pub fn judge(sample: &Sample, verdicts: &[Option<Judged>], options: &Options) -> Judge {
    measure(sample.grouping(), &Resampler::new(sample, options.seed), verdicts, kappa, options.bootstrap)
}

/// `second − first` of RLI, κ and readability, null where either is undefined. Both have an entry a
/// record of `sample`.
pub fn differences(sample: &Sample, pair: [&[Option<Judged>]; 2], options: &Options) -> Vec<Comparison> {
    paired(&Resampler::new(sample, options.seed), pair, kappa, options.bootstrap)
}

fn kappa(verdicts: &[Option<Judged>], weights: &[u32]) -> Outcome {
    Confusion::count(label_pairs(verdicts, weights)).kappa()
}

/// The weighted sum of a count a record.
fn weighted_sum<L>(verdicts: &[Option<Judged<L>>], weights: &[u32], count: impl Fn(&Judged<L>) -> u32) -> f64 {
    let each = verdicts.iter().zip(weights);
    let each = each.map(|(verdict, &weight)| f64::from(verdict.as_ref().map_or(0, &count)) * f64::from(weight));
    each.fold(0.0, |sum, count| sum + count)
}

/// Why no explanation is judged, where none is.
fn unjudged<L>(verdicts: &[Option<Judged<L>>]) -> &'static str {
    if verdicts.iter().flatten().all(|verdict| verdict.verbalized.is_none()) {
        "no record has an explanation to judge"
    } else {
        "no answer of the judge could be parsed"
    }
}

fn rli<L: Copy + PartialEq>(verdicts: &[Option<Judged<L>>], weights: &[u32]) -> Outcome {
    share(differing(label_pairs(verdicts, weights)), unjudged(verdicts))
}

/// `kappa`, where a label is judged.
fn rl_kappa<L: Copy + PartialEq>(
    verdicts: &[Option<Judged<L>>],
    weights: &[u32],
    kappa: impl Fn(&[Option<Judged<L>>], &[u32]) -> Outcome,
) -> Outcome {
    match differing(label_pairs(verdicts, weights)) {
        [_, all] if all > 0.0 => kappa(verdicts, weights),
        _ => Err(unjudged(verdicts)),
    }
}

fn readability<L>(verdicts: &[Option<Judged<L>>], weights: &[u32]) -> Outcome {
    let readable = weighted_sum(verdicts, weights, |v| u32::from(v.written && v.asked && v.readable == Some(true)));
    let written = weighted_sum(verdicts, weights, |v| u32::from(v.written));
    share([readable, written], "the predictions hold no generated text")
}

/// [`differences`] of any number of classes, with their `kappa` of the label pairs.
pub(super) fn paired<L: Copy + PartialEq + Sync>(
    resampler: &Resampler,
    [first, second]: [&[Option<Judged<L>>]; 2],
    kappa: impl Fn(&[Option<Judged<L>>], &[u32]) -> Outcome + Sync,
    resamples: usize,
) -> Vec<Comparison> {
    let n = second.len();
    let kappa = &kappa;
    let statistics = [
        Statistic::new(n, |weights: &[u32]| Ok(rli(second, weights)? - rli(first, weights)?)),
        Statistic::new(n, |weights: &[u32]| Ok(rl_kappa(second, weights, kappa)? - rl_kappa(first, weights, kappa)?)),
        Statistic::new(n, |weights: &[u32]| Ok(readability(second, weights)? - readability(first, weights)?)),
    ];
    let measured = resampler.differences(&statistics, resamples);
    KEYS.iter().zip(measured).map(|(key, measured)| Comparison::of_resamples(key, measured)).collect()
}

/// [`judge`] of any number of classes, with their `kappa` of the label pairs, over `resamples` of these clusters.
pub(super) fn measure<L: Copy + PartialEq + Sync>(
    clusters: &Clusters,
    resampler: &Resampler,
    verdicts: &[Option<Judged<L>>],
    kappa: impl Fn(&[Option<Judged<L>>], &[u32]) -> Outcome + Sync,
    resamples: usize,
) -> Judge {
    let among = |keep: fn(&Judged<L>) -> bool| move |i: usize| verdicts[i].as_ref().is_some_and(keep);
    let count = |keep: fn(&Judged<L>) -> bool| verdicts.iter().flatten().filter(|verdict| keep(verdict)).count();
    let asked: u32 = verdicts.iter().flatten().map(|verdict| verdict.answers()[0]).sum();
    let inferred = count(|v| v.verbalized.is_some() && v.inferred.is_some());
    let statistics = [
        Statistic::new(inferred, |weights: &[u32]| rli(verdicts, weights))
            .proportion_of(clusters.among(among(|v| v.verbalized.is_some() && v.inferred.is_some()))),
        Statistic::new(inferred, |weights: &[u32]| rl_kappa(verdicts, weights, &kappa)),
        Statistic::new(count(|v| v.written), |weights: &[u32]| readability(verdicts, weights))
            .proportion_of(clusters.among(among(|v| v.written))),
        Statistic::new(asked as usize, |weights: &[u32]| {
            let count = |which: usize| weighted_sum(verdicts, weights, |v| v.answers()[which]);
            share([count(1), count(0)], "the judge was asked nothing")
        })
        .proportion_of(clusters.among(among(|v| v.answers()[0] > 0))),
    ];
    let mut measured = resampler.measure(&statistics, resamples).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    Judge { rli: next(), rl_kappa: next(), readability: next(), unparsable: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(verbalized: impl Into<Option<bool>>, inferred: Option<bool>, readable: Option<bool>) -> Option<Judged> {
        Some(Judged { verbalized: verbalized.into(), inferred, written: true, asked: true, readable })
    }

    #[test]
    fn rli_is_over_what_could_be_parsed_and_readability_over_every_text() {
        let mut sample = Sample::new();
        (0..8).for_each(|i| sample.push(0.5, i % 2 == 0, Some(true), None));
        let verdicts = [
            verdict(true, Some(true), Some(true)),
            verdict(true, Some(false), None),
            verdict(false, Some(false), Some(true)),
            verdict(false, None, Some(false)),
            verdict(true, Some(true), Some(true)),
            // Unparsable, but readable; an empty text; no text.
            verdict(None, None, Some(true)),
            Some(Judged { written: true, ..Judged::default() }),
            None,
        ];
        let judged = judge(&sample, &verdicts, &Options { bootstrap: 300, ..Options::default() });
        assert_eq!((judged.rli.value, judged.rli.n), (Some(0.25), 4));
        // Table: 2 yes/yes, 1 yes/no, 1 no/no: observed disagreement 1/4, expected (3·2 + 1·2) / 16.
        assert_eq!(judged.rl_kappa.value, Some(0.5));
        assert_eq!((judged.readability.value, judged.readability.n), (Some(4.0 / 7.0), 7));
        assert_eq!((judged.unparsable.value, judged.unparsable.n), (Some(2.0 / 11.0), 11));
        assert!(judged.readability.ci95.is_some() && judged.unparsable.ci95.is_some());
    }

    #[test]
    fn differences_are_those_of_the_two_measures() {
        let mut sample = Sample::new();
        (0..60).for_each(|i| sample.push(0.5, i % 2 == 0, Some(true), None));
        let said = |wrong: usize, unread: usize| -> Vec<Option<Judged>> {
            (0..60).map(|i| verdict(i % 3 == 0, Some((i % 3 == 0) != (i % 7 < wrong)), Some(i % 5 >= unread))).collect()
        };
        let first = said(3, 2);
        let second = said(1, 0);
        let options = Options { bootstrap: 400, ..Options::default() };
        let [before, after] = [&first, &second].map(|verdicts| judge(&sample, verdicts, &options));
        let found = differences(&sample, [&first, &second], &options);
        let whole =
            [(&before.rli, &after.rli), (&before.rl_kappa, &after.rl_kappa), (&before.readability, &after.readability)];
        for ((comparison, (before, after)), key) in found.iter().zip(whole).zip(KEYS) {
            assert_eq!(comparison.metric, key);
            let difference = after.value.unwrap() - before.value.unwrap();
            assert!((comparison.difference.value.unwrap() - difference).abs() < 1e-12, "{key}");
            assert!(comparison.p_value.unwrap() < 0.05 && comparison.difference.ci95.is_some(), "{key}");
        }
        let same = differences(&sample, [&first, &first], &options);
        assert!(
            same.iter().all(|comparison| comparison.difference.value == Some(0.0) && comparison.p_value == Some(1.0))
        );
    }

    #[test]
    fn nothing_judged_is_said_with_its_reason() {
        let mut sample = Sample::new();
        sample.push(0.5, true, None, None);
        let judged = judge(&sample, &[None], &Options::default());
        assert!(judged.rli.reason.unwrap().contains("no record has an explanation"));
        assert!(judged.readability.reason.unwrap().contains("no generated text"));
        let judged = judge(&sample, &[verdict(true, None, None)], &Options::default());
        assert_eq!((judged.rli.value, judged.unparsable.value), (None, Some(1.0)));
        assert!(judged.rli.reason.unwrap().contains("no answer of the judge"));
        assert_eq!((judged.readability.value, judged.readability.n), (Some(0.0), 1));
    }
}
