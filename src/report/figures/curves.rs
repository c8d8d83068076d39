//! Curves with their 95 % bands: ROC, precision–recall, risk–coverage.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BAND, BLUE, Data, Drawn, MUTED, Pen, Picture, curve_rows, outline};
use crate::metrics::{Metric, curves::BandedCurve};

/// Where an axis of shares ends when the legend stands above the curves.
const LEGEND_ABOVE: f64 = 1.2;

/// A ROC curve.
pub(super) struct Roc<'a> {
    /// The curve.
    pub curve: &'a BandedCurve,
    /// AUROC.
    pub area: &'a Metric,
}

/// A precision–recall curve.
pub(super) struct PrecisionRecall<'a> {
    /// The curve.
    pub curve: &'a BandedCurve,
    /// Average precision.
    pub area: &'a Metric,
    /// Share of the records that are positive: what calling at random gives.
    pub prevalence: f64,
}

/// A risk–coverage curve.
pub(super) struct RiskCoverage<'a> {
    /// The curve; its last point is the error rate over all records.
    pub curve: &'a BandedCurve,
    /// AURC.
    pub area: &'a Metric,
}

impl Picture for Roc<'_> {
    fn name(&self) -> &'static str {
        "roc"
    }

    fn title(&self) -> String {
        "ROC curve".into()
    }

    fn caption(&self) -> String {
        "Of the positive records, how many are found (vertical) when so many of the negative ones are called positive \
        by mistake \
         (horizontal). The closer to the upper left corner, the better; the dashed diagonal is chance. Shaded: 95 % \
         band of the \
         vertically averaged bootstrap curves, point by point."
            .into()
    }

    fn data(&self) -> Data {
        Data::of(["false_positive_rate", "true_positive_rate", "low", "high"], curve_rows(self.curve))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        self.chart(area, &self.title(), pen)
    }
}

impl Roc<'_> {
    /// The curve in its axes below a heading.
    pub(super) fn chart<B: DrawingBackend>(&self, area: &Area<B>, title: &str, pen: Pen) -> Drawn<B> {
        let x = ("False-positive rate (1 − specificity)", 0.0..1.0);
        let mut chart = pen.axes(area, title, x, ("True-positive rate (recall)", 0.0..1.0))?;
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], pen.px(5), pen.px(5), pen.line(MUTED, 1)))?;
        banded(&mut chart, self.curve, Some((0.0, 0.0)), labelled("AUROC", self.area), pen)?;
        pen.legend(&mut chart, SeriesLabelPosition::LowerRight)
    }
}

impl Picture for PrecisionRecall<'_> {
    fn name(&self) -> &'static str {
        "precision-recall"
    }

    fn title(&self) -> String {
        "Precision–recall curve".into()
    }

    fn caption(&self) -> String {
        "Of the records called positive, how many are (vertical) when so many of the positive ones are to be found \
        (horizontal). \
         The dashed line is the share of positives: what calling at random gives. Shaded: 95 % bootstrap band, point \
         by point."
            .into()
    }

    fn data(&self) -> Data {
        Data::of(["recall", "precision", "low", "high"], curve_rows(self.curve))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let mut chart = pen.axes(area, &self.title(), ("Recall", 0.0..1.0), ("Precision", 0.0..LEGEND_ABOVE))?;
        let chance = [(0.0, self.prevalence), (1.0, self.prevalence)];
        chart.draw_series(DashedLineSeries::new(chance, pen.px(5), pen.px(5), pen.line(MUTED, 1)))?;
        banded(&mut chart, self.curve, None, labelled("Average precision", self.area), pen)?;
        // The strip above 1 is the legend's: a good curve lies along the top, a poor one along the bottom.
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}

impl Picture for RiskCoverage<'_> {
    fn name(&self) -> &'static str {
        "risk-coverage"
    }

    fn title(&self) -> String {
        "Risk–coverage curve".into()
    }

    fn caption(&self) -> String {
        "Of the records that the model is surest of, how many are called wrong at 0.5 (vertical) when so large a \
        share of all records is \
         decided by it and the rest is left to someone else (horizontal). The dashed line is deciding them all: a \
         curve well below it \
         says that abstaining pays. Shaded: 95 % bootstrap band, point by point. The numbers are in \
         tables/risk_coverage."
            .into()
    }

    fn data(&self) -> Data {
        Data::of(["coverage", "risk", "low", "high"], curve_rows(self.curve))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let highest = self
            .curve
            .band
            .iter()
            .flatten()
            .map(|band| band[1])
            .chain(self.curve.y.iter().copied())
            .fold(0.02, f64::max);
        let y = ("Risk (share called wrong)", 0.0..(highest * 1.08).min(1.0));
        let mut chart = pen.axes(area, &self.title(), ("Coverage (share decided)", 0.0..1.0), y)?;
        let everyone = self.curve.y.last().copied().unwrap_or(0.0);
        chart.draw_series(DashedLineSeries::new(
            [(0.0, everyone), (1.0, everyone)],
            pen.px(5),
            pen.px(5),
            pen.line(MUTED, 1),
        ))?;
        banded(&mut chart, self.curve, None, labelled("AURC", self.area), pen)?;
        pen.legend(&mut chart, SeriesLabelPosition::UpperLeft)
    }
}

/// The band, then the curve over it, from `start` where the grid begins above it.
fn banded<'a, B: DrawingBackend + 'a>(
    chart: &mut super::style::Chart<'a, B>,
    curve: &BandedCurve,
    start: Option<(f64, f64)>,
    label: String,
    pen: Pen,
) -> Drawn<B> {
    let band = outline(&curve.x, &curve.band);
    if band.len() > 2 {
        chart.draw_series(std::iter::once(Polygon::new(band, BLUE.mix(BAND).filled())))?;
    }
    let points: Vec<(f64, f64)> =
        start.into_iter().chain(curve.x.iter().copied().zip(curve.y.iter().copied())).collect();
    chart.draw_series(LineSeries::new(points, pen.line(BLUE, 2)))?.label(label).legend(pen.key(BLUE));
    Ok(())
}

/// `AUROC 0.84 (0.80 to 0.88)`.
fn labelled(name: &str, metric: &Metric) -> String {
    let value = metric.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let interval = metric.ci95.map(|[low, high]| format!(" ({low:.3} to {high:.3})")).unwrap_or_default();
    format!("{name} {value}{interval}")
}
