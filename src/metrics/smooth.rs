//! Smooth calibration (SPEC A56): a logistic regression of the label on a restricted cubic spline of logit p.
//!
//! Knots lie at Harrell's percentiles (*Regression Modeling Strategies*, 2015, §2.4.6): five of them, three where p
//! has too few values for five, none (a line) where it has too few for three. They are the sample's own and stay where
//! they are in every resample. With p̂ the curve at a record's p: ICI is the mean of |p − p̂|, E50 and E90 its
//! percentiles, Emax its maximum (Austin & Steyerberg, *Stat. Med.* 38, 2019). All are 0 of a calibrated model, and
//! above it in any finite sample.

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome, Sample,
    bootstrap::{Resampler, Statistic},
    calibration::{logit, sigmoid, softplus},
    curves::{BandedCurve, banded},
};

/// Percentiles of five knots, and of three.
const KNOTS: [&[f64]; 2] = [&[0.05, 0.275, 0.5, 0.725, 0.95], &[0.1, 0.5, 0.9]];
/// Coefficients at most: an intercept, a line, three bends.
const MOST: usize = 5;
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

/// A row of the design: an intercept, then the basis at a record's logit; what is beyond its coefficients is 0.
type Terms = [f64; MOST];

/// The basis of the curve.
#[derive(Debug, Clone, PartialEq)]
struct Basis {
    /// Ascending; fewer than three make a line.
    knots: Vec<f64>,
}

impl Basis {
    /// Of ascending logits.
    fn of(sorted: &[f64]) -> Self {
        let distinct = sorted.chunk_by(|a, b| a == b).count();
        let placed = KNOTS.iter().map(|shares| shares.iter().map(|&share| percentile(sorted, share)).collect());
        let fits = |knots: &Vec<f64>| distinct >= knots.len() && knots.windows(2).all(|pair| pair[0] < pair[1]);
        Self { knots: placed.into_iter().find(fits).unwrap_or_default() }
    }

    /// Coefficients of the curve.
    fn count(&self) -> usize {
        self.knots.len().max(2)
    }

    /// The row at `x`: linear beyond the outer knots.
    fn terms(&self, x: f64) -> Terms {
        let mut terms = [0.0; MOST];
        (terms[0], terms[1]) = (1.0, x);
        let [first, .., before_last, last] = self.knots[..] else { return terms };
        let cube = |from: f64| (x - from).max(0.0).powi(3);
        // Divided by the square of the knots' range: on the scale of x.
        let range = (last - first).powi(2);
        for (term, &knot) in terms[2..].iter_mut().zip(&self.knots[..self.knots.len() - 2]) {
            let back = cube(before_last) * (last - knot) - cube(last) * (before_last - knot);
            *term = (cube(knot) - back / (last - before_last)) / range;
        }
        terms
    }
}

/// A curve to be fitted to weighted records: everything that no resample changes.
pub struct Fit<'a> {
    sample: &'a Sample,
    basis: Basis,
    terms: Vec<Terms>,
}

impl<'a> Fit<'a> {
    /// The curve's design over the records of `sample`.
    pub fn new(sample: &'a Sample) -> Self {
        let logits: Vec<f64> = sample.probabilities().iter().map(|&p| logit(p)).collect();
        let mut sorted = logits.clone();
        sorted.sort_by(f64::total_cmp);
        let basis = Basis::of(&sorted);
        let terms = logits.iter().map(|&x| basis.terms(x)).collect();
        Self { sample, basis, terms }
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

    /// The coefficients of all records; of none, where there is no finite maximum.
    fn whole(&self) -> Result<Terms, &'static str> {
        self.coefficients([0.0; MOST], &vec![1; self.sample.len()])
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

/// The percentile of ascending values, linear between order statistics (numpy's default).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    let at = |place: usize| sorted.get(place).or(sorted.last()).copied().unwrap_or(f64::NAN);
    let low = at(position.floor() as usize);
    low + position.fract() * (at(position.floor() as usize + 1) - low)
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
    let fit = Fit::new(sample);
    let whole = fit.whole();
    let start = match whole {
        Ok(start) => start,
        Err(reason) => return Smooth::undefined(reason, sample.len()),
    };
    let statistic = Statistic::several(sample.len(), |weights| -> [Outcome; 4] {
        match fit.coefficients(start, weights) {
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
    let fit = Fit::new(sample);
    let start = fit.whole().ok()?;
    let ends = sample.probabilities().iter().fold([1.0, 0.0], |[low, high], &p| [f64::min(low, p), f64::max(high, p)]);
    let step = (ends[1] - ends[0]) / (POINTS - 1) as f64;
    let x: Vec<f64> = (0..POINTS).map(|k| (ends[0] + step * k as f64).min(ends[1])).collect();
    let terms: Vec<Terms> = x.iter().map(|&p| fit.basis.terms(logit(p))).collect();
    let read = |weights: &[u32]| match fit.coefficients(start, weights) {
        Ok(b) => [terms.iter().map(|x| sigmoid(dot(&b, x))).collect()],
        Err(_) => [vec![f64::NAN; POINTS]],
    };
    let [curve] = banded(sample, resamples, seed, [x.clone()], read);
    Some(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_go_down_with_the_values_that_there_are() {
        let of = |values: &[f64]| Basis::of(values).knots.len();
        let spread: Vec<f64> = (0..50).map(f64::from).collect();
        assert_eq!(of(&spread), 5);
        // Three values cannot carry five coefficients, whatever the percentiles between them.
        assert_eq!(of(&[-1.0, 0.0, 0.0, 0.0, 1.0]), 3);
        assert_eq!([of(&[0.0, 0.0, 0.0, 1.0]), of(&[0.5; 9]), of(&[])], [0; 3]);
    }

    #[test]
    fn the_basis_is_a_line_beyond_the_outer_knots() {
        let basis = Basis { knots: vec![-2.0, -1.0, 0.0, 1.0, 2.0] };
        for from in [-9.0, 4.0] {
            let [a, b, c] = [0.0, 1.0, 2.0].map(|step| basis.terms(from + step));
            for k in 0..MOST {
                assert!((a[k] - 2.0 * b[k] + c[k]).abs() < 1e-9, "term {k} from {from}");
            }
        }
        assert_eq!(basis.terms(-3.0)[2..], [0.0; 3]);
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
