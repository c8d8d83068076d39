//! Smooth calibration: a logistic regression of the label on a restricted cubic spline of logit p.
//!
//! Knots lie at Harrell's percentiles (*Regression Modeling Strategies*, 2015, §2.4.6): five of them; three where p
//! has too few values for five, or a curve of five no finite maximum of its likelihood, as in small samples; none (a
//! line) where it is so with three. They are the sample's own and stay where they are in every resample. With p̂ the
//! curve at a record's p: ICI is the mean of |p − p̂|, E50 and E90 its percentiles, Emax its maximum (Austin &
//! Steyerberg, *Stat. Med.* 38, 2019). All are 0 of a calibrated model, and above it in any finite sample.

mod basis;

#[cfg(test)]
use basis::percentile;
use basis::{Basis, MOST, Terms};
use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    calibration::{logit, sigmoid, softplus},
    curves::{BandedCurve, banded},
};

/// Points of the curve in a figure.
const POINTS: usize = 101;
/// Newton's steps at most.
const STEPS: usize = 60;
/// Newton's decrement from which on a step ends the search: what is left to gain is its square. Where a tail of the
/// curve holds one class alone its slope grows without end, but the curve has settled.
const SETTLED: f64 = 1e-9;
/// Mean loss of a record below which the classes are told apart throughout, and no curve has a slope.
const PERFECT: f64 = 1e-7;

const NOT_SETTLED: &str = "the calibration curve does not converge";
const SEPARATED: &str = "the probabilities separate the classes, the curve is a step";

/// How far the smooth curve lies from the probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Smooth {
    /// Integrated calibration index: mean of |p − p̂|.
    pub ici: Metric,
    /// Median of it.
    pub e50: Metric,
    /// Its 90th percentile.
    pub e90: Metric,
    /// Its maximum.
    pub emax: Metric,
}

impl Smooth {
    /// Every metric with its name in the tables, in their order.
    pub fn named(&self) -> [(&'static str, &Metric); 4] {
        [("ICI", &self.ici), ("E50", &self.e50), ("E90", &self.e90), ("Emax", &self.emax)]
    }

    /// Nothing of `n` records, and why.
    pub fn undefined(reason: &str, n: usize) -> Self {
        let none = || Metric::undefined(reason, n);
        Self { ici: none(), e50: none(), e90: none(), emax: none() }
    }
}

/// A curve to be fitted to weighted records: everything that no resample changes.
pub struct Fit<'a> {
    sample: &'a Sample,
    basis: Basis,
    terms: Vec<Terms>,
    /// The coefficients of all records.
    whole: Terms,
}

