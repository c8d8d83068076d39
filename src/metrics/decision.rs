//! What the probabilities are worth to someone who must decide, or may abstain.
//!
//! - **Net benefit** at threshold t: `TP/n − FP/n · t/(1−t)` (Vickers & Elkin, *Med. Decis. Making* 26, 2006),
//!   beside treating all and treating none.
//! - **Risk–coverage**: the error rate among the most confident records (confidence = max(p, 1−p), called positive
//!   at 0.5), and **AURC**, its mean over coverage 1/n … 1 (Geifman, Uziel & El-Yaniv, ICLR 2019). Records of equal
//!   confidence count as if in random order, so the order of the file cannot matter.

use super::{Outcome, Sample, ranking::Ranking};

/// Threshold probabilities 0.01, 0.02 … 0.99.
pub fn thresholds() -> Vec<f64> {
    (1..100).map(|k| f64::from(k) / 100.0).collect()
}

/// The records by the last threshold they reach, found once for every resample.
#[derive(Debug, Clone)]
pub struct NetBenefit {
    odds: Vec<f64>,
    /// A record: how many thresholds its probability reaches, and its label.
    rows: Vec<(usize, bool)>,
}

impl NetBenefit {
    /// Net benefit at `thresholds`, ascending and in (0, 1): positive from there on, the odds at which a false alarm is
    /// worth a case found.
    pub fn new(scores: &[f64], labels: &[bool], thresholds: &[f64]) -> Self {
        let reached = |score: f64| thresholds.partition_point(|&threshold| threshold <= score);
        Self {
            odds: thresholds.iter().map(|threshold| threshold / (1.0 - threshold)).collect(),
            rows: scores.iter().zip(labels).map(|(&score, &label)| (reached(score), label)).collect(),
        }
    }

    /// Of deciding by the model, and of calling everyone positive (calling no one is 0), at each threshold; NaN without
    /// records.
    pub fn of(&self, weights: &[u32]) -> [Vec<f64>; 2] {
        // Negatives and positives by the number of thresholds they reach.
        let mut counts = vec![[0u64; 2]; self.odds.len() + 1];
        for (&(reached, label), &weight) in self.rows.iter().zip(weights) {
            counts[reached][usize::from(label)] += u64::from(weight);
        }
        let total = counts.iter().fold([0; 2], |sum, count| [sum[0] + count[0], sum[1] + count[1]]);
        let n = (total[0] + total[1]) as f64;
        let benefit = |called: [u64; 2], odds: f64| (called[1] as f64 - called[0] as f64 * odds) / n;
        let mut called = total;
        let model = self.odds.iter().zip(&counts).map(|(&odds, below)| {
            called = [called[0] - below[0], called[1] - below[1]];
            benefit(called, odds)
        });
        let model = model.collect();
        [model, self.odds.iter().map(|&odds| benefit(total, odds)).collect()]
    }
}

/// The records in descending order of confidence, ranked once for every resample.
#[derive(Debug, Clone)]
pub struct Confidence {
    ranking: Ranking,
    wrong: Vec<bool>,
}

impl Confidence {
    /// Ranks records by max(p, 1 − p); `wrong` is what a call at 0.5 gets wrong.
    pub fn new(scores: &[f64], labels: &[bool]) -> Self {
        // 1 − 0.07 is not 0.93 in binary: what 15 decimals do not tell apart is equal.
        let doubt = |p: f64| (p.min(1.0 - p) * 1e15).round();
        let confidence: Vec<f64> = scores.iter().map(|&p| -doubt(p)).collect();
        Self {
            ranking: Ranking::new(&confidence),
            wrong: scores.iter().zip(labels).map(|(&p, &label)| (p >= 0.5) != label).collect(),
        }
    }

