//! The patient behind a note, and the risk function: the sum of [`Term`]s plus an intercept set by the prevalence.

use super::{
    draws::Draws,
    scenarios::{ELECTIVE_WEIGHT, SCENARIOS, Scenario},
    words::{DISPOSITION, FINDINGS, MOBILITY},
};
use crate::metrics::calibration::logit;

/// Patients averaged over to set the intercept, and the upper half of the step space that they are drawn from.
const CALIBRATION: u64 = 4096;
const CALIBRATION_STEP: u64 = 1 << 63;

/// Everything the risk depends on, and what the text needs.
pub(super) struct Patient {
    pub age: u32,
    pub female: bool,
    scenario: usize,
    /// One entry a finding of [`FINDINGS`].
    pub findings: [bool; FINDINGS.len()],
    pub albumin: f64,
    pub lactate: f64,
    pub creatinine: f64,
    pub mobility: usize,
    pub disposition: usize,
}

/// One summand of the risk: what it is in words, and its log-odds.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// A noun phrase: "metastatic cancer", "a serum albumin of 2.1".
    pub name: String,
    /// Log-odds it adds.
    pub weight: f64,
}

impl Patient {
    /// Draws a patient. Frailty links the findings, as it does in life.
    pub fn draw(draws: &mut Draws) -> Self {
        let frailty = draws.normal(0.0, 1.0);
        let scenario = draws.below(SCENARIOS.len());
        let elective = SCENARIOS[scenario].elective;
        let frailty = if elective { frailty - 1.0 } else { frailty };
        let shifted = |rate: f64| sigmoid(logit(rate) + 0.8 * frailty);
        let findings = std::array::from_fn(|place| draws.chance(shifted(FINDINGS[place].rate)));
        let injured = findings[KIDNEY];
        let grade = |draws: &mut Draws, grades: usize| {
            let level = (0.5 * frailty + draws.normal(0.0, 0.6)) * 0.6 + 0.4;
            ((level * grades as f64).floor().max(0.0) as usize).min(grades - 1)
        };
        Self {
            age: draws.normal(70.0 + 4.0 * frailty, 10.0).clamp(41.0, 97.0) as u32,
            female: draws.chance(0.5),
            scenario,
            findings,
            albumin: tenth(draws.normal(3.5 - 0.35 * frailty, 0.4).clamp(1.5, 4.8)),
            lactate: tenth(
                draws.normal(1.7 + 0.4 * frailty, 0.7).clamp(0.6, 9.0) + if findings[SHOCK] { 2.4 } else { 0.0 },
            ),
            creatinine: tenth(draws.normal(1.0, 0.2).clamp(0.5, 1.6) * if injured { 2.6 } else { 1.0 }),
            mobility: grade(draws, MOBILITY.len()),
            disposition: grade(draws, DISPOSITION.len()),
        }
    }

    pub fn scenario(&self) -> &'static Scenario {
        &SCENARIOS[self.scenario]
    }

    /// Every summand of this patient's risk that is not zero.
    pub fn terms(&self) -> Vec<Term> {
        let mobility = &MOBILITY[self.mobility];
        let disposition = &DISPOSITION[self.disposition];
        let mut terms = vec![
            Term { name: format!("an age of {}", self.age), weight: 0.05 * (f64::from(self.age) - 70.0) },
            Term { name: mobility.name.into(), weight: mobility.weight },
            Term { name: disposition.name.into(), weight: disposition.weight },
        ];
        let present = FINDINGS.iter().zip(self.findings).filter(|(_, there)| *there);
        terms.extend(present.map(|(finding, _)| Term { name: finding.name.into(), weight: finding.weight }));
        if self.scenario().elective {
            terms.push(Term { name: "a planned admission".into(), weight: ELECTIVE_WEIGHT });
        }
        let albumin = match self.albumin {
            low if low < 2.5 => 1.0,
            low if low < 3.2 => 0.4,
            _ => -0.3,
        };
        terms.push(Term { name: format!("a serum albumin of {:.1}", self.albumin), weight: albumin });
        if self.lactate > 4.0 {
            terms.push(Term { name: format!("a lactate of {:.1}", self.lactate), weight: 0.8 });
        }
        terms.retain(|term| term.weight != 0.0);
        terms
    }

    /// The sum of the terms.
    pub fn score(&self) -> f64 {
        self.terms().iter().map(|term| term.weight).sum()
    }
}

/// Places in [`FINDINGS`] that laboratory values follow.
const SHOCK: usize = 4;
const KIDNEY: usize = 6;

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The intercept at which the mean risk is `prevalence`: bisection over patients that no note is written about.
///
/// It depends on the prevalence alone, so every seed shares one risk function.
pub(super) fn intercept(prevalence: f64) -> f64 {
    let score = |i| Patient::draw(&mut Draws::new(0, CALIBRATION_STEP + i, 0)).score();
    let scores: Vec<f64> = (0..CALIBRATION).map(score).collect();
    let mut low = -30.0;
    let mut high = 30.0;
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let mean = scores.iter().map(|score| sigmoid(middle + score)).sum::<f64>() / scores.len() as f64;
        if mean < prevalence { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
