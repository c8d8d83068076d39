//! Do the probabilities mean what they say?
//!
//! - **Brier** score, mean `(p − y)²` (Brier, *Mon. Weather Rev.* 78, 1950), and its skill over always saying the
//!   prevalence.
//! - **ECE**, **MCE**: weighted mean and maximum of |mean p − share of positives| over bins of p (Naeini et al., AAAI
//!   2015), bins `(lo, hi]`, the first one closed; equal-width by default, equal-mass as an option.
//! - **Slope**, **intercept** of logistic recalibration (Cox, *Biometrika* 45, 1958): slope `b` of
//!   `logit y ~ a + b·logit p`; intercept is calibration-in-the-large, `a` of `logit y ~ a + logit p` (Van Calster et
//!   al., *BMC Medicine* 17, 2019). Ideal: 1 and 0.
//! - **O:E**: positives observed over positives expected, `Σy / Σp`.

use super::Outcome;

/// Probabilities are kept this far from 0 and 1 before their logit is taken.
const LOGIT_MARGIN: f64 = 1e-12;

/// What a softmax of 64-bit numbers may be off by.
const ROUNDING: f64 = 1e-15;

/// A probability further than this from the softmax of its logits contradicts them; other tools round.
pub const CONTRADICTION: f64 = 1e-6;

/// Mean curvature below which nearly every row is sure, and a sum over q − y loses what little is left of it.
const FLAT: f64 = 1e-6;

/// Why a statistic of nothing is undefined.
const EMPTY: &str = "no record";

/// log(p / (1 − p)), with p kept off 0 and 1.
pub fn logit(probability: f64) -> f64 {
    let p = probability.clamp(LOGIT_MARGIN, 1.0 - LOGIT_MARGIN);
    (p / (1.0 - p)).ln()
}

/// log-odds of class 1: the difference of its two `logits`, where they are known and say more than the probability
/// does: one that was kept off 0 or 1, or rounded, no longer tells them. Logits that are of another probability
/// altogether do not count.
pub fn log_odds(probability: f64, logits: Option<&[f64]>) -> f64 {
    let told = logit(probability);
    let Some(&[zero, one]) = logits else { return told };
    let z = one - zero;
    let clipped = z < logit(0.0) || z > logit(1.0);
    let apart = (sigmoid(z) - probability).abs();
    if apart <= CONTRADICTION && (clipped || apart > ROUNDING) { z } else { told }
}

/// 1 / (1 + e⁻ˣ) without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// Records as `(probability, label, weight)`, the form every statistic here takes.
pub fn rows<'a>(
    probabilities: &'a [f64],
    labels: &'a [bool],
    weights: &'a [u32],
) -> impl Iterator<Item = (f64, bool, f64)> + Clone + 'a {
    probabilities.iter().zip(labels).zip(weights).map(|((&p, &y), &w)| (p, y, f64::from(w)))
}

/// Brier score.
pub fn brier(rows: impl Iterator<Item = (f64, bool, f64)>) -> Outcome {
    let (sum, n) = rows.fold((0.0, 0.0), |(sum, n), (p, y, w)| (sum + w * (p - f64::from(y)).powi(2), n + w));
    if n == 0.0 { Err(EMPTY) } else { Ok(sum / n) }
}

/// 1 − Brier / (Brier of always saying the prevalence).
pub fn brier_skill(rows: impl Iterator<Item = (f64, bool, f64)> + Clone) -> Outcome {
    let (positives, n) = rows.clone().fold((0.0, 0.0), |(k, n), (_, y, w)| (k + w * f64::from(y), n + w));
    let brier = brier(rows)?;
    let reference = positives / n * (1.0 - positives / n);
    if positives == 0.0 || positives == n { Err("only one class is present") } else { Ok(1.0 - brier / reference) }
}

/// Positives observed over positives expected.
pub fn observed_expected(rows: impl Iterator<Item = (f64, bool, f64)>) -> Outcome {
    let add = |(o, e, n): (f64, f64, f64), (p, y, w): (f64, bool, f64)| (o + w * f64::from(y), e + w * p, n + w);
    let (observed, expected, n) = rows.fold((0.0, 0.0, 0.0), add);
    let ratio = observed / expected;
    if ratio.is_finite() { Ok(ratio) } else { Err(if n == 0.0 { EMPTY } else { "no positive is expected" }) }
}

