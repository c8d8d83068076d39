//! The smooth calibration curve, and below it the distribution of the probabilities by outcome (Van Calster et al.,
//! *Lancet Digit. Health* 2025).

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::{
    names::Sides,
    style::{Area, BAND, BLUE, Data, Drawn, MUTED, ORANGE, Pen, Picture, curve_rows, exact, outline},
};
use crate::metrics::{Metric, Sample, curves::BandedCurve, smooth::Smooth};

/// Bins of the distribution.
const BINS: usize = 40;
/// The axes end at a tenth, the one above what there is to see.
const TENTHS: f64 = 10.0;

/// Observed over predicted, as a curve with its band.
pub(super) struct CalibrationCurve<'a> {
    curve: BandedCurve,
    smooth: Option<&'a Smooth>,
    /// Where both axes end.
    end: f64,
    /// Records of each bin, negative and positive ones.
    counts: [Vec<usize>; 2],
    sides: Sides<'a>,
}

impl<'a> CalibrationCurve<'a> {
    /// The figure of `curve`, over the probabilities of `sample`.
    pub(super) fn new(curve: BandedCurve, smooth: Option<&'a Smooth>, sample: &Sample, sides: Sides<'a>) -> Self {
        let highest = curve.x.iter().chain(&curve.y).chain(curve.band.iter().flatten().map(|band| &band[1]));
        let end = (highest.fold(0.0, |end, &y| f64::max(end, y)) * TENTHS).ceil() / TENTHS;
        let end = end.clamp(1.0 / TENTHS, 1.0);
        let mut counts = [vec![0; BINS], vec![0; BINS]];
        for (&probability, &label) in sample.probabilities().iter().zip(sample.labels()) {
            let bin = ((probability / end * BINS as f64) as usize).min(BINS - 1);
            counts[usize::from(label)][bin] += 1;
        }
        Self { curve, smooth, end, counts, sides }
    }

    fn edge(&self, k: usize) -> f64 {
        self.end * k as f64 / BINS as f64
    }

    /// Shares of the class in each bin.
    fn shares(&self, class: usize) -> Vec<f64> {
        let total = self.counts[class].iter().sum::<usize>().max(1) as f64;
        self.counts[class].iter().map(|&count| count as f64 / total).collect()
    }

    fn label(&self) -> String {
        let shown = |metric: &Metric| metric.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        match self.smooth {
            Some(smooth) => format!("Smooth curve, ICI {}, E90 {}", shown(&smooth.ici), shown(&smooth.e90)),
            None => "Smooth curve".to_owned(),
        }
    }

    fn distribution<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let shares = [self.shares(0), self.shares(1)];
        let most = shares.iter().flatten().copied().fold(0.01, f64::max) * 1.1;
        let y = ("Share of outcome", -most..most);
        let mut chart = pen.axes(area, "", ("Predicted probability", 0.0..self.end), y)?;
        for (class, color, up) in [(1, BLUE, 1.0), (0, ORANGE, -1.0)] {
            let bars = shares[class].iter().enumerate().filter(|(_, share)| **share > 0.0);
            let bars = bars.map(|(k, &share)| {
                Rectangle::new([(self.edge(k), 0.0), (self.edge(k + 1), up * share)], color.mix(0.55).filled())
            });
            let count: usize = self.counts[class].iter().sum();
            let place = if class == 1 { "above" } else { "below" };
            let label = format!("{}, {place} ({count} records)", self.sides.legend(class));
            chart.draw_series(bars)?.label(label).legend(pen.key(color));
        }
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}

impl Picture for CalibrationCurve<'_> {
    fn size(&self) -> (u32, u32) {
        (720, 720)
    }

    fn name(&self) -> &'static str {
        "calibration-curve"
    }

    fn title(&self) -> String {
        "Calibration curve".into()
    }

    fn caption(&self) -> String {
        "The share of records that really are positive, as a smooth curve over the predicted probability (logistic \
         regression on a restricted cubic spline of its logit). On the dashed diagonal probabilities mean what they \
         say; below it they promise too much. Shaded: 95 % bootstrap band, point by point. Below: how the \
         probabilities of each outcome are spread, each outcome as shares of itself; where there are few records the \
         curve says little."
            .into()
    }

    fn data(&self) -> Data {
        let curve =
            curve_rows(&self.curve).map(|[x, y, low, high]| ["curve".to_owned(), x, String::new(), y, low, high]);
        let bars = [0, 1].into_iter().flat_map(|class| {
            let shares = self.shares(class).into_iter().enumerate();
            shares.map(move |(k, share)| {
                let ends = [exact(self.edge(k)), exact(self.edge(k + 1))];
                let [from, to] = ends;
                [self.sides.share(class), from, to, exact(share), String::new(), String::new()]
            })
        });
        Data::of(["series", "probability", "to", "value", "low", "high"], curve.chain(bars))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let (upper, lower) = area.split_vertically(pen.px(470));
        let axes = [("Predicted probability", 0.0..self.end), ("Share that is positive", 0.0..self.end)];
        let [x, y] = axes;
        let mut chart = pen.axes(&upper, &self.title(), x, y)?;
        let diagonal = [(0.0, 0.0), (self.end, self.end)];
        chart.draw_series(DashedLineSeries::new(diagonal, pen.px(5), pen.px(5), pen.line(MUTED, 1)))?;
        let band = outline(&self.curve.x, &self.curve.band);
        if band.len() > 2 {
            chart.draw_series(std::iter::once(Polygon::new(band, BLUE.mix(BAND).filled())))?;
        }
        let points = self.curve.x.iter().copied().zip(self.curve.y.iter().copied());
        chart.draw_series(LineSeries::new(points, pen.line(BLUE, 2)))?.label(self.label()).legend(pen.key(BLUE));
        pen.legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
        self.distribution(&lower, pen)
    }
}
