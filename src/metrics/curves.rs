//! ROC and precision–recall curves on a fixed grid, with 95 % bands.
//!
//! Bands are vertical averages' percentiles (Fawcett, *Pattern Recognition Letters* 27, 2006, algorithm 3): the curve
//! of every resample is read at each point of the grid of its horizontal axis, and the 2.5 and 97.5 percentiles there
//! are the band. Pointwise, not simultaneous. Resamples are those of [`super::bootstrap`]: stratified, whole groups at
//! a time.
//!
//! ROC is linear between its points; precision–recall is a step (precision where recall is first reached), for a line
//! between its points would promise what no threshold gives (Davis & Goadrich, ICML 2006).

use rayon::prelude::*;

use super::{Sample, bootstrap::Resampler, ranking::Ranking};

/// Steps of the grid: 0, 0.01 … 1.
const STEPS: usize = 100;

/// A curve over a grid, with its band.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BandedCurve {
    /// Points of the horizontal axis, ascending.
    pub x: Vec<f64>,
    /// The curve at each of them.
    pub y: Vec<f64>,
    /// The band there; `None` where the resamples give none (see [`super::bootstrap`]): too few, or no variation.
    pub band: Vec<Option<[f64; 2]>>,
}

/// ROC and precision–recall of one sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// True-positive rate over false-positive rate.
    pub roc: BandedCurve,
    /// Precision over recall.
    pub precision_recall: BandedCurve,
}

/// The curves of `sample` with bands from `resamples` resamples; `None` where a class is missing.
pub fn curves(sample: &Sample, resamples: usize, seed: u64) -> Option<Curves> {
    let positives = sample.positives();
    if positives == 0 || positives == sample.len() {
        return None;
    }
    let ranking = Ranking::new(sample.probabilities());
    let read = |weights: &[u32]| -> [Vec<f64>; 2] {
        let points: Vec<(u64, u64)> = ranking.cumulative(sample.labels(), weights).collect();
        [roc_on_grid(&points), precision_on_grid(&points)]
    };
    let [roc, precision_recall] = banded(sample, resamples, seed, [grid().collect(), grid().collect()], read);
    Some(Curves { roc, precision_recall })
}

/// Curves that `read` gives at the points `x`, from the records' weights: of the whole sample, with bands over
/// resamples.
pub(super) fn banded<const N: usize>(
    sample: &Sample,
    resamples: usize,
    seed: u64,
    x: [Vec<f64>; N],
    read: impl Fn(&[u32]) -> [Vec<f64>; N] + Sync,
) -> [BandedCurve; N] {
    let resampler = Resampler::new(sample, seed);
    let draws: Vec<[Vec<f64>; N]> =
        (0..resamples as u64).into_par_iter().map(|resample| read(&resampler.weights(resample))).collect();
    let values = read(&vec![1; sample.len()]);
    let mut which = 0..N;
    x.map(|x| {
        let curve = which.next().unwrap_or_default();
        let at = |k: usize| {
            let column: Vec<f64> = draws.iter().map(|draw| draw[curve][k]).filter(|value| value.is_finite()).collect();
            resampler.percentile_interval(column, resamples).ok()
        };
        let band = (0..x.len()).map(at).collect();
        BandedCurve { x, y: values[curve].clone(), band }
    })
}

fn grid() -> impl Iterator<Item = f64> {
    (0..=STEPS).map(|k| k as f64 / STEPS as f64)
}

/// True-positive rate at each false-positive rate of the grid; the upper end of a vertical stretch. NaN where a class
/// is missing.
fn roc_on_grid(points: &[(u64, u64)]) -> Vec<f64> {
    let (positives, negatives) = points.last().map_or((0.0, 0.0), |&(p, n)| (p as f64, n as f64));
    let rate = |&(p, n): &(u64, u64)| (n as f64 / negatives, p as f64 / positives);
    let mut before = (0.0, 0.0);
    let mut next = 0;
    let value = |x: f64| {
        while next < points.len() && rate(&points[next]).0 <= x {
            before = rate(&points[next]);
            next += 1;
        }
        match points.get(next).map(rate) {
            Some((x1, y1)) => before.1 + (y1 - before.1) * (x - before.0) / (x1 - before.0),
            None => before.1,
        }
    };
    if positives * negatives == 0.0 { vec![f64::NAN; STEPS + 1] } else { grid().map(value).collect() }
}

/// Precision at the highest threshold that reaches each recall of the grid. NaN without a positive.
fn precision_on_grid(points: &[(u64, u64)]) -> Vec<f64> {
    let positives = points.last().map_or(0, |point| point.0);
    if positives == 0 {
        return vec![f64::NAN; STEPS + 1];
    }
    let mut next = 0;
    let value = |k: usize| {
        // In integers: 0.07 · 100 is not 7. Recall 0 is read at the first positive found.
        while next + 1 < points.len() && (points[next].0 * (STEPS as u64) < k as u64 * positives || points[next].0 == 0)
        {
            next += 1;
        }
        let (p, n) = points[next];
        p as f64 / (p + n) as f64
    };
    (0..=STEPS).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: &[(f64, bool)]) -> Sample {
        let mut sample = Sample::new();
        rows.iter().for_each(|&(p, y)| sample.push(p, y, None, None));
        sample
    }

    #[test]
    fn curves_by_hand() {
        let curves = curves(&sample(&[(0.9, true), (0.8, false), (0.7, true), (0.1, false)]), 0, 1).unwrap();
        let roc = &curves.roc;
        assert_eq!((roc.y[0], roc.y[49], roc.y[50], roc.y[100]), (0.5, 0.5, 1.0, 1.0));
        let pr = &curves.precision_recall;
        assert_eq!((pr.y[0], pr.y[50], pr.y[51], pr.y[100]), (1.0, 1.0, 2.0 / 3.0, 2.0 / 3.0));
        assert!(roc.band.iter().all(Option::is_none));
        assert!(super::curves(&sample(&[(0.9, true)]), 0, 1).is_none());
    }

    #[test]
    fn ties_are_crossed_on_the_diagonal() {
        let curves = curves(&sample(&[(0.5, true), (0.5, false), (0.5, false)]), 0, 1).unwrap();
        curves.roc.x.iter().zip(&curves.roc.y).for_each(|(x, y)| assert!((x - y).abs() < 1e-12));
        assert!(curves.precision_recall.y.iter().all(|&y| y == 1.0 / 3.0));
    }

    #[test]
    fn the_band_holds_the_curve_and_whole_groups_widen_it() {
        let rows: Vec<(f64, bool)> =
            (0..200).map(|i| (f64::from(i * 37 % 200) / 200.0, i * 37 % 200 + i % 7 * 20 > 130)).collect();
        let width = |sample: &Sample| {
            let curves = curves(sample, 200, 7).unwrap();
            let mut total = 0.0;
            // Where all resamples agree, at the end of the curve, there is no band.
            assert!(curves.roc.band.iter().flatten().count() > 50);
            for (y, band) in curves.roc.y.iter().zip(&curves.roc.band) {
                let Some([low, high]) = *band else { continue };
                assert!(low <= y + 1e-12 && *y <= high + 1e-12 && low >= 0.0 && high <= 1.0);
                total += high - low;
            }
            total
        };
        let mut grouped = Sample::new();
        rows.iter()
            .enumerate()
            .for_each(|(i, &(p, y))| grouped.push(p, y, None, Some(&format!("g{}", i * 37 % 200 / 20))));
        assert!(width(&grouped) > width(&sample(&rows)));
    }
}
