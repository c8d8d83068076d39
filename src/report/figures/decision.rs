//! The decision curve.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BAND, BLUE, Data, Drawn, INK, ORANGE, Pen, Picture, curve_rows, outline};
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

    /// The parts of a line that are in view: it may leave below and come back.
    fn visible(&self, curve: &BandedCurve) -> Vec<Vec<(f64, f64)>> {
        let points: Vec<(f64, f64)> = curve.x.iter().copied().zip(curve.y.iter().copied()).collect();
        let crossing =
            |(x0, y0): (f64, f64), (x1, y1): (f64, f64)| (x0 + (x1 - x0) * (self.lowest - y0) / (y1 - y0), self.lowest);
        let mut parts: Vec<Vec<(f64, f64)>> =
            vec![points.first().filter(|point| point.1 >= self.lowest).copied().into_iter().collect()];
        for pair in points.windows(2) {
            let from = pair[0];
            let to = pair[1];
            match (from.1 >= self.lowest, to.1 >= self.lowest) {
                (true, true) => parts.last_mut().into_iter().for_each(|part| part.push(to)),
                (true, false) => parts.last_mut().into_iter().for_each(|part| part.push(crossing(from, to))),
                (false, true) => parts.push(vec![crossing(from, to), to]),
                (false, false) => {}
            }
        }
        parts
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
        "Net benefit, in true positives a record: cases found less false alarms, these weighed by the odds of the \
        threshold at which \
         one would act. The model is worth using where its line lies above both acting on everyone and acting on no \
         one. Shaded: 95 % \
         bootstrap band, point by point. The numbers are in tables/decision_curve."
            .into()
    }

    fn data(&self) -> Data {
        let all = curve_rows(&self.curves.all).map(|[_, y, low, high]| [y, low, high]);
        let rows = curve_rows(&self.curves.model).zip(all);
        let rows = rows.map(|([x, y, low, high], [all, all_low, all_high])| [x, y, low, high, all, all_low, all_high]);
        Data::of(["threshold", "model", "model_low", "model_high", "everyone", "everyone_low", "everyone_high"], rows)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let y = ("Net benefit", self.lowest..self.highest);
        let mut chart = pen.axes(area, &self.title(), ("Threshold probability", 0.0..1.0), y)?;
        let band = self.band();
        if band.len() > 2 {
            chart.draw_series(std::iter::once(Polygon::new(band, BLUE.mix(BAND).filled())))?;
        }
        // A series carries its label once, whatever its parts.
        let mut line = |curve: &BandedCurve, (color, width): (RGBColor, u32), label: &str| -> Drawn<B> {
            let parts = self.visible(curve).into_iter().map(|part| PathElement::new(part, pen.line(color, width)));
            chart.draw_series(parts)?.label(label).legend(pen.key(color));
            Ok(())
        };
        line(&self.curves.all, (ORANGE, 2), "Act on everyone")?;
        line(&BandedCurve { x: vec![0.0, 1.0], y: vec![0.0, 0.0], band: Vec::new() }, (INK, 1), "Act on no one")?;
        line(&self.curves.model, (BLUE, 2), "Model")?;
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_leaves_the_view_comes_back() {
        let curve = BandedCurve { x: vec![0.0, 0.2, 0.4, 0.6], y: vec![0.4, -0.3, -0.3, 0.1], band: vec![None; 4] };
        let curves = DecisionCurves { model: curve.clone(), all: curve.clone(), ..DecisionCurves::default() };
        let parts = Decision::new(&curves).visible(&curve);
        assert_eq!((parts.len(), parts[0].len(), parts[1].len()), (2, 2, 2));
        assert!((parts[0][1].1 + 0.1).abs() < 1e-12 && (parts[1][0].0 - 0.5).abs() < 1e-12, "{parts:?}");
    }
}
