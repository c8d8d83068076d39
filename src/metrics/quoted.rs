//! How much of what explanations quote stands in the record, with intervals.

use super::{
    AnySample, Options, Outcome,
    bootstrap::{Resampler, Statistic},
    evidence::{Evidence, EvidenceMetrics},
};

/// Of one explanation: whether anything of it stands in the record, its words in quotation marks, how many of those do.
type Row = [f64; 3];

/// Measures them; `evidence` has an entry a row of `sample`, `None` where there was no explanation to look at.
///
/// ```
/// use clsgen::metrics::{AnySample, Options, Sample, evidence::find, quoted::quoted};
/// let mut sample = Sample::new();
/// (0..3).for_each(|i| sample.push(0.5, i == 0, None, None));
/// let of = |said| find([("text", "denies chest pain at rest")], said);
/// let evidence = [Some(of("\"denies chest pain\", \"had a stroke\"")), Some(of("none")), None];
/// let evidence: Vec<_> = evidence.iter().map(Option::as_deref).collect();
/// let found = quoted(&AnySample::Two(sample), &evidence, &Options::default());
/// assert_eq!((found.with_evidence.value, found.with_evidence.n), (Some(0.5), 2));
/// assert_eq!((found.quoted_words.value, found.quoted_words.n), (Some(0.5), 1));
/// ```
pub fn quoted(sample: &AnySample, evidence: &[Option<&[Evidence]>], options: &Options) -> EvidenceMetrics {
    let resampler = match sample {
        AnySample::Two(sample) => Resampler::new(sample, options.seed),
        AnySample::More(sample) => sample.resampler(options.seed),
    };
    let clusters = match sample {
        AnySample::Two(sample) => sample.grouping(),
        AnySample::More(sample) => sample.grouping(),
    };
    let rows: Vec<Option<Row>> = evidence.iter().map(|evidence| evidence.map(row)).collect();
    let sum = |weights: &[u32], which: fn(&Row) -> f64| {
        let each = rows.iter().zip(weights).map(|(row, &weight)| row.as_ref().map_or(0.0, which) * f64::from(weight));
        each.fold(0.0, |sum, part| sum + part)
    };
    let share = |part: f64, whole: f64, none: &'static str| -> Outcome {
        if whole > 0.0 { Ok(part / whole) } else { Err(none) }
    };
    let is_quoting = |row: &Option<Row>| row.is_some_and(|[_, quoted, _]| quoted > 0.0);
    let explained = rows.iter().flatten().count();
    let quoting = rows.iter().filter(|row| is_quoting(row)).count();
    let statistics = [
        Statistic::new(explained, |weights: &[u32]| {
            share(sum(weights, |row| row[0]), sum(weights, |_| 1.0), "there is no explanation")
        })
        .proportion_of(clusters.among(|i| rows[i].is_some())),
        Statistic::new(quoting, |weights: &[u32]| {
            share(sum(weights, |row| row[2]), sum(weights, |row| row[1]), "no explanation quotes three words or more")
        })
        .proportion_of(clusters.among(|i| is_quoting(&rows[i]))),
    ];
    let mut measured = resampler.measure(&statistics, options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    EvidenceMetrics { with_evidence: next(), quoted_words: next() }
}

fn row(evidence: &[Evidence]) -> Row {
    let any = evidence.iter().any(|evidence| evidence.field.is_some());
    let quoted = evidence.iter().filter(|evidence| evidence.quoted);
    let words = quoted.clone().map(|evidence| evidence.words as f64).sum();
    [f64::from(u8::from(any)), words, quoted.map(|evidence| evidence.found as f64).sum()]
}
