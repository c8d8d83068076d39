//! Maps from a probability to a better one, fitted on dev only.
//!
//! `z` is the head's own log-odds, the difference of its logits; where a prediction has no logits, `logit p`.
//!
//! - **Temperature** (Guo et al., ICML 2017): `σ(z / T)`, T by maximum likelihood.
//! - **Platt** (1999): `σ(a + b · z)`, fitted to his smoothed targets `(n₊+1)/(n₊+2)` and `1/(n₋+2)`, so
//!   that it exists even where the classes separate.
//! - **Isotonic** (Zadrozny & Elkan, KDD 2002): pool adjacent violators, linear between the fitted points and constant
//!   beyond, as scikit-learn's `IsotonicRegression(out_of_bounds = "clip")`.

use serde::{Deserialize, Serialize};

use super::{
    Sample,
    calibration::{log_odds, logistic, sigmoid},
};

/// Isotonic regression follows noise below this many dev records.
pub const ISOTONIC_MINIMUM: usize = 1000;

/// Which map to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// One number.
    #[default]
    Temperature,
    /// Two numbers.
    Platt,
    /// A step-free monotone map.
    Isotonic,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Temperature, Self::Platt, Self::Isotonic];

    /// Its name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Platt => "platt",
            Self::Isotonic => "isotonic",
        }
    }
}

/// A fitted map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Calibrator {
    /// `σ(z / temperature)`.
    Temperature {
        /// Above 1 it tempers, below 1 it sharpens.
        temperature: f64,
    },
    /// `σ(intercept + slope · z)`.
    Platt {
        /// a.
        intercept: f64,
        /// b.
        slope: f64,
    },
    /// Linear between `(x, y)` points.
    Isotonic {
        /// Probabilities, strictly increasing.
        x: Vec<f64>,
        /// What they become, not decreasing.
        y: Vec<f64>,
    },
}

impl Calibrator {
    /// Fits `method` on dev; isotonic on fewer than [`ISOTONIC_MINIMUM`] records only when `force` is set.
    pub fn fit(dev: &Sample, method: Method, force: bool) -> Result<Self, String> {
        let positives = dev.positives();
        if dev.is_empty() {
            return Err("no dev record".to_owned());
        }
        if positives == 0 || positives == dev.len() {
            return Err("dev has only one class".to_owned());
        }
        match method {
            Method::Temperature => temperature(dev),
            Method::Platt => platt(dev),
            Method::Isotonic if dev.len() < ISOTONIC_MINIMUM && !force => {
                Err(format!("isotonic calibration needs {ISOTONIC_MINIMUM} dev records, dev has {}", dev.len()))
            }
            Method::Isotonic => Ok(isotonic(dev)),
        }
    }

    /// The calibrated probability of what the head gave these logits, where they are known.
    pub fn apply(&self, probability: f64, logits: Option<&[f64]>) -> f64 {
        self.map(probability, log_odds(probability, logits))
    }

    fn map(&self, probability: f64, log_odds: f64) -> f64 {
        match self {
            Self::Temperature { temperature } => sigmoid(log_odds / temperature),
            Self::Platt { intercept, slope } => sigmoid(intercept + slope * log_odds),
            Self::Isotonic { x, y } => interpolate(x, y, probability),
        }
    }

    /// `sample` with every probability calibrated.
    pub fn apply_all(&self, sample: &Sample) -> Sample {
        let rows = sample.probabilities().iter().zip(sample.log_odds());
        sample.with_probabilities(rows.map(|(&probability, log_odds)| self.map(probability, log_odds)).collect())
    }
}

/// 1/T beyond which every logit that is not 0 makes its row sure.
const FURTHEST: f64 = 1e30;

/// Maximum likelihood of the temperature.
fn temperature(dev: &Sample) -> Result<Calibrator, String> {
    let logits = dev.log_odds();
    let gradient = |inverse: f64| -> f64 {
        logits.iter().zip(dev.labels()).map(|(&x, &y)| x * (f64::from(y) - sigmoid(inverse * x))).sum()
    };
    // At p = 0.5 every temperature gives 0.5; as well as all others, then, but none is better.
    if logits.iter().all(|&x| x == 0.0) {
        return Err("no temperature fits: every probability is 0.5".to_owned());
    }
    let scale = logits.iter().map(|x| x.abs()).sum();
    Ok(Calibrator::Temperature { temperature: likeliest_temperature(gradient, scale)? })
}

