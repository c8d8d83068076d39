//! Do the 95 % intervals hold the truth in 95 % of samples? Simulated where the truth is known.
//!
//! Scores are normal, `N(mean of the class, 1)` plus a shared effect of the record's group, and the probability is
//! their sigmoid: so sensitivity, F1, κ and AUROC are formulas of Φ, and the Brier score is one integral. Classes
//! have fixed sizes, as the stratified resamples have. `cargo test --release --test metrics_coverage -- --nocapture`
//! prints the table of `benches/README.md`.

#[path = "metrics_coverage/journal.rs"]
mod journal;

use clsgen::{
    metrics::{
        Outcome, Sample,
        bootstrap::{Resampler, Statistic},
        calibration::{brier, rows, sigmoid},
        classification::Confusion,
        delong,
        significance::normal_cdf,
    },
    rng::{Rng, streams},
};

/// Simulated data sets, and resamples of each.
const SETS: u64 = 1500;
const RESAMPLES: usize = 400;

/// Means of the scores of class 0 and class 1.
const MEANS: [f64; 2] = [-0.8, 0.6];

/// How often a record's text contradicts the call.
const FLIPPED: f64 = 0.1;

/// Records in groups of one positive and two negatives that share an effect of variance `shared`; ungrouped when it is
/// 0.
struct Design {
    groups: u64,
    shared: f64,
}

/// A data set: the model's sample, and the probabilities of another model that sees half of the score and noise of its
/// own.
struct Set {
    sample: Sample,
    other: Vec<f64>,
}

impl Design {
    fn draw(&self, step: u64) -> Set {
        let rng = Rng::new(11, streams::NOTES);
        // A wide key space a data set: the draws of two never meet.
        let normal = |kind: u64, i: u64| f64::from(rng.normal(step * 8 + kind, i));
        let mut set = Set { sample: Sample::new(), other: Vec::new() };
        for i in 0..3 * self.groups {
            let group = i / 3;
            let label = i % 3 == 0;
            let score = MEANS[usize::from(label)] + normal(0, i) + self.shared.sqrt() * normal(1, group);
            let said = (score >= 0.0) ^ (f64::from(rng.uniform(step * 8 + 2, i)) < FLIPPED);
            let name = (self.shared > 0.0).then(|| group.to_string());
            set.sample.push(sigmoid(score), label, Some(said), name.as_deref());
            set.other.push(sigmoid(0.5 * score + normal(3, i)));
        }
        set
    }

    /// Standard deviation of a score.
    fn deviation(&self) -> f64 {
        (1.0 + self.shared).sqrt()
    }

    /// Share of a class that is called positive.
    fn called(&self, class: usize) -> f64 {
        normal_cdf(MEANS[class] / self.deviation())
    }

    /// Of a positive's pairs one in `groups` is with negatives of its own group, where the shared effect cancels.
    fn auroc(&self) -> f64 {
        let gap = MEANS[1] - MEANS[0];
        let same = 1.0 / self.groups as f64;
        (1.0 - same) * normal_cdf(gap / (2f64.sqrt() * self.deviation())) + same * normal_cdf(gap / 2f64.sqrt())
    }

    /// Mean of (σ(s) − y)² over both classes, by the trapezoid rule.
    fn brier(&self) -> f64 {
        let class = |class: usize| {
            let mut sum = 0.0;
            let mut mass = 0.0;
            for k in -4000..=4000 {
                let z = f64::from(k) * 2e-3;
                let density = (-z * z / 2.0).exp();
                sum += density * (sigmoid(MEANS[class] + self.deviation() * z) - class as f64).powi(2);
                mass += density;
            }
            sum / mass
        };
        (2.0 * class(0) + class(1)) / 3.0
    }
}

/// F1 where one record in three is positive.
fn f1([false_rate, true_rate]: [f64; 2]) -> f64 {
    2.0 * true_rate / (1.0 + true_rate + 2.0 * false_rate)
}

fn table(sample: &Sample, probabilities: &[f64], weights: &[u32]) -> Confusion {
    let records = probabilities.iter().zip(sample.labels()).zip(weights);
    Confusion::count(records.map(|((&probability, &label), &weight)| (label, probability >= 0.5, weight)))
}

fn agreement(sample: &Sample, weights: &[u32]) -> Outcome {
    let records = sample.probabilities().iter().zip(sample.verbalized()).zip(weights);
    Confusion::count(records.map(|((&probability, &said), &weight)| (said == Some(true), probability >= 0.5, weight)))
        .kappa()
}

fn brier_of(sample: &Sample, weights: &[u32]) -> Outcome {
    brier(rows(sample.probabilities(), sample.labels(), weights))
}