    /// Risk at coverage 1/n, 2/n … 1, where n is the sum of the weights: a record of weight 2 counts as two.
    pub fn risks(&self, weights: &[u32], mut each: impl FnMut(f64)) {
        let mut before = 0.0;
        let mut errors = 0.0;
        for block in self.ranking.blocks() {
            let mut size = 0u64;
            let mut wrong = 0u64;
            for &i in block {
                size += u64::from(weights[i as usize]);
                wrong += u64::from(weights[i as usize]) * u64::from(self.wrong[i as usize]);
            }
            let share = wrong as f64 / size.max(1) as f64;
            for k in 1..=size {
                each((errors + share * k as f64) / (before + k as f64));
            }
            (before, errors) = (before + size as f64, errors + wrong as f64);
        }
    }

    /// Clusters among the `count` most confident records of `sample`: of a tie that is covered in part, at most what is
    /// covered.
    pub fn clusters(&self, sample: &Sample, count: usize) -> usize {
        let mut reached = vec![false; sample.len()];
        let mut before = 0;
        for block in self.ranking.blocks() {
            block.iter().filter(|_| before < count).for_each(|&i| reached[i as usize] = true);
            before += block.len();
        }
        sample.clusters_among(|i| reached[i]).min(count)
    }

    /// Area under the risk–coverage curve: the mean of [`Confidence::risks`].
    pub fn aurc(&self, weights: &[u32]) -> Outcome {
        let mut sum = 0.0;
        let mut n = 0.0;
        self.risks(weights, |risk| (sum, n) = (sum + risk, n + 1.0));
        if n == 0.0 { Err("no record") } else { Ok(sum / n) }
    }
}

/// Area under the risk–coverage curve.
pub fn aurc(scores: &[f64], labels: &[bool]) -> Outcome {
    Confidence::new(scores, labels).aurc(&vec![1; scores.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_benefit_by_hand() {
        let net_benefit = NetBenefit::new(&[0.1, 0.3, 0.6, 0.9], &[false, false, true, true], &[0.2, 0.6, 0.95]);
        // At 0.2 the model calls 3 of 4: 2 true, 1 false; odds 0.25. A probability at the threshold is called.
        let [model, all] = net_benefit.of(&[1; 4]);
        assert!((model[0] - (2.0 - 0.25) / 4.0).abs() < 1e-15 && (all[0] - (2.0 - 0.5) / 4.0).abs() < 1e-15);
        assert_eq!((model[1], model[2]), (0.5, 0.0));
        let [model, _] = net_benefit.of(&[0, 2, 1, 0]);
        assert!((model[0] - (1.0 - 2.0 * 0.25) / 3.0).abs() < 1e-15);
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

    /// A hundred records at p, one of them positive, a hundred at 1 − p, sixty of them: 41 of 200 calls are wrong.
    #[test]
    fn confidence_does_not_depend_on_its_side() {
        for percent in 1..50 {
            let p = [f64::from(percent) / 100.0, f64::from(100 - percent) / 100.0];
            let scores: Vec<f64> = (0..200).map(|i| p[i / 100]).collect();
            let labels: Vec<bool> = (0..200).map(|i| if i < 100 { i == 0 } else { i < 160 }).collect();
            let found = aurc(&scores, &labels).unwrap();
            assert!((found - 0.205).abs() < 1e-12, "{percent} %: {found}");
        }
    }

    #[test]
    fn a_weight_is_so_many_copies() {
        let scores = [0.9, 0.2, 0.6, 0.4, 0.9];
        let labels = [true, true, false, false, false];
        let weights = [2, 0, 3, 1, 1];
        let copies: Vec<usize> = (0..5).flat_map(|i| vec![i; weights[i] as usize]).collect();
        let (repeated, repeated_labels): (Vec<f64>, Vec<bool>) = copies.iter().map(|&i| (scores[i], labels[i])).unzip();
        let weighted = Confidence::new(&scores, &labels).aurc(&weights).unwrap();
        assert!((weighted - aurc(&repeated, &repeated_labels).unwrap()).abs() < 1e-15);
        assert!(Confidence::new(&scores, &labels).aurc(&[0; 5]).is_err());
    }
}