/// A bin of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Records (or their weight) in it.
    pub weight: f64,
    /// Sum of their probabilities.
    pub expected: f64,
    /// Sum of their labels.
    pub observed: f64,
}

impl Bin {
    fn add(&mut self, p: f64, y: bool, w: f64) {
        self.weight += w;
        self.expected += w * p;
        self.observed += w * f64::from(y);
    }

    /// |mean probability − share of positives|; 0 when empty.
    pub fn gap(&self) -> f64 {
        if self.weight == 0.0 { 0.0 } else { (self.expected - self.observed).abs() / self.weight }
    }
}

/// `count` bins of equal width, `(lo, hi]`.
pub fn equal_width(rows: impl Iterator<Item = (f64, bool, f64)>, count: usize) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); count];
    for (p, y, w) in rows {
        // The product may round across an edge: the edges themselves, k / count, decide.
        let mut k = ((p * count as f64).ceil() as usize).clamp(1, count);
        if k > 1 && p <= (k - 1) as f64 / count as f64 {
            k -= 1;
        } else if k < count && p > k as f64 / count as f64 {
            k += 1;
        }
        bins[k - 1].add(p, y, w);
    }
    bins
}

/// At most `count` bins of equal numbers of records in the order of their probability; equal probabilities share a bin.
pub fn equal_mass(rows: impl Iterator<Item = (f64, bool, f64)>, count: usize) -> Vec<Bin> {
    let mut sorted: Vec<(f64, bool, f64)> = rows.filter(|row| row.2 > 0.0).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    equal_mass_sorted(&sorted, count)
}

/// [`equal_mass`] of rows that are in ascending order and weigh something.
pub(super) fn equal_mass_sorted(sorted: &[(f64, bool, f64)], count: usize) -> Vec<Bin> {
    let total: f64 = sorted.iter().map(|row| row.2).sum();
    let mut bins = vec![Bin::default(); count];
    let mut before = 0.0;
    for block in sorted.chunk_by(|a, b| a.0 == b.0) {
        let k = ((before * count as f64 / total) as usize).min(count - 1);
        for &(p, y, w) in block {
            bins[k].add(p, y, w);
            before += w;
        }
    }
    bins.retain(|bin| bin.weight > 0.0);
    bins
}

/// Expected calibration error of these bins.
pub fn expected_error(bins: &[Bin]) -> Outcome {
    let total: f64 = bins.iter().map(|bin| bin.weight).sum();
    if total == 0.0 { Err(EMPTY) } else { Ok(bins.iter().map(|bin| bin.gap() * bin.weight).sum::<f64>() / total) }
}

/// Maximum calibration error of these bins.
pub fn maximum_error(bins: &[Bin]) -> Outcome {
    bins.iter().filter(|bin| bin.weight > 0.0).map(Bin::gap).reduce(f64::max).ok_or(EMPTY)
}

/// Slope of logistic recalibration.
pub fn slope(rows: impl Iterator<Item = (f64, bool, f64)> + Clone) -> Outcome {
    // Collected: a lazy map would take every logit again in each Newton step.
    let rows: Vec<_> = rows.map(|(p, y, w)| (logit(p), f64::from(y), w)).collect();
    logistic(rows.iter().copied()).map(|fit| fit.slope)
}

/// Calibration-in-the-large: the shift on the logit scale that makes expected equal observed.
pub fn intercept(rows: impl Iterator<Item = (f64, bool, f64)>) -> Outcome {
    intercept_from(0.0, &rows.map(|(p, y, w)| (logit(p), f64::from(y), w)).collect::<Vec<_>>())
}

