//! The reliability diagram with its histogram.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BLUE, Data, Drawn, GRID, MUTED, ORANGE, Pen, Picture, exact, with_ends};
use crate::metrics::{
    Sample,
    calibration::{Bin, equal_width, rows},
    significance::wilson,
};

/// Bins of the diagram: those of the expected calibration error.
const BINS: usize = 10;
/// Fewest records of a bin that a line runs through: fewer are a point with its interval, for a line would draw their
/// noise.
const LINE_FROM: f64 = 10.0;
/// Where the vertical axis ends: the legend stands above 1, over no point and no interval.
const TOP: f64 = 1.4;

/// Observed frequency over predicted probability, before and after calibration.
pub(super) struct Reliability {
    own: Vec<Bin>,
    after: Option<(String, Vec<Bin>)>,
}

impl Reliability {
    /// The diagram of `sample` and, where a calibrator was fitted, of the calibrated sample with the method's name.
    pub(super) fn new(sample: &Sample, calibrated: Option<(&str, &Sample)>) -> Self {
        let bins = |sample: &Sample| {
            let ones = vec![1; sample.len()];
            equal_width(rows(sample.probabilities(), sample.labels(), &ones), BINS)
        };
        Self { own: bins(sample), after: calibrated.map(|(name, sample)| (name.to_owned(), bins(sample))) }
    }

    /// A row a bin of [`COLUMNS`].
    pub(super) fn rows(&self) -> impl Iterator<Item = [String; 8]> {
        let after = self.after.as_ref().map(|(name, bins)| (name.as_str(), bins));
        let series = std::iter::once(("model", &self.own)).chain(after);
        series.flat_map(|(name, bins)| bins.iter().enumerate().map(move |(k, bin)| row(name, k, bin)))
    }

    /// The diagram without its histogram; `share` names the vertical axis.
    pub(super) fn diagram<B: DrawingBackend>(&self, area: &Area<B>, title: &str, share: &str, pen: Pen) -> Drawn<B> {
        let mut chart = pen.axes(area, title, ("Predicted probability", 0.0..1.0), (share, 0.0..TOP))?;
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], pen.px(5), pen.px(5), pen.line(MUTED, 1)))?;
        let after = self.after.as_ref().map(|(name, bins)| (format!("After {name} calibration"), bins, ORANGE));
        for (label, bins, color) in after.into_iter().chain([("Model".to_owned(), &self.own, BLUE)]) {
            let points: Vec<(f64, &Bin)> =
                bins.iter().filter(|bin| bin.weight > 0.0).map(|bin| (bin.expected / bin.weight, bin)).collect();
            let dots: Vec<(f64, f64)> = points.iter().map(|(x, bin)| (*x, bin.observed / bin.weight)).collect();
            let whiskers =
                points.iter().filter_map(|(x, bin)| Some((*x, wilson(bin.observed as usize, bin.weight as usize)?)));
            chart.draw_series(whiskers.map(|(x, ends)| pen.whisker(x, ends, color)))?;
            for run in runs(&points) {
                chart.draw_series(LineSeries::new(run, pen.line(color, 2)))?;
            }
            chart.draw_series(std::iter::empty::<Circle<(f64, f64), u32>>())?.label(label).legend(pen.key(color));
            chart.draw_series(dots.iter().map(|&dot| Circle::new(dot, pen.px(4), color.filled())))?;
        }
        pen.legend(&mut chart, SeriesLabelPosition::UpperLeft)
    }
}

impl Picture for Reliability {
    fn size(&self) -> (u32, u32) {
        (720, 640)
    }

    fn name(&self) -> &'static str {
        "reliability"
    }

    fn title(&self) -> String {
        "Reliability diagram".into()
    }

    fn caption(&self) -> String {
        let after = self
            .after
            .as_ref()
            .map(|(name, _)| format!(" Orange: after {name} calibration fitted on dev."))
            .unwrap_or_default();
        format!(
            "Records in {BINS} bins of their probability: a dot says how many of a bin's records really were \
            positive, its bar is \
             Wilson's 95 % interval; a line joins neighbours of 10 records or more, fewer are no trend. On the dashed \
             diagonal probabilities mean what they say; below it they promise too much. The \
             histogram says how many records each bin holds.{after}"
        )
    }

    fn data(&self) -> Data {
        Data::of(COLUMNS, self.rows())
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let (upper, lower) = area.split_vertically(pen.px(440));
        self.diagram(&upper, &self.title(), "Share that is positive", pen)?;
        let most = self.own.iter().map(|bin| bin.weight).fold(1.0, f64::max);
        let mut histogram = pen.axes(&lower, "", ("Predicted probability", 0.0..1.0), ("Records", 0.0..most * 1.05))?;
        let bar = |(k, bin): (usize, &Bin)| {
            let edge = |k: usize| k as f64 / BINS as f64;
            [
                Rectangle::new([(edge(k), 0.0), (edge(k + 1), bin.weight)], BLUE.mix(0.55).filled()),
                Rectangle::new([(edge(k), 0.0), (edge(k + 1), bin.weight)], pen.line(GRID, 1)),
            ]
        };
        histogram.draw_series(self.own.iter().enumerate().flat_map(bar))?;
        Ok(())
    }
}

/// Heads of a reliability diagram's numbers.
pub(super) const COLUMNS: [&str; 8] =
    ["series", "from", "to", "records", "mean_probability", "share_positive", "low", "high"];

fn row(name: &str, k: usize, bin: &Bin) -> [String; 8] {
    let mean = |sum: f64| exact(Some(sum / bin.weight).filter(|_| bin.weight > 0.0));
    let [_, low, high] = with_ends(None, wilson(bin.observed as usize, bin.weight as usize));
    let edge = |k: usize| exact(k as f64 / BINS as f64);
    let records = bin.weight.to_string();
    [name.to_owned(), edge(k), edge(k + 1), records, mean(bin.expected), mean(bin.observed), low, high]
}

/// The stretches of neighbouring bins with enough records for a line: two dots or more each.
fn runs(points: &[(f64, &Bin)]) -> Vec<Vec<(f64, f64)>> {
    let stretches = points.split(|(_, bin)| bin.weight < LINE_FROM).filter(|stretch| stretch.len() > 1);
    stretches.map(|stretch| stretch.iter().map(|(x, bin)| (*x, bin.observed / bin.weight)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_runs_through_a_bin_of_few_records() {
        let bin = |weight: f64| Bin { weight, observed: weight / 2.0, expected: weight / 2.0 };
        let bins = [10.0, 12.0, 9.0, 30.0, 3.0, 11.0, 10.0, 10.0].map(bin);
        let points: Vec<(f64, &Bin)> = bins.iter().enumerate().map(|(i, bin)| (i as f64, bin)).collect();
        let starts: Vec<(f64, usize)> = runs(&points).iter().map(|run| (run[0].0, run.len())).collect();
        assert_eq!(starts, [(0.0, 2), (5.0, 3)]);
    }
}
