//! Subgroups one below another, each with its interval, against the line of all records.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    names::shortened,
    style::{Area, BLUE, Data, Drawn, GRID, INK, MUTED, Pen, Picture, with_ends},
};
use crate::metrics::{
    Evaluation, Metric,
    subgroups::{Measures, Subgroup},
};

/// Height of a row, and of what is above and below the rows.
const ROW: u32 = 26;
const AROUND: u32 = 130;
/// Width of the names, and of a panel.
const NAMES: u32 = 330;
const PANEL: u32 = 230;
/// Letters of a column and its value at most.
const LETTERS: usize = 30;

/// What each panel shows, by key, with the value that is marked where none of all records is known.
type Measure = (&'static str, fn(&Measures) -> &Metric, fn(&Evaluation) -> Option<&Metric>);

const PANELS: [Measure; 3] = [
    ("AUROC", |group| &group.auroc, |all| Some(&all.auroc)),
    ("Observed : expected", |group| &group.observed_expected, |all| Some(&all.calibration.observed_expected)),
    ("Sensitivity", |group| &group.sensitivity, |all| Some(&all.tuned.as_ref()?.f1.recall)),
];

/// The forest of an evaluation's subgroups.
pub(super) struct Forest<'a>(pub &'a Evaluation);

impl Forest<'_> {
    /// Column, value and numbers of each row, from above.
    fn rows(&self) -> Vec<(&str, &str, &Subgroup)> {
        let columns = self.0.subgroups.iter();
        columns
            .flat_map(|(column, values)| values.iter().map(move |(value, group)| (&**column, &**value, group)))
            .collect()
    }

    fn panel<B: DrawingBackend>(&self, area: &Area<B>, (name, of, whole): Measure, pen: Pen) -> Drawn<B, Vec<i32>> {
        let rows = self.rows();
        let metrics: Vec<&Metric> = rows.iter().map(|(.., group)| of(&group.own)).collect();
        let whole = whole(self.0).and_then(|metric| metric.value);
        let seen = metrics.iter().flat_map(|m| m.ci95.into_iter().flatten().chain(m.value)).chain(whole);
        let [low, high] = seen.fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], x| [a.min(x), b.max(x)]);
        let ends =
            if low > high { 0.0..1.0 } else { low - 0.05 * (high - low + 0.1)..high + 0.05 * (high - low + 0.1) };
        let mut chart = ChartBuilder::on(area)
            .caption(name, pen.text(18, INK))
            .margin(pen.px(10))
            .x_label_area_size(pen.px(40))
            .build_cartesian_2d(ends, 0.0..rows.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(4)
            .light_line_style(TRANSPARENT)
            .bold_line_style(pen.line(GRID, 1))
            .axis_style(pen.line(MUTED, 1))
            .label_style(pen.text(15, INK))
            .draw()?;
        let place = |k: usize| (rows.len() - k) as f64 - 0.5;
        if let Some(whole) = whole {
            let line = [(whole, 0.0), (whole, rows.len() as f64)];
            chart.draw_series(DashedLineSeries::new(line, pen.px(5), pen.px(5), pen.line(MUTED, 1)))?;
        }
        for (k, metric) in metrics.iter().enumerate() {
            let y = place(k);
            let ends = metric.ci95.map(|[low, high]| PathElement::new(vec![(low, y), (high, y)], pen.line(BLUE, 2)));
            chart.draw_series(ends)?;
            chart.draw_series(metric.value.map(|value| Circle::new((value, y), pen.px(4), BLUE.filled())))?;
        }
        let pixel = |k: usize| chart.plotting_area().map_coordinate(&(0.0, place(k))).1;
        Ok((0..rows.len()).map(pixel).collect())
    }
}

impl Picture for Forest<'_> {
    fn size(&self) -> (u32, u32) {
        (NAMES + PANEL * PANELS.len() as u32, AROUND + ROW * self.rows().len() as u32)
    }

    fn name(&self) -> &'static str {
        "subgroups"
    }

    fn title(&self) -> String {
        "Subgroups".into()
    }

    fn caption(&self) -> String {
        "Each value of the columns of eval.subgroups by itself, bars are 95 % intervals; the dashed line is all \
         records. Sensitivity at dev's threshold for F1. Subgroups with fewer than 10 events or non-events have no \
         mark. The numbers, and each subgroup's difference from the rest, are in tables/subgroups."
            .into()
    }

    fn data(&self) -> Data {
        let rows = self.rows().into_iter().flat_map(|(column, value, group)| {
            group.own.named().map(|(key, metric)| {
                let [of, low, high] = with_ends(metric.value, metric.ci95);
                let counts = [group.n.to_string(), group.events.to_string()];
                let [n, events] = counts;
                [column.to_owned(), value.to_owned(), n, events, key.to_owned(), of, low, high]
            })
        });
        Data::of(["column", "subgroup", "n", "events", "metric", "value", "low", "high"], rows)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let (left, right) = area.split_horizontally(pen.px(NAMES));
        let mut lines = Vec::new();
        for (panel, measure) in right.split_evenly((1, PANELS.len())).iter().zip(PANELS) {
            lines = self.panel(panel, measure, pen)?;
        }
        let style = pen.text(15, INK).pos(Pos::new(HPos::Left, VPos::Center));
        for ((column, value, group), y) in self.rows().into_iter().zip(lines) {
            let name = shortened(&format!("{column}: {value}"), LETTERS);
            left.draw(&Text::new(name, (pen.px(14) as i32, y), style.clone()))?;
            let counts = format!("{} of {}", group.events, group.n);
            let right = pen.text(15, MUTED).pos(Pos::new(HPos::Right, VPos::Center));
            left.draw(&Text::new(counts, (pen.px(NAMES - 8) as i32, y), right))?;
        }
        Ok(())
    }
}
