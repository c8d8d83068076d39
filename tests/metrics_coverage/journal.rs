//! Calibration slope, intercept and O:E, and the operating points at thresholds that another sample froze.

use clsgen::metrics::{
    Metric, Options, evaluate_calibration,
    operating::{Aim, OperatingPoint, Target, operating_points},
};

use super::*;

/// Positives of the calibration's samples; two negatives each.
const DESIGN: Design = Design { groups: 120, shared: 0.0 };
/// Of the operating points'. Percentiles of a proportion close to 1 are a little short: of 120 positives, a sensitivity
/// of 0.9 is held in 92.4 %, a specificity of 0.97 in 92.5 %, all others within 95 ± 2 %.
const MORE: Design = Design { groups: 400, shared: 0.0 };

const TARGETS: [Target; 5] = [
    Target { target: Aim::Sensitivity, at: 0.8 },
    Target { target: Aim::Sensitivity, at: 0.9 },
    Target { target: Aim::Specificity, at: 0.9 },
    Target { target: Aim::AlertRate, at: 0.1 },
    Target { target: Aim::AlertRate, at: 0.2 },
];

/// Mean of `of(score)` over a class, by the trapezoid rule.
fn mean_of(class: usize, of: impl Fn(f64) -> f64) -> f64 {
    let points = (-4000..=4000).map(|k| f64::from(k) * 2e-3);
    let (sum, mass) = points.fold((0.0, 0.0), |(sum, mass), z| {
        let density = (-z * z / 2.0).exp();
        (sum + density * of(MEANS[class] + DESIGN.deviation() * z), mass + density)
    });
    sum / mass
}

/// Mean over all records, of which one in three is positive.
fn mean(of: impl Fn(f64) -> f64) -> f64 {
    (2.0 * mean_of(0, &of) + mean_of(1, &of)) / 3.0
}

/// The shift of the log-odds that makes the mean probability the share of positives.
fn intercept() -> f64 {
    let mut ends = [-10.0, 10.0];
    for _ in 0..60 {
        let middle = (ends[0] + ends[1]) / 2.0;
        let too_many = mean(|score| sigmoid(score + middle)) > 1.0 / 3.0;
        ends[usize::from(too_many)] = middle;
    }
    ends[0]
}

#[test]
fn slope_intercept_and_observed_to_expected() {
    // Normal scores of one variance: the log-odds are a line of the score, whose slope is the distance of the means.
    let truths = [
        ("calibration slope, bootstrap", MEANS[1] - MEANS[0]),
        ("calibration intercept, bootstrap", intercept()),
        ("O:E, bootstrap", 1.0 / 3.0 / mean(sigmoid)),
    ];
    check(&DESIGN, &truths, |Set { sample, .. }, seed| {
        let measured =
            evaluate_calibration(sample, &Options { bootstrap: RESAMPLES, seed, bins: 1, ..Options::default() });
        vec![measured.slope.ci95, measured.intercept.ci95, measured.observed_expected.ci95]
    });
}

/// What a threshold on the log-odds leads to in the population, in the order of [`OperatingPoint::named`].
fn population(threshold: f64) -> [f64; 6] {
    let [false_rate, true_rate] = MEANS.map(|mean| normal_cdf((mean - threshold) / MORE.deviation()));
    let ppv = true_rate / (true_rate + 2.0 * false_rate);
    let npv = 2.0 * (1.0 - false_rate) / (2.0 * (1.0 - false_rate) + 1.0 - true_rate);
    [true_rate, 1.0 - false_rate, ppv, npv, 100.0 * (true_rate + 2.0 * false_rate) / 3.0, 1.0 / ppv]
}

#[test]
fn operating_points_at_frozen_thresholds() {
    let mut held = [[0u64; 6]; TARGETS.len()];
    for step in 0..SETS {
        let dev = MORE.draw(SETS + step).sample;
        let frozen: Vec<_> = TARGETS.iter().map(|target| target.freeze(&dev)).collect();
        let sample = MORE.draw(step).sample;
        let options = Options { bootstrap: RESAMPLES, seed: step, ..Options::default() };
        for (held, point) in held.iter_mut().zip(operating_points(&sample, &frozen, &options)) {
            let p = point.threshold.unwrap();
            let truth = population((p / (1.0 - p)).ln());
            let holds = |(metric, truth): (&Metric, f64)| {
                let [low, high] = metric.ci95.unwrap();
                low <= truth && truth <= high
            };
            let metrics = OperatingPoint::named(&point).map(|(_, metric)| metric);
            for (k, both) in metrics.into_iter().zip(truth).enumerate() {
                held[k] += u64::from(holds(both));
            }
        }
    }
    let mut apart = Vec::new();
    for (target, held) in TARGETS.iter().zip(held) {
        let shares = held.map(|held| held as f64 / SETS as f64);
        println!("| {} | {} |", target.name(), shares.map(|share| format!("{:.1} %", 100.0 * share)).join(" | "));
        apart
            .extend(shares.into_iter().filter(|share| (share - 0.95).abs() > 0.02).map(|share| (target.name(), share)));
    }
    assert!(apart.is_empty(), "{apart:?}");
}