impl<'a> Fit<'a> {
    /// The most supple curve over the records of `sample` that has a finite maximum; or why a line has none.
    pub fn new(sample: &'a Sample) -> Result<Self, &'static str> {
        let logits: Vec<f64> = sample.probabilities().iter().map(|&p| logit(p)).collect();
        let mut sorted = logits.clone();
        sorted.sort_by(f64::total_cmp);
        let ones = vec![1; sample.len()];
        let mut outcome = Err(NOT_SETTLED);
        for basis in Basis::each(&sorted) {
            let terms = logits.iter().map(|&x| basis.terms(x)).collect();
            let mut fit = Self { sample, basis, terms, whole: [0.0; MOST] };
            outcome = fit.coefficients(fit.whole, &ones).map(|whole| {
                fit.whole = whole;
                fit
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The coefficients of highest likelihood, by iteratively reweighted least squares from `start` on.
    fn coefficients(&self, start: Terms, weights: &[u32]) -> Result<Terms, &'static str> {
        let rows = || {
            let rows = self.terms.iter().zip(self.sample.labels()).zip(weights).filter(|(_, weight)| **weight > 0);
            rows.map(|((terms, &label), &weight)| (terms, f64::from(label), f64::from(weight)))
        };
        let classes = rows().fold([false; 2], |[zero, one], (_, y, _)| [zero | (y == 0.0), one | (y == 1.0)]);
        if classes != [true; 2] {
            return Err(if classes == [false; 2] { "no record" } else { "only one class is present" });
        }
        let part = |b: &Terms, (x, y, w): Row<'_>| w * (softplus(dot(b, x)) - y * dot(b, x));
        let loss = |b: &Terms| -> f64 { rows().map(|row| part(b, row)).sum() };
        let mut b = start;
        for _ in 0..STEPS {
            let (gradient, hessian) = match self.basis.count() {
                2 => slopes::<2>(rows(), &b),
                3 => slopes::<3>(rows(), &b),
                4 => slopes::<4>(rows(), &b),
                _ => slopes::<MOST>(rows(), &b),
            };
            let mut step = solve(hessian, gradient, self.basis.count()).ok_or(NOT_SETTLED)?;
            let moved = |step: &Terms| -> Terms { std::array::from_fn(|i| b[i] + step[i]) };
            // As in `calibration::logistic`: a step that moves no row's logit by more than 1 lowers the loss.
            if rows().any(|(x, ..)| dot(&step, x).abs() > 1.0) {
                let current = loss(&b);
                for _ in 0..40 {
                    if loss(&moved(&step)) <= current + 1e-12 * current.abs() {
                        break;
                    }
                    step = step.map(|step| step / 2.0);
                }
            }
            let gained = dot(&gradient, &step);
            b = moved(&step);
            if gained <= SETTLED {
                let n: f64 = rows().map(|(.., weight)| weight).sum();
                let most = PERFECT * n;
                // No record's part is below 0: mostly the first few say that it is more.
                let mut sum = 0.0;
                let perfect = rows().map(|row| part(&b, row)).all(|part| {
                    sum += part;
                    sum < most
                });
                return if perfect { Err(SEPARATED) } else { Ok(b) };
            }
        }
        Err(NOT_SETTLED)
    }

    /// ICI, E50, E90 and Emax of these coefficients.
    fn distances(&self, b: &Terms, weights: &[u32]) -> [f64; 4] {
        let rows = self.terms.iter().zip(self.sample.probabilities()).zip(weights).filter(|(_, weight)| **weight > 0);
        let mut gaps: Vec<(f64, u32)> =
            rows.map(|((x, &p), &weight)| ((p - sigmoid(dot(b, x))).abs(), weight)).collect();
        gaps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n: u64 = gaps.iter().map(|gap| u64::from(gap.1)).sum();
        let mean = gaps.iter().map(|&(gap, weight)| gap * f64::from(weight)).sum::<f64>() / n as f64;
        let most = gaps.last().map_or(f64::NAN, |gap| gap.0);
        [mean, weighted_percentile(&gaps, n, 0.5), weighted_percentile(&gaps, n, 0.9), most]
    }
}

/// Terms, label and weight of a record.
type Row<'a> = (&'a Terms, f64, f64);

/// Gradient and negative Hessian (lower triangle) of the log-likelihood over `N` terms: a number that the compiler
/// knows, so that the sums stay in registers.
fn slopes<'a, const N: usize>(rows: impl Iterator<Item = Row<'a>>, b: &Terms) -> (Terms, [Terms; MOST]) {
    let mut gradient = [0.0; MOST];
    let mut hessian = [[0.0; MOST]; MOST];
    for (x, y, w) in rows {
        let q = sigmoid(dot(b, x));
        let curvature = w * q * (1.0 - q);
        for i in 0..N {
            gradient[i] += w * (y - q) * x[i];
            for j in 0..=i {
                hessian[i][j] += curvature * x[i] * x[j];
            }
        }
    }
    (gradient, hessian)
}

fn dot(b: &Terms, x: &Terms) -> f64 {
    b.iter().zip(x).map(|(b, x)| b * x).sum()
}

/// x of `a x = y` over the first `n` coordinates, by Cholesky; `a` is symmetric, its lower triangle is read. `None`
/// where it is not positive definite.
fn solve(mut a: [[f64; MOST]; MOST], mut y: Terms, n: usize) -> Option<Terms> {
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = a[i][j] - (0..j).map(|k| a[i][k] * a[j][k]).sum::<f64>();
            if i == j {
                // What rounding leaves of a column that the others make up is no pivot.
                if sum.is_nan() || sum <= 1e-13 * a[i][i] {
                    return None;
                }
                a[i][i] = sum.sqrt();
            } else {
                a[i][j] = sum / a[j][j];
            }
        }
    }
    for i in 0..n {
        y[i] = (y[i] - (0..i).map(|k| a[i][k] * y[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..n).rev() {
        y[i] = (y[i] - (i + 1..n).map(|k| a[k][i] * y[k]).sum::<f64>()) / a[i][i];
    }
    Some(y)
}

/// The percentile of ascending values that count `weight` times each, `n` in all, as of the list with its copies.
fn weighted_percentile(sorted: &[(f64, u32)], n: u64, share: f64) -> f64 {
    let position = share * n.saturating_sub(1) as f64;
    let at = |place: u64| {
        let mut before = 0;
        let found = sorted.iter().find(|(_, weight)| {
            before += u64::from(*weight);
            before > place
        });
        found.or(sorted.last()).map_or(f64::NAN, |(value, _)| *value)
    };
    let low = at(position.floor() as u64);
    low + position.fract() * (at(position.floor() as u64 + 1) - low)
}

/// ICI, E50, E90 and Emax of `sample` with percentile intervals.
pub fn smooth(sample: &Sample, options: &Options) -> Smooth {
    let fit = match Fit::new(sample) {
        Ok(fit) => fit,
        Err(reason) => return Smooth::undefined(reason, sample.len()),
    };
    let statistic = Statistic::several(sample.len(), |weights| -> [Outcome; 4] {
        match fit.coefficients(fit.whole, weights) {
            Ok(b) => fit.distances(&b, weights).map(Ok),
            Err(reason) => [Err(reason); 4],
        }
    });
    let mut measured = Resampler::new(sample, options.seed).measure(&[statistic], options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    Smooth { ici: next(), e50: next(), e90: next(), emax: next() }
}

/// The curve over the range of the probabilities, with a band from `resamples` resamples; `None` where it cannot be
/// fitted.
pub fn curve(sample: &Sample, resamples: usize, seed: u64) -> Option<BandedCurve> {
    let fit = Fit::new(sample).ok()?;
    let ends = sample.probabilities().iter().fold([1.0, 0.0], |[low, high], &p| [f64::min(low, p), f64::max(high, p)]);
    let step = (ends[1] - ends[0]) / (POINTS - 1) as f64;
    let x: Vec<f64> = (0..POINTS).map(|k| (ends[0] + step * k as f64).min(ends[1])).collect();
    let terms: Vec<Terms> = x.iter().map(|&p| fit.basis.terms(logit(p))).collect();
    let read = |weights: &[u32]| match fit.coefficients(fit.whole, weights) {
        Ok(b) => [terms.iter().map(|x| sigmoid(dot(&b, x))).collect()],
        Err(_) => [vec![f64::NAN; POINTS]],
    };
    let [curve] = banded(sample, resamples, seed, [x.clone()], read);
    Some(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six of 60 records are positive, none of the lower half: five knots have no finite maximum, three have that of
    /// statsmodels' GLM over the same spline.
    #[test]
    fn a_small_sample_has_a_curve_of_fewer_knots() {
        let thousandths = [
            8, 13, 17, 20, 23, 27, 30, 33, 36, 39, 42, 45, 49, 52, 55, 59, 62, 65, 69, 73, 77, 81, 85, 89, 93, 97, 102,
            107, 112, 117, 122, 127, 133, 139, 145, 152, 158, 166, 173, 181, 189, 198, 207, 217, 228, 239, 251, 264,
            278, 293, 310, 329, 350, 373, 401, 432, 471, 519, 587, 705,
        ];
        let mut sample = Sample::new();
        for (i, p) in thousandths.into_iter().enumerate() {
            sample.push(f64::from(p) / 1000.0, i >= 35 && i % 4 == 0, None, None);
        }
        let found = smooth(&sample, &Options { bootstrap: 0, ..Options::default() });
        for ((name, metric), want) in found.named().into_iter().zip([
            0.088_759_259_047_459_77,
            0.063_489_039_775_096_79,
            0.136_158_970_446_443_98,
            0.642_871_390_454_167_5,
        ]) {
            assert!((metric.value.unwrap() - want).abs() < 1e-9, "{name}: {metric:?}");
        }
    }

    #[test]
    fn percentiles_of_copies_are_those_of_the_list() {
        let sorted = [(0.1, 2), (0.2, 1), (0.7, 3)];
        let list = [0.1, 0.1, 0.2, 0.7, 0.7, 0.7];
        for share in [0.0, 0.3, 0.5, 0.9, 1.0] {
            assert_eq!(weighted_percentile(&sorted, 6, share), percentile(&list, share));
        }
    }

    #[test]
    fn what_has_no_maximum_is_undefined() {
        let sample = |rows: &[(f64, bool)]| {
            let mut sample = Sample::new();
            rows.iter().for_each(|&(p, y)| sample.push(p, y, None, None));
            sample
        };
        let of = |rows: &[(f64, bool)]| smooth(&sample(rows), &Options::default()).ici;
        assert_eq!(of(&[]).reason.unwrap(), "no record");
        assert_eq!(of(&[(0.2, true), (0.3, true)]).reason.unwrap(), "only one class is present");
        assert_eq!(of(&[(0.2, false), (0.3, false), (0.8, true), (0.9, true)]).reason.unwrap(), SEPARATED);
        assert_eq!(of(&[(0.4, false), (0.4, true)]).reason.unwrap(), NOT_SETTLED);
        // Nobody of the lower half is positive: the curve is 0 there, and settles, whatever its slope.
        let mut rows: Vec<(f64, bool)> = (1..40).map(|i| (f64::from(i) / 100.0, false)).collect();
        rows.extend((40..95).map(|i| (f64::from(i) / 100.0, i % 3 != 0)));
        assert!(of(&rows).value.is_some_and(|ici| ici > 0.05 && ici < 0.4));
        assert!(curve(&sample(&[(0.2, true)]), 10, 1).is_none());
    }
}
