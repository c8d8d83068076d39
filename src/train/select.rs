//! Model selection (SPEC A17, paper A.2.2): S = z(AUROC) + z(AUROC-Align) + z(κ at 0.5) on dev, over all checkpoints.
//!
//! z uses the population standard deviation; zero variance gives z = 0; ties go to the earliest epoch. A null term counts
//! as that metric's lowest finite value, and a metric that is null everywhere gives 0. When every term of every epoch is
//! null, the lowest dev loss wins; with no loss either (no dev split) the latest epoch does.

/// What selection reads of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Candidate {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Dev AUROC of the head.
    pub auroc: Option<f64>,
    /// Dev AUROC against the verbalized label.
    pub auroc_align: Option<f64>,
    /// Dev κ at 0.5 between head and verbalized label.
    pub kappa: Option<f64>,
    /// Dev loss.
    pub loss: Option<f64>,
}

/// The best epoch and its quality score (`None` when no term of any epoch is defined).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// S.
    pub score: Option<f64>,
}

/// The best of `candidates`, given in epoch order; `None` of none.
pub fn best(candidates: &[Candidate]) -> Option<Best> {
    let Some(scores) = quality_scores(candidates) else { return by_loss(candidates) };
    let mut best: Option<(usize, f64)> = None;
    for (candidate, score) in candidates.iter().zip(scores) {
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((candidate.epoch, score));
        }
    }
    best.map(|(epoch, score)| Best { epoch, score: Some(score) })
}

/// S of every candidate, or `None` when no term of any is defined.
pub fn quality_scores(candidates: &[Candidate]) -> Option<Vec<f64>> {
    let columns = [column(candidates, |c| c.auroc), column(candidates, |c| c.auroc_align), column(candidates, |c| c.kappa)];
    if columns.iter().flatten().all(Option::is_none) {
        return None;
    }
    let z: Vec<Vec<f64>> = columns.iter().map(|column| z_scores(column)).collect();
    Some((0..candidates.len()).map(|i| z[0][i] + z[1][i] + z[2][i]).collect())
}

fn column(candidates: &[Candidate], metric: impl Fn(&Candidate) -> Option<f64>) -> Vec<Option<f64>> {
    candidates.iter().map(|c| metric(c).filter(|v| v.is_finite())).collect()
}

/// Population z-scores with nulls at the lowest defined value.
fn z_scores(values: &[Option<f64>]) -> Vec<f64> {
    let lowest = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    if lowest == f64::INFINITY {
        return vec![0.0; values.len()];
    }
    let filled: Vec<f64> = values.iter().map(|v| v.unwrap_or(lowest)).collect();
    let n = filled.len() as f64;
    let mean = filled.iter().sum::<f64>() / n;
    let deviation = (filled.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    // Equal values may leave a deviation of rounding size: that is zero variance, not a ranking.
    let constant = filled.iter().all(|v| *v == filled[0]);
    filled.iter().map(|v| if constant { 0.0 } else { (v - mean) / deviation }).collect()
}

/// Lowest dev loss, earliest first; without losses the latest epoch.
fn by_loss(candidates: &[Candidate]) -> Option<Best> {
    let mut best: Option<(usize, f64)> = None;
    for candidate in candidates {
        if let Some(loss) = candidate.loss.filter(|l| l.is_finite())
            && best.is_none_or(|(_, lowest)| loss < lowest)
        {
            best = Some((candidate.epoch, loss));
        }
    }
    let epoch = best.map(|(epoch, _)| epoch).or(candidates.last().map(|c| c.epoch))?;
    Some(Best { epoch, score: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(epoch: usize, auroc: impl Into<Option<f64>>, align: impl Into<Option<f64>>, kappa: impl Into<Option<f64>>) -> Candidate {
        Candidate { epoch, auroc: auroc.into(), auroc_align: align.into(), kappa: kappa.into(), loss: None }
    }

    /// Reference: `scipy.stats.zscore` (population) of each column, summed.
    #[test]
    fn scores_are_sums_of_population_z_scores() {
        let candidates = [candidate(1, 0.6, 0.8, 0.1), candidate(2, 0.7, 0.9, 0.4), candidate(3, 0.8, 0.7, 0.3)];
        let scores = quality_scores(&candidates).unwrap();
        let expected = [-2.561_051_080_953_710_4, 2.293_789_839_041_286, 0.267_261_241_912_424_34];
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-9, "{scores:?}");
        }
        assert_eq!(best(&candidates).unwrap().epoch, 2);
    }

    #[test]
    fn ties_go_to_the_earliest_and_zero_variance_counts_nothing() {
        let candidates = [candidate(1, 0.7, 0.7, 0.1), candidate(2, 0.7, 0.7, 0.1), candidate(3, 0.7, 0.7, 0.1)];
        assert_eq!(best(&candidates), Some(Best { epoch: 1, score: Some(0.0) }));
        assert_eq!(best(&candidates[1..2]), Some(Best { epoch: 2, score: Some(0.0) }));
    }

    #[test]
    fn a_null_term_counts_as_the_lowest_finite_value() {
        let candidates = [candidate(1, 0.9, None, None), candidate(2, 0.9, 0.5, 0.2), candidate(3, 0.9, 0.8, None)];
        let lowest = [candidate(1, 0.9, 0.5, 0.2), candidate(2, 0.9, 0.5, 0.2), candidate(3, 0.9, 0.8, 0.2)];
        assert_eq!(quality_scores(&candidates), quality_scores(&lowest));
        assert_eq!(best(&candidates).unwrap().epoch, 3);
    }

    #[test]
    fn all_null_falls_back_to_the_lowest_loss_then_to_the_latest() {
        let with = |epoch, loss| Candidate { epoch, loss, ..Candidate::default() };
        assert_eq!(best(&[with(1, Some(0.5)), with(2, Some(0.3)), with(3, Some(0.3))]), Some(Best { epoch: 2, score: None }));
        assert_eq!(best(&[with(1, None), with(2, None)]), Some(Best { epoch: 2, score: None }));
        assert_eq!(best(&[]), None);
    }
}
