//! What the probabilities are worth to someone who must decide, or may abstain.
//!
//! - **Net benefit** at threshold t: `TP/n − FP/n · t/(1−t)` (Vickers & Elkin, *Med. Decis. Making* 26, 2006), beside treating
//!   all and treating none.
//! - **Risk–coverage**: the error rate among the most confident records (confidence = max(p, 1−p), called positive at 0.5), and
//!   **AURC**, its mean over coverage 1/n … 1 (Geifman, Uziel & El-Yaniv, ICLR 2019). Records of equal confidence count as if in
//!   random order, so the order of the file cannot matter.

use super::{Outcome, classification::Confusion, ranking::Ranking};

/// A point of the decision curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetBenefit {
    /// Positive from here on: the odds at which a false alarm is worth a case found.
    pub threshold: f64,
    /// Of deciding by the model.
    pub model: f64,
    /// Of calling everyone positive. Calling no one is 0.
    pub all: f64,
}

/// Net benefit at each threshold in (0, 1); empty without records.
pub fn decision_curve(scores: &[f64], labels: &[bool], thresholds: &[f64]) -> Vec<NetBenefit> {
    let n = labels.len() as f64;
    let usable = thresholds.iter().filter(|&&threshold| threshold > 0.0 && threshold < 1.0 && !labels.is_empty());
    let point = |&threshold: &f64| {
        let benefit = |table: Confusion| (table.true_positives as f64 - table.false_positives as f64 * threshold / (1.0 - threshold)) / n;
        let all = benefit(Confusion::count(labels.iter().map(|&label| (label, true, 1))));
        NetBenefit { threshold, model: benefit(Confusion::at(scores, labels, threshold)), all }
    };
    usable.map(point).collect()
}

/// A point of the risk–coverage curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskCoverage {
    /// Share of the records that are decided, the most confident first.
    pub coverage: f64,
    /// Share of these that are called wrong.
    pub risk: f64,
}

/// Risk at coverage 1/n, 2/n … 1.
pub fn risk_coverage(scores: &[f64], labels: &[bool]) -> Vec<RiskCoverage> {
    let confidence: Vec<f64> = scores.iter().map(|&p| p.max(1.0 - p)).collect();
    let wrong = |&i: &u32| (scores[i as usize] >= 0.5) != labels[i as usize];
    let mut curve = Vec::with_capacity(scores.len());
    let mut errors = 0.0;
    for block in Ranking::new(&confidence).blocks() {
        let block_errors = block.iter().filter(|i| wrong(i)).count() as f64;
        let before = curve.len();
        for k in 1..=block.len() {
            let risk = (errors + block_errors * k as f64 / block.len() as f64) / (before + k) as f64;
            curve.push(RiskCoverage { coverage: (before + k) as f64 / scores.len() as f64, risk });
        }
        errors += block_errors;
    }
    curve
}

/// Area under the risk–coverage curve.
pub fn aurc(scores: &[f64], labels: &[bool]) -> Outcome {
    let curve = risk_coverage(scores, labels);
    if curve.is_empty() { Err("no record") } else { Ok(curve.iter().map(|point| point.risk).sum::<f64>() / curve.len() as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_benefit_by_hand() {
        // At 0.2 the model calls 3 of 4: 2 true, 1 false; odds 0.25.
        let curve = decision_curve(&[0.1, 0.3, 0.6, 0.9], &[false, false, true, true], &[0.0, 0.2, 1.0]);
        assert_eq!(curve.len(), 1);
        assert!((curve[0].model - (2.0 - 0.25) / 4.0).abs() < 1e-15 && (curve[0].all - (2.0 - 0.5) / 4.0).abs() < 1e-15);
    }

    #[test]
    fn aurc_by_hand_and_whatever_the_order_of_ties() {
        // Confidence 0.9 right, 0.8 wrong, 0.6 right: risks 0, 1/2, 1/3.
        let want = (0.0 + 0.5 + 1.0 / 3.0) / 3.0;
        assert!((aurc(&[0.9, 0.2, 0.6], &[true, true, true]).unwrap() - want).abs() < 1e-15);
        let tied = |labels: &[bool]| aurc(&[0.7, 0.7, 0.3], labels).unwrap();
        assert_eq!(tied(&[true, false, false]), tied(&[false, true, false]));
        assert!(aurc(&[], &[]).is_err());
    }
}
