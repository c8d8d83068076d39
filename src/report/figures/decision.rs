//! The decision curve.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BLUE, Drawn, INK, ORANGE, Pen, Picture};
use crate::metrics::{
    Sample,
    decision::{NetBenefit, decision_curve},
};

/// Net benefit of deciding by the model, of treating all, of treating none.
pub(super) struct Decision {
    points: Vec<NetBenefit>,
    lowest: f64,
    highest: f64,
}

impl Decision {
    /// The curve of `sample` at thresholds 0.01 … 0.99.
    pub(super) fn new(sample: &Sample) -> Self {
        let thresholds: Vec<f64> = (1..100).map(|k| f64::from(k) / 100.0).collect();
        let points = decision_curve(sample.probabilities(), sample.labels(), &thresholds);
        let best = points.iter().map(|point| point.model.max(point.all)).fold(0.01, f64::max);
        // Treating all falls without bound: what lies far below none is of no use to see.
        Self { points, lowest: -best / 4.0, highest: best * 1.08 }
    }

    /// A line as far as it stays in view.
    fn visible(&self, value: fn(&NetBenefit) -> f64) -> Vec<(f64, f64)> {
        let mut line: Vec<(f64, f64)> = Vec::new();
        for point in &self.points {
            let (x, y) = (point.threshold, value(point));
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
}

impl Picture for Decision {
    fn name(&self) -> &'static str {
        "decision-curve"
    }

    fn title(&self) -> String {
        "Decision curve".into()
    }

    fn caption(&self) -> String {
        "Net benefit, in true positives a record: cases found less false alarms, these weighed by the odds of the threshold at which \
         one would act. The model is worth using where its line lies above both acting on everyone and acting on no one."
            .into()
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let y = ("Net benefit", self.lowest..self.highest);
        let mut chart = pen.axes(area, &self.title(), ("Threshold probability", 0.0..1.0), y)?;
        let all = self.visible(|point| point.all);
        chart.draw_series(LineSeries::new(all, pen.line(ORANGE, 2)))?.label("Act on everyone").legend(pen.key(ORANGE));
        let none = [(0.0, 0.0), (1.0, 0.0)];
        chart.draw_series(LineSeries::new(none, pen.line(INK, 1)))?.label("Act on no one").legend(pen.key(INK));
        let model = self.visible(|point| point.model);
        chart.draw_series(LineSeries::new(model, pen.line(BLUE, 2)))?.label("Model").legend(pen.key(BLUE));
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}