/// How often an interval held its truth.
struct Tally {
    name: &'static str,
    truth: f64,
    held: u64,
}

/// Draws the data sets, asks for the intervals of each, and asserts 95 % ± 2 %.
fn check(design: &Design, truths: &[(&'static str, f64)], intervals: impl Fn(&Set, u64) -> Vec<Option<[f64; 2]>>) {
    let mut tallies: Vec<Tally> = truths.iter().map(|&(name, truth)| Tally { name, truth, held: 0 }).collect();
    for step in 0..SETS {
        let found = intervals(&design.draw(step), step);
        assert_eq!(found.len(), tallies.len());
        for (tally, interval) in tallies.iter_mut().zip(found) {
            let [low, high] = interval.unwrap_or_else(|| panic!("{}: no interval", tally.name));
            tally.held += u64::from(low <= tally.truth && tally.truth <= high);
        }
    }
    let share = |tally: &Tally| tally.held as f64 / SETS as f64;
    for tally in &tallies {
        println!("| {} | {:.4} | {:.1} % |", tally.name, tally.truth, 100.0 * share(tally));
    }
    for tally in &tallies {
        assert!((share(tally) - 0.95).abs() <= 0.02, "{} is covered in {}", tally.name, share(tally));
    }
}

#[test]
fn independent_records() {
    let design = Design { groups: 70, shared: 0.0 };
    let called = [0, 1].map(|class| design.called(class));
    let other = MEANS.map(|mean| normal_cdf(0.5 * mean / 1.25f64.sqrt()));
    let positive = (2.0 * called[0] + called[1]) / 3.0;
    let said = positive * (1.0 - FLIPPED) + (1.0 - positive) * FLIPPED;
    let chance = positive * said + (1.0 - positive) * (1.0 - said);
    let gap = MEANS[1] - MEANS[0];
    let own_area = normal_cdf(gap / 2f64.sqrt());
    let other_area = normal_cdf(0.5 * gap / 2.5f64.sqrt());
    let truths = [
        ("AUROC, DeLong", own_area),
        ("difference of two AUROCs, DeLong", own_area - other_area),
        ("sensitivity, bootstrap", called[1]),
        ("F1, bootstrap", f1(called)),
        ("κ of call and text, bootstrap", (1.0 - FLIPPED - chance) / (1.0 - chance)),
        ("Brier score, bootstrap", design.brier()),
        ("difference of two F1s, paired bootstrap", f1(called) - f1(other)),
    ];
    check(&design, &truths, |Set { sample, other }, seed| {
        let labels = sample.labels();
        let clusters = sample.clusters();
        let count = sample.cluster_count();
        let own = |weights: &[u32]| table(sample, sample.probabilities(), weights);
        let area = delong::auroc(sample.probabilities(), labels, clusters, count).map(|area| area.ci95());
        let difference =
            delong::paired(sample.probabilities(), other, labels, clusters, count).map(|difference| difference.ci95());
        let statistics = [
            Statistic::new(sample.len(), |weights| own(weights).recall()),
            Statistic::new(sample.len(), |weights| own(weights).f1()),
            Statistic::new(sample.len(), |weights| agreement(sample, weights)),
            Statistic::new(sample.len(), |weights| brier_of(sample, weights)),
            Statistic::new(sample.len(), |weights| Ok(own(weights).f1()? - table(sample, other, weights).f1()?)),
        ];
        let measured = Resampler::new(sample, seed).measure(&statistics, RESAMPLES);
        [area, difference].into_iter().chain(measured.into_iter().map(|metric| metric.ci95)).collect()
    });
}

#[test]
fn records_in_groups() {
    let design = Design { groups: 100, shared: 1.0 };
    let truths = [
        ("AUROC in groups, DeLong–Obuchowski", design.auroc()),
        ("specificity in groups, bootstrap", 1.0 - design.called(0)),
        ("Brier score in groups, bootstrap", design.brier()),
    ];
    check(&design, &truths, |Set { sample, .. }, seed| {
        let area = delong::auroc(sample.probabilities(), sample.labels(), sample.clusters(), sample.cluster_count());
        let statistics = [
            Statistic::new(sample.len(), |weights| table(sample, sample.probabilities(), weights).specificity()),
            Statistic::new(sample.len(), |weights| brier_of(sample, weights)),
        ];
        let measured = Resampler::new(sample, seed).measure(&statistics, RESAMPLES);
        std::iter::once(area.map(|area| area.ci95())).chain(measured.into_iter().map(|metric| metric.ci95)).collect()
    });
}