/// [`intercept`] of `(logit, label, weight)` rows, sought from `start` on.
pub(super) fn intercept_from(start: f64, rows: &[(f64, f64, f64)]) -> Outcome {
    let (positives, n) = rows.iter().fold((0.0, 0.0), |(k, n), (_, y, w)| (k + w * y, n + w));
    if positives == 0.0 || positives == n {
        return Err(if n == 0.0 { EMPTY } else { "only one class is present" });
    }
    // Expected positives grow strictly with the shift, so Newton kept inside a shrinking bracket always arrives.
    let mut low = -80.0;
    let mut high = 80.0;
    let mut shift = start.clamp(low, high);
    for _ in 0..200 {
        let (expected, curvature): (f64, f64) = rows.iter().fold((0.0, 0.0), |(e, c), &(x, _, w)| {
            let q = sigmoid(x + shift);
            (e + w * q, c + w * q * (1.0 - q))
        });
        let excess = if curvature < FLAT * n { excess_of_sure(rows, shift) } else { expected - positives };
        if excess > 0.0 {
            high = shift
        } else {
            low = shift
        }
        let newton = shift - excess / curvature;
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        if (next - shift).abs() <= 1e-14 * (1.0 + shift.abs()) {
            return Ok(next);
        }
        shift = next;
    }
    Ok(shift)
}

/// Expected minus observed positives: those that are called so too many, which are counted, and what each row lacks of
/// certainty, which is as exact as its own size. Of sure rows the second sum decides where wrong calls of both kinds
/// are as many.
fn excess_of_sure(rows: &[(f64, f64, f64)], shift: f64) -> f64 {
    let add = |(called, doubt): (f64, f64), &(x, y, w): &(f64, f64, f64)| {
        let z = x + shift;
        if z > 0.0 {
            (called + w * (1.0 - y), doubt - w * sigmoid(-z))
        } else {
            (called - w * y, doubt + w * sigmoid(z))
        }
    };
    let (called, doubt) = rows.iter().fold((0.0, 0.0), add);
    called + doubt
}

/// A fitted line on the logit scale.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogisticFit {
    /// Its intercept.
    pub intercept: f64,
    /// Its slope.
    pub slope: f64,
}

/// Maximum likelihood of `logit target ~ a + b·x` with a weight a row, by Newton with step halving.
///
/// Targets may lie between 0 and 1 (Platt's). Undefined where no finite maximum exists: one class, a constant x, or
/// classes that some x separates.
pub fn logistic(rows: impl Iterator<Item = (f64, f64, f64)> + Clone) -> Result<LogisticFit, &'static str> {
    logistic_from(LogisticFit::default(), rows)
}

