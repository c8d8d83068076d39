//! Subgroups: each value of a column by itself, and how it differs from the records of every other value.
//!
//! Resamples are the whole sample's, so a group of records that spans subgroups moves them together. A subgroup with
//! fewer than ten events or non-events is counted, not measured (its numbers would be noise, and few people behind
//! them); nor is a difference from a rest of so few. Differences are not adjusted for how many there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    calibration::{self, LogisticFit, logistic, logistic_from, logit},
    classification::Confusion,
    ranking::Ranking,
    shared::{delong_auroc, in_sample},
};

/// Events, and non-events, below which nothing is measured.
pub const FEWEST: usize = 10;
/// Values of a column at most: one with more is an identifier or a number.
pub const MOST_VALUES: usize = 50;
/// What records without a value are called.
pub const MISSING: &str = "(missing)";

/// By column, then by value.
pub type Subgroups = BTreeMap<String, BTreeMap<String, Subgroup>>;

/// An entry of `subgroups` in `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subgroup {
    /// Records.
    pub n: usize,
    /// Positive ones.
    pub events: usize,
    /// What is measured on them.
    #[serde(flatten)]
    pub own: Measures,
    /// The same less that of the rest.
    pub difference: Measures,
}

impl Subgroup {
    /// Counted, not measured, and why.
    pub fn undefined(reason: &str, n: usize, events: usize) -> Self {
        let none = Measures::undefined(reason, n);
        Self { n, events, own: none.clone(), difference: none }
    }
}

/// What is measured on a subgroup, or differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// AUROC.
    pub auroc: Metric,
    /// Calibration slope.
    pub slope: Metric,
    /// Positives observed over expected.
    pub observed_expected: Metric,
    /// Sensitivity at the threshold that dev tuned for F1.
    pub sensitivity: Metric,
    /// Positive predictive value there.
    pub ppv: Metric,
}

impl Measures {
    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 5] {
        [
            ("auroc", &self.auroc),
            ("slope", &self.slope),
            ("observed_expected", &self.observed_expected),
            ("sensitivity", &self.sensitivity),
            ("ppv", &self.ppv),
        ]
    }

    fn of([auroc, slope, observed_expected, sensitivity, ppv]: [Metric; 5]) -> Self {
        Self { auroc, slope, observed_expected, sensitivity, ppv }
    }

    fn undefined(reason: &str, n: usize) -> Self {
        Self::of(std::array::from_fn(|_| Metric::undefined(reason, n)))
    }
}

/// A column of the records: a value each, `None` where a record has none.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// Values in the records' order.
    pub values: &'a [Option<&'a str>],
}

