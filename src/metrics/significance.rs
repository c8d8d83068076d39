//! p-values: the normal distribution, McNemar's test, Holm's adjustment.

/// P(Z ≤ z).
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Two-sided p-value of a standard normal statistic.
pub fn normal_p(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// z with P(|Z| ≤ z) = 95 %.
pub const Z95: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a proportion, `count` of `n` (*JASA* 22, 1927); `None` of nothing.
///
/// ```
/// use clsgen::metrics::significance::wilson;
/// let [low, high] = wilson(8, 10).unwrap();
/// assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4);
/// ```
pub fn wilson(count: usize, n: usize) -> Option<[f64; 2]> {
    let k = count as f64;
    let n = n as f64;
    let z2 = Z95 * Z95;
    let half = Z95 * (k * (n - k) / n + z2 / 4.0).sqrt();
    // Rounding may step over the ends by a bit or two.
    (n > 0.0)
        .then(|| [(k + z2 / 2.0 - half) / (n + z2), (k + z2 / 2.0 + half) / (n + z2)].map(|end| end.clamp(0.0, 1.0)))
}

/// McNemar's exact test of two paired sets of calls (*Psychometrika* 12, 1947): the two-sided binomial p of the
/// discordant pairs, `only_first` right by the first alone and `only_second` by the second alone.
///
/// ```
/// use clsgen::metrics::significance::mcnemar;
/// assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-15);
/// assert_eq!(mcnemar(0, 0), 1.0);
/// ```
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let n = (only_first + only_second) as f64;
    let fewer = only_first.min(only_second);
    // log C(n, k) / 2ⁿ, exact enough for n in the millions.
    let log_probability =
        |k: f64| libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0) - n * std::f64::consts::LN_2;
    let tail: f64 = (0..=fewer).map(|k| log_probability(k as f64).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// McNemar's test where records come in groups: the exact two-sided p-value of Σ D under independent signs of the
/// groups' D, each group's records right by the first alone less those right by the second alone. A group a record
/// makes it [`mcnemar`].
///
/// ```
/// use clsgen::metrics::significance::sign_flip;
/// // |±2 ± 1 ± 1| reaches 4 in 2 of 8 ways.
/// assert_eq!(sign_flip(&[2, 1, 1, 0]), 0.25);
/// assert_eq!(sign_flip(&[]), 1.0);
/// ```
pub fn sign_flip(differences: &[i64]) -> f64 {
    let reach: usize = differences.iter().map(|d| d.unsigned_abs() as usize).sum();
    let observed = differences.iter().sum::<i64>().unsigned_abs() as usize;
    // The distribution of the sum, `sums[reach + s]`; `within` bounds what was reached so far.
    let mut sums = vec![0.0; 2 * reach + 1];
    sums[reach] = 1.0;
    let mut within = 0;
    for step in differences.iter().map(|d| d.unsigned_abs() as usize).filter(|&step| step > 0) {
        let mut next = vec![0.0; sums.len()];
        for s in reach - within..=reach + within {
            let half = 0.5 * sums[s];
            next[s - step] += half;
            next[s + step] += half;
        }
        (sums, within) = (next, within + step);
    }
    let tail = |(s, p): (usize, &f64)| if s.abs_diff(reach) >= observed { *p } else { 0.0 };
    sums.iter().enumerate().map(tail).sum::<f64>().min(1.0)
}

/// Holm's step-down adjustment (*Scand. J. Statist.* 6, 1979), in the order given.
///
/// ```
/// use clsgen::metrics::significance::holm;
/// assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut floor = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max((p_values.len() - rank) as f64 * p_values[i]).min(1.0);
        adjusted[i] = floor;
    }
    adjusted
}

/// [`holm`] over the p-values that are defined; the others stay undefined and do not count.
///
/// ```
/// use clsgen::metrics::significance::holm_defined;
/// assert_eq!(holm_defined(&[Some(0.01), None, Some(0.04)]), [Some(0.02), None, Some(0.04)]);
/// ```
pub fn holm_defined(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut adjusted = holm(&p_values.iter().flatten().copied().collect::<Vec<_>>()).into_iter();
    p_values.iter().map(|p| p.and_then(|_| adjusted.next())).collect()
}