/// [`logistic`] begun at `start`: the same maximum, found sooner from nearby.
pub(super) fn logistic_from(
    start: LogisticFit,
    rows: impl Iterator<Item = (f64, f64, f64)> + Clone,
) -> Result<LogisticFit, &'static str> {
    separable(rows.clone())?;
    // About the mean of x: elsewhere a narrow band of x, far from 0, makes a and b nearly one.
    let (sum, weight) = rows.clone().fold((0.0, 0.0), |(sum, weight), (x, _, w)| (sum + w * x, weight + w));
    let centre = sum / weight;
    let rows = rows.map(|(x, t, w)| (x - centre, t, w));
    let loss = |a: f64, b: f64| rows.clone().map(|(x, t, w)| w * (softplus(a + b * x) - t * (a + b * x))).sum::<f64>();
    let reach = rows.clone().fold(0.0, |reach, (x, ..)| f64::max(reach, x.abs()));
    let mut a = start.intercept + start.slope * centre;
    let mut b = start.slope;
    for _ in 0..100 {
        let mut gradient = [0.0; 2];
        let mut hessian = [0.0; 3];
        for (x, t, w) in rows.clone() {
            let q = sigmoid(a + b * x);
            let residual = w * (t - q);
            let curvature = w * q * (1.0 - q);
            gradient = [gradient[0] + residual, gradient[1] + residual * x];
            hessian = [hessian[0] + curvature, hessian[1] + curvature * x, hessian[2] + curvature * x * x];
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        if determinant.is_nan() || determinant <= 0.0 {
            return Err("the logistic fit does not converge");
        }
        let mut step_a = (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant;
        let mut step_b = (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant;
        // A full step that moves no row's logit by more than 1 lowers the loss (Bach, *Electron. J. Statist.* 4, 2010):
        // begun nearby, no step is ever halved and no loss computed.
        if step_a.abs() + step_b.abs() * reach > 1.0 {
            let current = loss(a, b);
            for _ in 0..40 {
                if loss(a + step_a, b + step_b) <= current + 1e-12 * current.abs() {
                    break;
                }
                (step_a, step_b) = (step_a / 2.0, step_b / 2.0);
            }
        }
        (a, b) = (a + step_a, b + step_b);
        if step_a.abs() <= 1e-12 * (1.0 + a.abs()) && step_b.abs() <= 1e-12 * (1.0 + b.abs()) {
            return Ok(LogisticFit { intercept: a - b * centre, slope: b });
        }
    }
    Err("the logistic fit does not converge")
}

/// log(1 + eˣ) without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Refuses data without a finite maximum likelihood: in one dimension, classes that do not overlap strictly.
fn separable(rows: impl Iterator<Item = (f64, f64, f64)>) -> Result<(), &'static str> {
    let empty = (f64::INFINITY, f64::NEG_INFINITY);
    let mut negative = empty;
    let mut positive = empty;
    for (x, target, _) in rows.filter(|row| row.2 > 0.0) {
        let widen = |(low, high): (f64, f64)| (low.min(x), high.max(x));
        if target > 0.0 {
            positive = widen(positive);
        }
        if target < 1.0 {
            negative = widen(negative);
        }
    }
    if negative == empty || positive == empty {
        return Err(if negative == positive { EMPTY } else { "only one class is present" });
    }
    if negative.0.min(positive.0) == negative.1.max(positive.1) {
        let sure = negative.0 <= logit(0.0) || negative.0 >= logit(1.0);
        return Err(if sure {
            "every probability is within 1e-12 of the same end"
        } else {
            "every probability is the same"
        });
    }
    let overlap = positive.0 < negative.1 && negative.0 < positive.1;
    if overlap { Ok(()) } else { Err("the probabilities separate the classes, the slope is infinite") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where every row is sure, and as many are wrong on either side, what is left of certainty decides: in closed form
    /// ½ (ln (TP + FP) / (TN + FN) − logit 1 − logit 0), whatever the order of the rows.
    #[test]
    fn the_intercept_of_hard_calls_is_that_of_their_counts() {
        let counts = [(1.0, true, 3000), (1.0, false, 800), (0.0, true, 800), (0.0, false, 5400)];
        let mut rows: Vec<(f64, bool, f64)> = Vec::new();
        for (p, y, count) in counts {
            rows.extend(std::iter::repeat_n((p, y, 1.0), count));
        }
        let want = 0.5 * ((3800.0f64 / 6200.0).ln() - logit(1.0) - logit(0.0));
        for _ in 0..2 {
            let found = intercept(rows.iter().copied()).unwrap();
            assert!((found - want).abs() < 1e-9, "{found}, not {want}");
            rows.sort_by(|a, b| (a.1, a.0).partial_cmp(&(b.1, b.0)).unwrap());
        }
    }

    /// Moved along, the line has the same slope: of log-odds in a band of a thousandth, too.
    #[test]
    fn a_narrow_band_far_from_0_has_a_slope() {
        let rows = |shift: f64, width: f64| {
            let at = move |i: u32| f64::from(i * 7919 % 1000) / 1000.0 - 0.5;
            (0..2000).map(move |i| (shift + width * at(i), f64::from(u8::from(i % 25 == 0)), 1.0))
        };
        for width in [1e-1, 1e-3, 1e-5] {
            let wanted = logistic(rows(0.0, width)).unwrap();
            let found = logistic(rows(-3.2, width)).unwrap();
            assert!((found.slope / wanted.slope - 1.0).abs() < 1e-6, "{found:?}, not {wanted:?}");
            assert!((found.intercept - found.slope * 3.2 - wanted.intercept).abs() < 1e-6, "{found:?}, not {wanted:?}");
        }
    }

    #[test]
    fn probabilities_at_one_end_are_not_called_the_same() {
        for [a, b] in [[1e-13, 1e-15], [1.0 - 1e-13, 1.0 - 1e-14]] {
            let told = slope([(a, true, 1.0), (b, false, 1.0)].into_iter());
            assert_eq!(told, Err("every probability is within 1e-12 of the same end"));
        }
        assert_eq!(slope([(0.3, true, 1.0), (0.3, false, 1.0)].into_iter()), Err("every probability is the same"));
    }
}