impl<'a> Column<'a> {
    /// The records of each value, in the order of the values.
    fn cells(&self) -> BTreeMap<&'a str, Vec<bool>> {
        let mut cells: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for (i, value) in self.values.iter().enumerate() {
            cells.entry(value.unwrap_or(MISSING)).or_insert_with(|| vec![false; self.values.len()])[i] = true;
        }
        cells
    }

    /// How many values it has, a missing one among them.
    pub fn count(&self) -> usize {
        self.values.iter().copied().collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// Every value of each column, at `threshold` or with the reason why there is none; columns of over [`MOST_VALUES`] are
/// left out.
pub fn subgroups(
    sample: &Sample,
    columns: &[Column<'_>],
    threshold: Result<f64, &str>,
    options: &Options,
) -> Subgroups {
    let whole = Whole::new(sample, threshold.ok());
    let columns = columns.iter().filter(|column| column.count() <= MOST_VALUES);
    let measured = columns.map(|column| {
        let cells = column.cells().into_iter();
        let cells = cells.map(|(value, member)| (value.to_owned(), whole.subgroup(&member, threshold, options)));
        (column.name.to_owned(), cells.collect())
    });
    measured.collect()
}

/// What no subgroup and no resample changes.
struct Whole<'a> {
    sample: &'a Sample,
    threshold: Option<f64>,
    ranking: Ranking,
    logits: Vec<f64>,
    /// Where Newton begins: the fit of all records.
    line: LogisticFit,
}

impl<'a> Whole<'a> {
    fn new(sample: &'a Sample, threshold: Option<f64>) -> Self {
        let logits: Vec<f64> = sample.probabilities().iter().map(|&p| logit(p)).collect();
        let rows = logits.iter().zip(sample.labels()).map(|(&x, &label)| (x, f64::from(label), 1.0));
        let line = logistic(rows).unwrap_or_default();
        Self { sample, threshold, ranking: Ranking::new(sample.probabilities()), logits, line }
    }

    /// AUROC, slope, O:E, sensitivity, PPV of weighted records.
    fn statistics(&self, weights: &[u32]) -> [Outcome; 5] {
        let sample = self.sample;
        let drawn = || (0..sample.len()).filter(|&i| weights[i] > 0);
        // Gathered: what a resample does not hold is looked at once.
        let logits: Vec<(f64, f64, f64)> =
            drawn().map(|i| (self.logits[i], f64::from(sample.labels()[i]), f64::from(weights[i]))).collect();
        let rows = drawn().map(|i| (sample.probabilities()[i], sample.labels()[i], f64::from(weights[i])));
        let threshold = self.threshold.unwrap_or(f64::INFINITY);
        let calls = drawn().map(|i| (sample.labels()[i], sample.probabilities()[i] >= threshold, weights[i]));
        let table = Confusion::count(calls);
        [
            self.ranking.auroc(sample.labels(), weights),
            logistic_from(self.line, logits.iter().copied()).map(|fit| fit.slope),
            calibration::observed_expected(rows),
            table.recall(),
            table.precision(),
        ]
    }

    /// The records of `member`, and their difference from the others.
    fn subgroup(&self, member: &[bool], threshold: Result<f64, &str>, options: &Options) -> Subgroup {
        let sample = self.sample;
        let counts = |inside: bool| {
            let label = |i: &usize| sample.labels()[*i];
            let rows = (0..sample.len()).filter(|&i| member[i] == inside);
            let (events, others): (Vec<usize>, Vec<usize>) = rows.partition(label);
            [events.len(), others.len()]
        };
        let [events, others] = counts(true);
        let n = events + others;
        let rest = counts(false);
        if let Some(reason) = too_few([events, others], "") {
            return Subgroup::undefined(&reason, n, events);
        }
        let few_others = too_few(rest, " in the rest");
        let masked = |weights: &[u32], inside: bool| -> Vec<u32> {
            weights.iter().zip(member).map(|(&weight, &is)| if is == inside { weight } else { 0 }).collect()
        };
        let compares = few_others.is_none();
        let compute = |weights: &[u32]| {
            let own = self.statistics(&masked(weights, true));
            if !compares {
                return own.to_vec();
            }
            let others = self.statistics(&masked(weights, false));
            let apart = own.iter().zip(others).map(|(own, other)| Ok((*own)? - other?));
            own.iter().copied().chain(apart).collect()
        };
        let called = |i: usize| sample.probabilities()[i] >= self.threshold.unwrap_or(f64::INFINITY);
        let proportions = vec![
            None,
            None,
            None,
            Some(sample.clusters_among(|i| member[i] && sample.labels()[i])),
            Some(sample.clusters_among(|i| member[i] && called(i))),
        ];
        let statistic = Statistic::many(n, compute).proportions_of(proportions);
        let mut measured = Resampler::new(sample, options.seed).measure(&[statistic], options.bootstrap).into_iter();
        let mut five = || std::array::from_fn(|_| measured.next().unwrap_or_default());
        let rows: Vec<u32> = (0..sample.len() as u32).filter(|&i| member[i as usize]).collect();
        let mut own = Measures::of(five());
        // As everywhere, its own interval is DeLong's.
        own.auroc = delong_auroc(sample, sample.labels(), Some(&rows));
        let mut difference = match few_others {
            Some(reason) => Measures::undefined(&reason, n),
            None => Measures::of(five()),
        };
        for measures in [&mut own, &mut difference] {
            for metric in [&mut measures.sensitivity, &mut measures.ppv] {
                *metric = match threshold {
                    Err(reason) => Metric::undefined(reason, n),
                    Ok(_) if options.in_sample => in_sample(std::mem::take(metric), "the threshold was tuned"),
                    Ok(_) => std::mem::take(metric),
                };
            }
        }
        Subgroup { n, events, own, difference }
    }
}

/// Why nothing is measured on so few.
fn too_few([events, others]: [usize; 2], place: &str) -> Option<String> {
    let what = match (events < FEWEST, others < FEWEST) {
        (false, false) => return None,
        (true, _) => "events",
        (false, true) => "non-events",
    };
    Some(format!("fewer than {FEWEST} {what}{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let mut sample = Sample::new();
        (0..200u32).for_each(|i| sample.push(f64::from(i * 37 % 200) / 200.0, (i * 53 % 200) > 120, None, None));
        sample
    }

    #[test]
    fn a_subgroup_has_the_numbers_of_its_records_alone() {
        let sample = sample();
        let values: Vec<Option<&str>> = (0..200).map(|i| Some(if i % 3 == 0 { "a" } else { "b" })).collect();
        let options = Options { bootstrap: 300, ..Options::default() };
        let found = subgroups(&sample, &[Column { name: "x", values: &values }], Ok(0.4), &options);
        let mut alone = Sample::new();
        (0..200).filter(|i| i % 3 == 0).for_each(|i| {
            alone.push(sample.probabilities()[i], sample.labels()[i], None, None);
        });
        let a = &found["x"]["a"];
        let b = &found["x"]["b"];
        let whole = super::super::evaluate(&alone, None, &Options::default());
        assert_eq!((a.n, a.events, b.n), (67, alone.positives(), 133));
        assert_eq!(a.own.auroc, whole.auroc);
        assert!((a.own.slope.value.unwrap() - whole.calibration.slope.value.unwrap()).abs() < 1e-9);
        let table = Confusion::at(alone.probabilities(), alone.labels(), 0.4);
        assert_eq!((a.own.sensitivity.value, a.own.ppv.value), (table.recall().ok(), table.precision().ok()));
        // Two values: the difference of one is that of the other, turned.
        for ((_, one), (_, other)) in a.difference.named().into_iter().zip(b.difference.named()) {
            assert_eq!(one.value.map(|value| -value), other.value);
            assert!(one.ci95.is_some());
        }
    }

    #[test]
    fn few_events_are_counted_and_not_measured() {
        let sample = sample();
        let values: Vec<Option<&str>> = (0..200).map(|i| (i >= 12).then_some("many")).collect();
        let found = subgroups(&sample, &[Column { name: "x", values: &values }], Err("no dev"), &Options::default());
        let few = &found["x"][MISSING];
        assert!(few.n == 12 && few.events > 0);
        assert!(few.own.named().iter().all(|(_, metric)| metric.value.is_none() && metric.reason.is_some()));
        let many = &found["x"]["many"];
        assert!(many.own.auroc.value.is_some() && many.difference.auroc.reason.as_ref().unwrap().contains("the rest"));
        assert_eq!(many.own.ppv.reason.as_deref(), Some("no dev"));
        let ids: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let ids: Vec<Option<&str>> = ids.iter().map(|id| Some(id.as_str())).collect();
        assert!(subgroups(&sample, &[Column { name: "id", values: &ids }], Ok(0.5), &Options::default()).is_empty());
    }
}
