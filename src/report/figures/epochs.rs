//! Fig. 1 a–c of the paper over a run's own epochs: parsable rate, AUROC, agreement of head and text.

use plotters::{chart::SeriesLabelPosition, prelude::*};

use super::style::{Area, BLUE, Data, Drawn, EPOCH, ORANGE, Pen, Picture, with_ends};
use crate::metrics::Metric;

/// Dev metrics of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochMetrics {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Share of the texts that could be parsed.
    pub parsable: Metric,
    /// AUROC of the head.
    pub auroc: Metric,
    /// AUROC of the head against the verbalized label.
    pub auroc_align: Metric,
    /// κ at 0.5 between head and verbalized label.
    pub kappa: Metric,
}

/// The three panels.
pub(super) struct Epochs<'a>(pub &'a [EpochMetrics]);

/// A line of a panel: name, colour, metric.
type Line = (&'static str, RGBColor, fn(&EpochMetrics) -> &Metric);

/// Heading and lines of the panels.
const PANELS: [(&str, &[Line]); 3] = [
    ("(a) Parsable rate", &[("Parsable rate", BLUE, |e| &e.parsable)]),
    ("(b) AUROC", &[("AUROC", BLUE, |e| &e.auroc)]),
    ("(c) Agreement", &[("Cohen's κ at 0.5", BLUE, |e| &e.kappa), ("AUROC-Align", ORANGE, |e| &e.auroc_align)]),
];

impl Picture for Epochs<'_> {
    fn size(&self) -> (u32, u32) {
        (1140, 420)
    }

    fn name(&self) -> &'static str {
        "curve"
    }

    fn title(&self) -> String {
        "Dev metrics over the epochs (the paper's Fig. 1)".into()
    }

    fn caption(&self) -> String {
        "Dev metrics of each epoch's checkpoint, bars are 95 % intervals: (a) share of the generated texts that name \
        a class, (b) \
         AUROC of the classification head, (c) agreement of head and text. In the paper's Fig. 1 training the head \
         alone lets (a) \
         and (c) collapse while (b) rises."
            .into()
    }

    fn data(&self) -> Data {
        let lines = || PANELS.iter().flat_map(|(_, lines)| lines.iter());
        let row = |(epoch, (name, _, metric)): (&EpochMetrics, &Line)| {
            let [value, low, high] = with_ends(metric(epoch).value, metric(epoch).ci95);
            [epoch.epoch.to_string(), (*name).to_owned(), value, low, high]
        };
        let rows = self.0.iter().flat_map(|epoch| lines().map(move |line| (epoch, line)));
        Data::of(["epoch", "metric", "value", "low", "high"], rows.map(row))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let last = self.0.iter().map(|epoch| epoch.epoch).max().unwrap_or(1) as f64;
        for (panel, (heading, lines)) in area.split_evenly((1, PANELS.len())).iter().zip(PANELS) {
            // Only κ can be negative.
            let values = self.0.iter().flat_map(|epoch| lines.iter().map(move |line| line.2(epoch)));
            let lowest =
                values.filter_map(|metric| metric.ci95.map(|ci95| ci95[0]).or(metric.value)).fold(0.0, f64::min);
            let legend = lines.len() > 1;
            // A legend gets room of its own below the lines.
            let y = ("", (lowest * 10.0).floor() / 10.0 - if legend { 0.4 } else { 0.0 }..1.0);
            let mut chart = pen.axes(panel, heading, (EPOCH, 0.5..last + 0.5), y)?;
            for (name, color, metric) in lines {
                let known = |e: &EpochMetrics| Some((e.epoch as f64, metric(e).value?));
                let points: Vec<(f64, f64)> = self.0.iter().filter_map(known).collect();
                let intervals = self.0.iter().filter_map(|e| Some((e.epoch as f64, metric(e).ci95?)));
                chart.draw_series(intervals.map(|(x, ends)| pen.whisker(x, ends, *color)))?;
                chart
                    .draw_series(LineSeries::new(points.clone(), pen.line(*color, 2)))?
                    .label(*name)
                    .legend(pen.key(*color));
                chart.draw_series(points.iter().map(|&dot| Circle::new(dot, pen.px(3), color.filled())))?;
            }
            if legend {
                pen.legend(&mut chart, SeriesLabelPosition::LowerRight)?;
            }
        }
        Ok(())
    }
}
