//! The decision curve.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BAND, BLUE, Drawn, INK, ORANGE, Pen, Picture, outline};
use crate::metrics::{curves::BandedCurve, decision_curves::DecisionCurves};

/// Net benefit of deciding by the model, of treating all, of treating none.
pub(super) struct Decision<'a> {
    curves: &'a DecisionCurves,
    lowest: f64,
    highest: f64,
}

impl<'a> Decision<'a> {
    /// The figure of these curves.
    pub(super) fn new(curves: &'a DecisionCurves) -> Self {
        let best = curves.model.y.iter().chain(&curves.all.y).copied().fold(0.01, f64::max);
        let best = curves.model.band.iter().flatten().map(|band| band[1]).fold(best, f64::max);
        // Treating all falls without bound: what lies far below none is of no use to see.
        Self { curves, lowest: -best / 4.0, highest: best * 1.08 }
    }

    /// A line as far as it stays in view.
    fn visible(&self, curve: &BandedCurve) -> Vec<(f64, f64)> {
        let mut line: Vec<(f64, f64)> = Vec::new();
        for (&x, &y) in curve.x.iter().zip(&curve.y) {
            if y < self.lowest {
                if let Some(&(x0, y0)) = line.last() {
                    line.push((x0 + (x - x0) * (self.lowest - y0) / (y - y0), self.lowest));
                }
                break;
            }
            line.push((x, y));
        }
        line
    }

    /// The outline of the model's band, cut at the lower edge of the view.
    fn band(&self) -> Vec<(f64, f64)> {
        let BandedCurve { x, band, .. } = &self.curves.model;
        outline(x, band).into_iter().map(|(x, y)| (x, y.max(self.lowest))).collect()
    }
}

impl Picture for Decision<'_> {
    fn name(&self) -> &'static str {
        "decision-curve"
    }

    fn title(&self) -> String {
        "Decision curve".into()
    }

    fn caption(&self) -> String {
        "Net benefit, in true positives a record: cases found less false alarms, these weighed by the odds of the threshold at which \
         one would act. The model is worth using where its line lies above both acting on everyone and acting on no one. Shaded: 95 % \
         bootstrap band, point by point. The numbers are in tables/decision_curve."
            .into()
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let y = ("Net benefit", self.lowest..self.highest);
        let mut chart = pen.axes(area, &self.title(), ("Threshold probability", 0.0..1.0), y)?;
        let band = self.band();
        if band.len() > 2 {
            chart.draw_series(std::iter::once(Polygon::new(band, BLUE.mix(BAND).filled())))?;
        }
        let all = self.visible(&self.curves.all);
        chart.draw_series(LineSeries::new(all, pen.line(ORANGE, 2)))?.label("Act on everyone").legend(pen.key(ORANGE));
        let none = [(0.0, 0.0), (1.0, 0.0)];
        chart.draw_series(LineSeries::new(none, pen.line(INK, 1)))?.label("Act on no one").legend(pen.key(INK));
        let model = self.visible(&self.curves.model);
        chart.draw_series(LineSeries::new(model, pen.line(BLUE, 2)))?.label("Model").legend(pen.key(BLUE));
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}
