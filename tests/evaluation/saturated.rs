//! Heads that are sure: their probabilities are 0 and 1 to the last digit, their logits are not.

use super::*;
use clsgen::metrics::{calibration::logit, calibrators::Calibrator};

/// 40 records whose log-odds reach from -90 to 90, some of them wrong.
fn rows() -> Vec<(f64, f64)> {
    let row = |i: usize| {
        let z = (i as f64 - 19.5) * 4.6;
        (z, f64::from(u8::from((z > 0.0) ^ matches!(i, 4 | 17 | 18 | 22 | 33))))
    };
    (0..40).map(row).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn lines(logits: bool) -> String {
    let line = |(i, (z, y)): (usize, (f64, f64))| {
        let mut line = json!({"id": format!("r{i}"), "label": y as u8, "probability": sigmoid(z)});
        if logits {
            line["logits"] = json!([-z / 2.0, z / 2.0]);
        }
        line.to_string() + "\n"
    };
    rows().into_iter().enumerate().map(line).collect()
}

/// Temperature, Platt's intercept and slope, and `brier_after`.
fn fitted(logits: bool) -> (f64, [f64; 2], f64) {
    let bench = Bench::new();
    bench.file("dev.jsonl", &lines(logits));
    bench.file("test.jsonl", &lines(logits));
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    let methods = &bench.json("calibration.json")["methods"];
    let number = |method: &str, key: &str| methods[method]["calibrator"][key].as_f64().unwrap();
    let brier = bench.json("metrics.json")["calibration"]["brier_after"]["value"].as_f64().unwrap();
    (number("temperature", "temperature"), [number("platt", "intercept"), number("platt", "slope")], brier)
}

#[test]
fn calibrators_are_fitted_to_the_logits_not_to_clipped_probabilities() {
    let (temperature, [intercept, slope], brier) = fitted(true);
    let rows = rows();
    // Where the likelihood's derivatives are 0: of 1/T, and of Platt's two numbers for his targets.
    let score: f64 = rows.iter().map(|(z, y)| z * (y - sigmoid(z / temperature))).sum();
    assert!(score.abs() < 1e-6, "{score} at T = {temperature}");
    let positives: f64 = rows.iter().map(|row| row.1).sum();
    let targets = [1.0 / (rows.len() as f64 - positives + 2.0), (positives + 1.0) / (positives + 2.0)];
    let residual = |(z, y): &(f64, f64)| targets[*y as usize] - sigmoid(intercept + slope * z);
    let scores: [f64; 2] = [rows.iter().map(residual).sum(), rows.iter().map(|row| residual(row) * row.0).sum()];
    assert!(scores.iter().all(|score| score.abs() < 1e-6), "{scores:?}");
    let after: f64 = rows.iter().map(|(z, y)| (sigmoid(z / temperature) - y).powi(2)).sum();
    // Of 10⁻¹¹ from 1 a probability keeps five digits.
    assert!((brier - after / 40.0).abs() < 1e-7, "{brier}");
    // Without logits the clipped probabilities are all that is known.
    let (clipped, ..) = fitted(false);
    let clip = |z: f64| logit(sigmoid(z));
    let score: f64 = rows.iter().map(|(z, y)| clip(*z) * (y - sigmoid(clip(*z) / clipped))).sum();
    assert!(score.abs() < 1e-6 && temperature > 1.2 * clipped, "{score}: {clipped}, {temperature}");
}

#[test]
fn a_calibrator_keeps_the_order_of_sure_heads() {
    for calibrator in [Calibrator::Temperature { temperature: 9.0 }, Calibrator::Platt { intercept: -0.3, slope: 0.1 }]
    {
        let applied = |z: f64| calibrator.apply(sigmoid(z), Some(&[1.0, 1.0 + z]));
        let all: Vec<f64> = (-100..100).map(|i| applied(f64::from(i))).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        // A probability that was rounded tells less than its logits do.
        let rounded = calibrator.apply(1.0, Some(&[0.0, 15.0])) - calibrator.apply(sigmoid(15.0), None);
        assert!(rounded.abs() < 1e-9, "{rounded}");
        // Logits of another probability do not count.
        assert_eq!(calibrator.apply(0.4, Some(&[0.0, 15.0])), calibrator.apply(0.4, None));
        assert_eq!(calibrator.apply(0.3, Some(&[0.0, f64::ln(3.0 / 7.0)])), calibrator.apply(0.3, None));
    }
}
