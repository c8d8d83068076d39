//! LLM-as-a-judge as numbers (paper §5.3.2, SPEC A35, A36).
//!
//! RLI is the share of explanations whose implied label differs from the verbalized one; κ_RL is Cohen's κ of the two; readability is the
//! share of texts called readable. Each is over the records whose judgement could be parsed.

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    classification::Confusion,
    evaluation::Judge,
};

/// What the judge was asked and said of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The label that the model verbalized.
    pub verbalized: bool,
    /// The label that its explanation implies; `None` where the judge's answer is unparsable.
    pub inferred: Option<bool>,
    /// Whether the explanation is readable; `None` where the judge's answer is unparsable.
    pub readable: Option<bool>,
}

/// Verbalized against inferred labels.
fn table(verdicts: &[Option<Verdict>], weights: &[u32]) -> Confusion {
    let rows = verdicts.iter().zip(weights).filter_map(|(verdict, &weight)| {
        let verdict = (*verdict)?;
        Some((verdict.verbalized, verdict.inferred?, weight))
    });
    Confusion::count(rows)
}

fn share(parts: [f64; 2], none: &'static str) -> Outcome {
    if parts[1] > 0.0 { Ok(parts[0] / parts[1]) } else { Err(none) }
}

/// The judge's metrics; `verdicts` has an entry a record of `sample`, `None` for records that were not judged (no explanation).
///
/// ```
/// use clsgen::metrics::{Options, Sample, judge::{Verdict, judge}};
/// let mut sample = Sample::new();
/// (0..394).for_each(|i| sample.push(0.5, i % 2 == 0, Some(true), None));
/// let verdicts: Vec<_> =
///     (0..394).map(|i| Some(Verdict { verbalized: i % 2 == 0, inferred: Some((i % 2 == 0) != (i < 19)), readable: Some(true) })).collect();
/// let judged = judge(&sample, &verdicts, &Options::default());
/// assert_eq!(format!("{:.4}", judged.rli.value.unwrap()), "0.0482");
/// ```
pub fn judge(sample: &Sample, verdicts: &[Option<Verdict>], options: &Options) -> Judge {
    let count = |keep: &dyn Fn(&Verdict) -> bool| verdicts.iter().flatten().filter(|verdict| keep(verdict)).count();
    let asked = count(&|_| true);
    if asked == 0 {
        let none = || Metric::undefined("no record has an explanation to judge", 0);
        return Judge { rli: none(), rl_kappa: none(), readability: none(), unparsable: none() };
    }
    let (inferred, read) = (count(&|v| v.inferred.is_some()), count(&|v| v.readable.is_some()));
    let unparsable = 2 * asked - inferred - read;
    let weighed = |weights: &[u32], keep: fn(&Verdict) -> bool| {
        let rows = verdicts.iter().zip(weights);
        rows.filter(|(verdict, _)| verdict.as_ref().is_some_and(keep)).fold(0.0, |sum, (_, &weight)| sum + f64::from(weight))
    };
    let none = "no answer of the judge could be parsed";
    let statistics = [
        Statistic::new(inferred, move |weights: &[u32]| {
            let table = table(verdicts, weights);
            share([(table.false_positives + table.false_negatives) as f64, table.total() as f64], none)
        }),
        Statistic::new(inferred, move |weights: &[u32]| match table(verdicts, weights) {
            table if table.total() == 0 => Err(none),
            table => table.kappa(),
        }),
        Statistic::new(read, move |weights: &[u32]| {
            share([weighed(weights, |v| v.readable == Some(true)), weighed(weights, |v| v.readable.is_some())], none)
        }),
    ];
    let mut measured = Resampler::new(sample, options.seed).measure(&statistics, options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    let (rli, rl_kappa, readability) = (next(), next(), next());
    Judge { rli, rl_kappa, readability, unparsable: Metric::new(Ok(unparsable as f64 / (2 * asked) as f64), 2 * asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(verbalized: bool, inferred: Option<bool>, readable: Option<bool>) -> Option<Verdict> {
        Some(Verdict { verbalized, inferred, readable })
    }

    #[test]
    fn each_metric_is_over_what_could_be_parsed() {
        let mut sample = Sample::new();
        (0..6).for_each(|i| sample.push(0.5, i % 2 == 0, Some(true), None));
        let verdicts = [
            verdict(true, Some(true), Some(true)),
            verdict(true, Some(false), None),
            verdict(false, Some(false), Some(true)),
            verdict(false, None, Some(false)),
            verdict(true, Some(true), Some(true)),
            None,
        ];
        let judged = judge(&sample, &verdicts, &Options { bootstrap: 40, ..Options::default() });
        assert_eq!((judged.rli.value, judged.rli.n), (Some(0.25), 4));
        // Table: 2 yes/yes, 1 yes/no, 1 no/no: observed disagreement 1/4, expected (3·2 + 1·2) / 16.
        assert_eq!(judged.rl_kappa.value, Some(0.5));
        assert_eq!((judged.readability.value, judged.readability.n), (Some(0.75), 4));
        assert_eq!((judged.unparsable.value, judged.unparsable.n), (Some(0.2), 10));
        assert!(judged.rli.ci95.is_some());
    }

    #[test]
    fn nothing_judged_is_said_with_its_reason() {
        let mut sample = Sample::new();
        sample.push(0.5, true, None, None);
        let judged = judge(&sample, &[None], &Options::default());
        assert!(judged.rli.reason.unwrap().contains("no record has an explanation"));
        let judged = judge(&sample, &[verdict(true, None, None)], &Options::default());
        assert_eq!((judged.rli.value, judged.unparsable.value), (None, Some(1.0)));
        assert!(judged.readability.reason.unwrap().contains("no answer of the judge"));
    }
}
