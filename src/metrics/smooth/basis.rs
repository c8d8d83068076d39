//! The basis of a smooth calibration curve: a restricted cubic spline of the logit.

/// Percentiles of five knots, and of three.
const KNOTS: [&[f64]; 2] = [&[0.05, 0.275, 0.5, 0.725, 0.95], &[0.1, 0.5, 0.9]];
/// Coefficients at most: an intercept, a line, three bends.
pub(super) const MOST: usize = 5;
/// A row of the design: an intercept, then the basis at a record's logit; what is beyond its coefficients is 0.
pub(super) type Terms = [f64; MOST];

/// The basis of the curve.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Basis {
    /// Ascending; fewer than three make a line.
    knots: Vec<f64>,
}

impl Basis {
    /// Those that ascending logits can carry, the most supple first, a line last.
    pub fn each(sorted: &[f64]) -> Vec<Self> {
        let distinct = sorted.chunk_by(|a, b| a == b).count();
        let placed = KNOTS.iter().map(|shares| shares.iter().map(|&share| percentile(sorted, share)).collect());
        let fits = |knots: &Vec<f64>| distinct >= knots.len() && knots.windows(2).all(|pair| pair[0] < pair[1]);
        placed.filter(fits).chain([Vec::new()]).map(|knots| Self { knots }).collect()
    }

    /// Coefficients of the curve.
    pub fn count(&self) -> usize {
        self.knots.len().max(2)
    }

    /// The row at `x`: linear beyond the outer knots.
    pub fn terms(&self, x: f64) -> Terms {
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

/// The percentile of ascending values, linear between order statistics (numpy's default).
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    let at = |place: usize| sorted.get(place).or(sorted.last()).copied().unwrap_or(f64::NAN);
    let low = at(position.floor() as usize);
    low + position.fract() * (at(position.floor() as usize + 1) - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_go_down_with_the_values_that_there_are() {
        let of = |values: &[f64]| Basis::each(values)[0].knots.len();
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
}
