//! Variance of an AUROC and of the difference of two, from placement values.
//!
//! DeLong, DeLong & Clarke-Pearson (*Biometrics* 44, 1988), with the midranks of Sun & Xu (*IEEE Signal Process. Lett.*
//! 21, 2014): O(n log n). Records of one group are not independent: their placements are summed a group before the
//! variance is taken (Obuchowski, *Biometrics* 53, 1997); with one record a group this is DeLong's formula to the
//! letter.

use super::{
    bootstrap::{Interval, NO_VARIATION, is_point},
    ranking::Ranking,
    significance::{Z95, normal_p},
};

/// Placement of every record: for a positive the share of negatives it outscores, for a negative the share of positives
/// that outscore it, ties ½. Their class means are the AUROC.
struct Placements {
    values: Vec<f64>,
    auroc: f64,
}

fn placements(scores: &[f64], labels: &[bool]) -> Option<Placements> {
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut values = vec![0.0; scores.len()];
    let mut above = (0.0, 0.0);
    let mut sum = 0.0;
    for block in Ranking::new(scores).blocks() {
        let own_positives = block.iter().filter(|&&i| labels[i as usize]).count() as f64;
        let own_negatives = block.len() as f64 - own_positives;
        for &i in block {
            values[i as usize] = if labels[i as usize] {
                (negatives - above.1 - own_negatives / 2.0) / negatives
            } else {
                (above.0 + own_positives / 2.0) / positives
            };
        }
        sum += own_negatives * (above.0 + own_positives / 2.0);
        above = (above.0 + own_positives, above.1 + own_negatives);
    }
    Some(Placements { values, auroc: sum / (positives * negatives) })
}

/// Sums of centred placements of one cluster, by class.
type ClusterSums = Vec<[f64; 2]>;

fn cluster_sums(placements: &Placements, labels: &[bool], clusters: &[u32], count: usize) -> ClusterSums {
    let mut sums = vec![[0.0; 2]; count];
    for (i, value) in placements.values.iter().enumerate() {
        sums[clusters[i] as usize][usize::from(labels[i])] += value - placements.auroc;
    }
    sums
}

/// Covariance of two AUROCs on the same records; their variance when both are the same.
fn covariance(first: &ClusterSums, second: &ClusterSums, labels: &[bool], clusters: &[u32]) -> Option<f64> {
    let mut members = vec![[0u32; 2]; first.len()];
    for (&cluster, &label) in clusters.iter().zip(labels) {
        members[cluster as usize][usize::from(label)] += 1;
    }
    let clusters_with = |class: usize| members.iter().filter(|member| member[class] > 0).count() as f64;
    let total = |class: usize| members.iter().map(|member| f64::from(member[class])).sum::<f64>();
    let all = members.iter().filter(|member| member[0] + member[1] > 0).count() as f64;
    if clusters_with(0) < 2.0 || clusters_with(1) < 2.0 {
        return None;
    }
    let mut within = [0.0; 2];
    let mut across = 0.0;
    for (a, b) in first.iter().zip(second) {
        within = [within[0] + a[0] * b[0], within[1] + a[1] * b[1]];
        across += a[0] * b[1] + a[1] * b[0];
    }
    let term =
        |class: usize| clusters_with(class) / (clusters_with(class) - 1.0) * within[class] / total(class).powi(2);
    Some(term(0) + term(1) + all / (all - 1.0) * across / (total(0) * total(1)))
}

/// An AUROC with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auroc {
    /// The AUROC.
    pub value: f64,
    /// Its DeLong standard error.
    pub standard_error: f64,
}

impl Auroc {
    /// The 95 % interval `value ± 1.96 SE`, cut to [0, 1].
    pub fn ci95(&self) -> [f64; 2] {
        [(self.value - Z95 * self.standard_error).max(0.0), (self.value + Z95 * self.standard_error).min(1.0)]
    }

    /// [`Auroc::ci95`], or why there is none.
    pub fn interval(&self) -> Interval {
        Some(self.ci95()).filter(|&ci95| !is_point(ci95)).ok_or(NO_VARIATION)
    }
}

/// Why there is no standard error, of records with these labels.
pub fn undefined(labels: &[bool]) -> &'static str {
    match (labels.contains(&true), labels.contains(&false)) {
        (false, false) => "no record",
        (true, true) => "no interval: fewer than two groups of a class",
        _ => "only one class is present",
    }
}

/// AUROC and its standard error; `clusters` numbers each record's group below `cluster_count`. `None` with fewer than
/// two positives' or negatives' groups.
pub fn auroc(scores: &[f64], labels: &[bool], clusters: &[u32], cluster_count: usize) -> Option<Auroc> {
    let placements = placements(scores, labels)?;
    let sums = cluster_sums(&placements, labels, clusters, cluster_count);
    let variance = covariance(&sums, &sums, labels, clusters)?;
    Some(Auroc { value: placements.auroc, standard_error: variance.max(0.0).sqrt() })
}

/// Two AUROCs on the same records, compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// First minus second.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Two-sided p-value of no difference.
    pub p_value: f64,
}

impl Difference {
    /// The 95 % interval of the difference.
    pub fn ci95(&self) -> [f64; 2] {
        [self.value - Z95 * self.standard_error, self.value + Z95 * self.standard_error]
    }

    /// [`Difference::ci95`], or why there is none.
    pub fn interval(&self) -> Interval {
        Some(self.ci95()).filter(|&ci95| !is_point(ci95)).ok_or(NO_VARIATION)
    }

    /// The p-value; `None` of a difference that does not vary, of which the normal distribution knows nothing.
    pub fn p_value(&self) -> Option<f64> {
        (self.value == 0.0 || self.interval().is_ok()).then_some(self.p_value)
    }
}

/// DeLong's paired test of two scores on the same records.
pub fn paired(
    first: &[f64],
    second: &[f64],
    labels: &[bool],
    clusters: &[u32],
    cluster_count: usize,
) -> Option<Difference> {
    let a = placements(first, labels)?;
    let b = placements(second, labels)?;
    let sums_a = cluster_sums(&a, labels, clusters, cluster_count);
    let sums_b = cluster_sums(&b, labels, clusters, cluster_count);
    let part = |x: &ClusterSums, y: &ClusterSums| covariance(x, y, labels, clusters);
    let cross = (part(&sums_a, &sums_b)? + part(&sums_b, &sums_a)?) / 2.0;
    let variance = (part(&sums_a, &sums_a)? + part(&sums_b, &sums_b)? - 2.0 * cross).max(0.0);
    let value = a.auroc - b.auroc;
    let standard_error = variance.sqrt();
    let p_value = if value == 0.0 { 1.0 } else { normal_p(value / standard_error) };
    Some(Difference { value, standard_error, p_value })
}
