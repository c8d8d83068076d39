//! One temperature for all K logits (Guo et al., ICML 2017): `softmax(z / T)`, T by maximum likelihood on dev only.
//!
//! It changes no arg max. The logits are ln p: a softmax forgets what is added to all of them.

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::metrics::{calibrators::likeliest_temperature, softmax};

/// Probabilities are kept this far from 0 before their logarithm is taken.
const MARGIN: f64 = 1e-12;

/// A fitted temperature; in a file `{"method": "temperature", "temperature": T}`, as two classes have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename = "temperature")]
pub struct Temperature {
    /// Above 1 it tempers, below 1 it sharpens.
    pub temperature: f64,
}

impl Temperature {
    /// The temperature that makes the gold classes of `dev` likeliest.
    ///
    /// # Errors
    /// No record, one class only, or no finite temperature is best.
    pub fn fit(dev: &Sample) -> Result<Self, String> {
        match dev.class_counts().iter().filter(|&&count| count > 0).count() {
            0 => Err("no dev record".to_owned()),
            1 => Err("dev has only one class".to_owned()),
            _ => fit(&logits(dev.probabilities()), dev.classes(), dev.labels()),
        }
    }

    /// The calibrated probabilities of one record, (K).
    pub fn apply(&self, probabilities: &[f64]) -> Vec<f64> {
        let scaled: Vec<f64> = logits(probabilities).iter().map(|logit| logit / self.temperature).collect();
        softmax(&scaled)
    }

    /// `sample` with every probability calibrated.
    #[must_use]
    pub fn apply_all(&self, sample: &Sample) -> Sample {
        sample.with_probabilities(sample.rows().flat_map(|row| self.apply(row)).collect())
    }
}

fn logits(probabilities: &[f64]) -> Vec<f64> {
    probabilities.iter().map(|p| p.max(MARGIN).ln()).collect()
}

/// Maximum likelihood of the temperature over `logits`, (n, K) row-major; the likelihood's derivative by 1/T is
/// `Σ (z_y − Σ_k p_k z_k)`.
fn fit(logits: &[f64], classes: usize, labels: &[u8]) -> Result<Temperature, String> {
    let gradient = |inverse: f64| -> f64 {
        let row = |(row, &label): (&[f64], &u8)| {
            let scaled: Vec<f64> = row.iter().map(|logit| inverse * logit).collect();
            let mean: f64 = softmax(&scaled).iter().zip(row).map(|(p, logit)| p * logit).sum();
            row[usize::from(label)] - mean
        };
        logits.chunks_exact(classes).zip(labels).map(row).sum()
    };
    if logits.chunks_exact(classes).all(|row| row.iter().all(|logit| *logit == row[0])) {
        return Err("no temperature fits: every probability is the same".to_owned());
    }
    let scale = logits.iter().map(|logit| logit.abs()).sum();
    Ok(Temperature { temperature: likeliest_temperature(gradient, scale)? })
}
