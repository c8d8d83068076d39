//! Thresholds between two classes, chosen on dev and frozen before test labels are read (the paper's A.2.2).
//!
//! Candidates are the distinct dev probabilities (for κ: over the parsable records), and for the cost of errors one
//! above them all, under which nobody is positive; of equally good ones the highest wins. One pass from the highest
//! probability down visits them all.

use serde::{Deserialize, Serialize};

use super::{Outcome, Sample, classification::Confusion, ranking::Ranking};

/// What a threshold is chosen for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Highest F1 against the gold labels.
    F1,
    /// Highest κ against the verbalized labels, over the parsable records.
    Kappa,
    /// Highest sensitivity + specificity − 1.
    Youden,
    /// Lowest cost of errors.
    Cost(Costs),
}

/// What an error costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// A negative called positive.
    pub false_positive: f64,
    /// A positive called negative.
    pub false_negative: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { false_positive: 1.0, false_negative: 1.0 }
    }
}

impl Costs {
    /// Mean cost of a record.
    pub fn mean(&self, table: &Confusion) -> Outcome {
        let cost =
            self.false_positive * table.false_positives as f64 + self.false_negative * table.false_negatives as f64;
        if table.total() == 0 { Err("no record") } else { Ok(cost / table.total() as f64) }
    }
}

impl Objective {
    /// What is maximised.
    fn gain(&self, table: &Confusion) -> Outcome {
        match self {
            Self::F1 => table.f1(),
            Self::Kappa => table.kappa(),
            Self::Youden => table.youden(),
            Self::Cost(costs) => costs.mean(table).map(|cost| -cost),
        }
    }
}

/// A threshold and what it reached on dev.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Positive is p ≥ threshold.
    pub threshold: f64,
    /// The objective's value on dev: F1, κ, J, or mean cost.
    pub value: f64,
}

/// The threshold of `dev` that is best for `objective`, or why there is none.
///
/// ```
/// use clsgen::metrics::{Sample, threshold::{Objective, tune}};
/// let mut dev = Sample::new();
/// for (probability, label) in [(0.2, false), (0.3, true), (0.6, false), (0.7, true)] {
///     dev.push(probability, label, None, None);
/// }
/// assert_eq!(tune(&dev, Objective::F1).unwrap().threshold, 0.3);
/// ```
pub fn tune(dev: &Sample, objective: Objective) -> Result<Tuned, &'static str> {
    let rows = if objective == Objective::Kappa { dev.parsable() } else { (0..dev.len() as u32).collect() };
    if rows.is_empty() {
        return Err(if dev.is_empty() { "it has no record" } else { "it has no parsable record" });
    }
    let truth = |i: u32| {
        if objective == Objective::Kappa {
            dev.verbalized()[i as usize] == Some(true)
        } else {
            dev.labels()[i as usize]
        }
    };
    let positives = rows.iter().filter(|&&i| truth(i)).count() as u64;
    if objective != Objective::Kappa && (positives == 0 || positives == rows.len() as u64) {
        return Err("it has only one class");
    }
    let mut table =
        Confusion { false_negatives: positives, true_negatives: rows.len() as u64 - positives, ..Confusion::default() };
    let mut best: Result<Tuned, &'static str> = Err("undefined at every threshold");
    if let (Objective::Cost(_), Ok(value)) = (objective, objective.gain(&table)) {
        let highest = dev.probabilities().iter().copied().fold(0.0, f64::max);
        best = Ok(Tuned { threshold: highest.next_up(), value });
    }
    for block in Ranking::of(dev.probabilities(), rows).blocks() {
        for &i in block {
            let (gained, lost) = if truth(i) {
                (&mut table.true_positives, &mut table.false_negatives)
            } else {
                (&mut table.false_positives, &mut table.true_negatives)
            };
            *gained += 1;
            *lost -= 1;
        }
        let Ok(value) = objective.gain(&table) else { continue };
        if best.is_err() || best.is_ok_and(|best| is_more(value, best.value)) {
            best = Ok(Tuned { threshold: dev.probabilities()[block[0] as usize], value });
        }
    }
    best.map(
        |tuned| if matches!(objective, Objective::Cost(_)) { Tuned { value: -tuned.value, ..tuned } } else { tuned },
    )
}

/// Whether `value` is above `other` by more than rounding: costs such as 0.1 are no binary numbers, and equal sums of
/// them differ in their last bits.
fn is_more(value: f64, other: f64) -> bool {
    value - other > 1e-12 * value.abs().max(other.abs())
}

/// Every threshold tuned on dev, as `thresholds.json` keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Thresholds {
    /// For F1.
    pub f1: Option<Tuned>,
    /// For κ.
    pub kappa: Option<Tuned>,
    /// For Youden's J.
    pub youden: Option<Tuned>,
    /// For the cost of errors.
    pub cost: Option<Tuned>,
    /// Why the ones that are missing are, in the order above.
    #[serde(skip)]
    pub reasons: [Option<&'static str>; 4],
}

impl Thresholds {
    /// Tunes all of them; what is undefined on dev is left out, with its reason.
    pub fn tune(dev: &Sample, costs: Costs) -> Self {
        let tuned = [Objective::F1, Objective::Kappa, Objective::Youden, Objective::Cost(costs)]
            .map(|objective| tune(dev, objective));
        let [f1, kappa, youden, cost] = tuned.map(Result::ok);
        Self { f1, kappa, youden, cost, reasons: tuned.map(Result::err) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three false positives at 0.1 each sum to more than 0.3, in binary.
    #[test]
    fn costs_that_are_equal_but_for_rounding_leave_the_highest_threshold() {
        let mut dev = Sample::new();
        let rows = [(0.9, true), (0.5, true), (0.5, true), (0.5, true), (0.5, false)];
        rows.into_iter().chain([(0.1, false); 5]).for_each(|(p, y)| dev.push(p, y, None, None));
        for unit in [1.0, 0.1] {
            let costs = Costs { false_positive: 3.0 * unit, false_negative: unit };
            assert_eq!(tune(&dev, Objective::Cost(costs)).unwrap().threshold, 0.9, "{unit}");
        }
    }
}