/// The temperature at which the likelihood's derivative by 1/T is 0. That falls with 1/T, so bisection on log T cannot
/// miss. `scale` is the sum of the sizes of what the derivative adds up, which says what of it is rounding.
pub(super) fn likeliest_temperature(gradient: impl Fn(f64) -> f64, scale: f64) -> Result<f64, String> {
    if gradient(0.0) <= 1e-12 * scale {
        return Err("no finite temperature fits: none does better than equal probabilities for every class".to_owned());
    }
    let mut low = 1e-3f64.ln();
    let mut high = 1e3f64.ln();
    // Probabilities that hardly differ, or hardly differ from 0 and 1, have theirs further out.
    while gradient(low.exp()) <= 0.0 && low > FURTHEST.recip().ln() {
        low -= 1.0;
    }
    while gradient(high.exp()) >= 0.0 {
        if high > FURTHEST.ln() {
            return Err("no finite temperature fits: the probabilities are right throughout".to_owned());
        }
        high += 1.0;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if gradient(middle.exp()) > 0.0 { low = middle } else { high = middle }
    }
    Ok((-(low + high) / 2.0).exp())
}

fn platt(dev: &Sample) -> Result<Calibrator, String> {
    let positives = dev.positives() as f64;
    let negatives = dev.len() as f64 - positives;
    let high = (positives + 1.0) / (positives + 2.0);
    let low = 1.0 / (negatives + 2.0);
    let rows: Vec<(f64, f64, f64)> =
        dev.log_odds().into_iter().zip(dev.labels()).map(|(z, &y)| (z, if y { high } else { low }, 1.0)).collect();
    let fit = logistic(rows.iter().copied())?;
    Ok(Calibrator::Platt { intercept: fit.intercept, slope: fit.slope })
}

/// Pool adjacent violators over the distinct probabilities.
fn isotonic(dev: &Sample) -> Calibrator {
    let mut rows: Vec<(f64, f64)> =
        dev.probabilities().iter().zip(dev.labels()).map(|(&p, &y)| (p, f64::from(y))).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Blocks of (first x, last x, sum of y, count); a block whose mean falls below the one before joins it.
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        blocks.push((same[0].0, same[0].0, same.iter().map(|row| row.1).sum(), same.len() as f64));
        while let [.., before, last] = blocks.as_mut_slice()
            && before.2 * last.3 >= last.2 * before.3
        {
            *before = (before.0, last.1, before.2 + last.2, before.3 + last.3);
            blocks.pop();
        }
    }
    let mut x = Vec::new();
    let mut y = Vec::new();
    for (first, last, sum, count) in blocks {
        for end in [first, last] {
            if x.last() != Some(&end) {
                x.push(end);
                y.push(sum / count);
            }
        }
    }
    Calibrator::Isotonic { x, y }
}

/// The value at `at` on the line through the points; constant beyond the ends.
fn interpolate(x: &[f64], y: &[f64], at: f64) -> f64 {
    match x.partition_point(|&point| point < at) {
        0 => y.first().copied().unwrap_or(at),
        k if k == x.len() => y.last().copied().unwrap_or(at),
        k => y[k - 1] + (y[k] - y[k - 1]) * (at - x[k - 1]) / (x[k] - x[k - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(rows: impl Iterator<Item = (f64, bool)>) -> Result<f64, String> {
        let mut dev = Sample::new();
        rows.for_each(|(p, y)| dev.push(p, y, None, None));
        match temperature(&dev)? {
            Calibrator::Temperature { temperature } => Ok(temperature),
            other => Err(format!("{other:?}")),
        }
    }

    /// Of one probability throughout, half of it right, the derivative without end of T is 0 but for rounding, whose
    /// sign goes with the order of the records.
    #[test]
    fn chance_is_told_in_any_order() {
        for n in 1..40 {
            for first in [false, true] {
                let told = fitted((0..2 * n).map(|i| (0.01, (i < n) == first)));
                assert!(told.unwrap_err().contains("none does better than equal probabilities"), "{n} {first}");
            }
        }
    }

    #[test]
    fn a_temperature_may_be_far_from_1() {
        // 9 of 10 are right at p = 0.5 ± 1e-5, 51 of 100 at p within 1e-9 of 0 and 1: the log-odds become those of
        // the shares.
        let near = fitted((0..200).map(|i| (if i % 2 == 0 { 0.500_01 } else { 0.499_99 }, (i % 2 == 0) != (i < 20))));
        let sure = fitted((0..200).map(|i| (if i % 2 == 0 { 1.0 - 1e-9 } else { 1e-9 }, (i % 2 == 0) != (i < 98))));
        assert!((near.unwrap() / (4e-5 / (0.9f64 / 0.1).ln()) - 1.0).abs() < 1e-4);
        assert!((sure.unwrap() / (1e9f64.ln() / (0.51f64 / 0.49).ln()) - 1.0).abs() < 1e-4);
    }
}
