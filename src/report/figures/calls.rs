//! What was called what: confusion matrices, and probabilities by class.

use plotters::{
    chart::SeriesLabelPosition,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    names::Sides,
    style::{Area, BLUE, Data, Drawn, INK, MUTED, ORANGE, PAPER, Pen, Picture, exact},
};
use crate::metrics::{Sample, classification::Confusion};

/// Confusion matrices at 0.5 and at the threshold tuned for F1.
pub(super) struct Matrices<'a> {
    tables: Vec<(f64, String, Confusion)>,
    sides: Sides<'a>,
}

impl<'a> Matrices<'a> {
    /// The matrices of `sample`.
    pub(super) fn new(sample: &Sample, tuned: Option<f64>, sides: Sides<'a>) -> Self {
        let at = |threshold| Confusion::at(sample.probabilities(), sample.labels(), threshold);
        let default = (0.5, "At 0.5".to_owned(), at(0.5));
        let tuned =
            tuned.map(|threshold| (threshold, format!("At {threshold:.3}, tuned on dev for F1"), at(threshold)));
        Self { tables: std::iter::once(default).chain(tuned).collect(), sides }
    }

    /// Two classes' matrix, centred in `area`.
    fn matrix<B: DrawingBackend>(&self, area: &Area<B>, heading: &str, table: &Confusion, pen: Pen) -> Drawn<B> {
        let heads = |of: &str| [0, 1].map(|side| format!("{of} {}", self.sides.head(side))).to_vec();
        let rows =
            vec![vec![table.true_negatives, table.false_positives], vec![table.false_negatives, table.true_positives]];
        let cell = if self.sides.0.is_some() { NAMED_CELL } else { CELL };
        Grid { rows, row_names: heads("is"), column_names: heads("called"), cell }.draw(area, heading, pen)
    }
}

impl Picture for Matrices<'_> {
    fn size(&self) -> (u32, u32) {
        // Names take more room than numbers.
        if self.sides.0.is_some() { (1000, 340) } else { (820, 340) }
    }

    fn name(&self) -> &'static str {
        "confusion"
    }

    fn title(&self) -> String {
        "Confusion matrices".into()
    }

    fn caption(&self) -> String {
        "Records by what they are (rows) and what they are called (columns); below each count its share of the row. \
        The stronger a \
         cell's colour, the larger that share."
            .into()
    }

    fn data(&self) -> Data {
        let counts = |(threshold, _, table): &(f64, String, Confusion)| {
            let counts = [table.true_negatives, table.false_positives, table.false_negatives, table.true_positives];
            let row = |(k, count): (usize, u64)| {
                [exact(*threshold), self.sides.key(k / 2), self.sides.key(k % 2), count.to_string()]
            };
            counts.into_iter().enumerate().map(row).collect::<Vec<_>>()
        };
        Data::of(["threshold", "is", "called", "records"], self.tables.iter().flat_map(counts))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        for (half, (_, heading, table)) in area.split_evenly((1, self.tables.len())).iter().zip(&self.tables) {
            self.matrix(half, heading, table, pen)?;
        }
        Ok(())
    }
}

/// Width and height of a cell of two classes.
pub(super) const CELL: (u32, u32) = (134, 110);
/// The same below a class's name.
const NAMED_CELL: (u32, u32) = (154, 110);

/// A confusion matrix: counts by what records are (rows) and what they are called (columns).
pub(super) struct Grid {
    /// (K, K).
    pub rows: Vec<Vec<u64>>,
    /// What records are.
    pub row_names: Vec<String>,
    /// What they are called.
    pub column_names: Vec<String>,
    /// Width and height of a cell.
    pub cell: (u32, u32),
}

impl Grid {
    /// Draws it centred in `area`.
    pub(super) fn draw<B: DrawingBackend>(&self, area: &Area<B>, heading: &str, pen: Pen) -> Drawn<B> {
        let (width, _) = area.dim_in_pixel();
        let cell_width = pen.px(self.cell.0) as i32;
        let cell_height = pen.px(self.cell.1) as i32;
        let across = self.rows.len() as i32 * cell_width;
        let left = (width as i32 - across) / 2 + pen.px(34) as i32;
        let top = pen.px(96) as i32;
        let centred = |size, color| pen.text(size, color).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new(heading.to_owned(), (left + across / 2, pen.px(26) as i32), centred(19, INK)))?;
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + i as i32 * cell_height;
            let named = pen.text(17, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(self.row_names[i].clone(), (left - pen.px(12) as i32, y + cell_height / 2), named))?;
            let x = left + i as i32 * cell_width + cell_width / 2;
            area.draw(&Text::new(self.column_names[i].clone(), (x, top - pen.px(18) as i32), centred(17, INK)))?;
            self.draw_row(area, i, row, (left, y), pen)?;
        }
        Ok(())
    }

    /// The cells of row `i` from its upper left corner on.
    fn draw_row<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        i: usize,
        row: &[u64],
        (left, y): (i32, i32),
        pen: Pen,
    ) -> Drawn<B> {
        let cell_width = pen.px(self.cell.0) as i32;
        let cell_height = pen.px(self.cell.1) as i32;
        // Text shrinks with the cells.
        let sized = |size: u32| size * self.cell.1 / CELL.1;
        let centred = |size, color| pen.text(size, color).pos(Pos::new(HPos::Center, VPos::Center));
        let total: u64 = row.iter().sum();
        for (j, &count) in row.iter().enumerate() {
            let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
            let x = left + j as i32 * cell_width;
            let corners = [(x, y), (x + cell_width, y + cell_height)];
            let fill = if i == j { BLUE } else { ORANGE };
            area.draw(&Rectangle::new(corners, fill.mix(0.06 + 0.44 * share).filled()))?;
            area.draw(&Rectangle::new(corners, pen.line(PAPER, 2)))?;
            let middle = (x + cell_width / 2, y + cell_height / 2);
            let above = (middle.0, middle.1 - pen.px(sized(12)) as i32);
            area.draw(&Text::new(count.to_string(), above, centred(sized(26), INK)))?;
            let below = (middle.0, middle.1 + pen.px(sized(20)) as i32);
            area.draw(&Text::new(format!("{:.1} %", share * 100.0), below, centred(sized(17), INK)))?;
        }
        Ok(())
    }
}

/// Bins of the histograms.
const BINS: usize = 20;

/// Histograms of the probability, one a class.
pub(super) struct Histograms<'a> {
    shares: [Vec<f64>; 2],
    counts: [usize; 2],
    thresholds: Vec<(String, f64)>,
    sides: Sides<'a>,
}

impl<'a> Histograms<'a> {
    /// The histograms of `sample`, with lines at 0.5 and at the tuned threshold.
    pub(super) fn new(sample: &Sample, tuned: Option<f64>, sides: Sides<'a>) -> Self {
        let mut shares = [vec![0.0; BINS], vec![0.0; BINS]];
        let counts = [sample.len() - sample.positives(), sample.positives()];
        for (&probability, &label) in sample.probabilities().iter().zip(sample.labels()) {
            let bin = ((probability * BINS as f64) as usize).min(BINS - 1);
            shares[usize::from(label)][bin] += 1.0 / counts[usize::from(label)] as f64;
        }
        let tuned = tuned.map(|threshold| (format!("Tuned threshold, {threshold:.3}"), threshold));
        let thresholds = std::iter::once(("Threshold 0.5".to_owned(), 0.5)).chain(tuned).collect();
        Self { shares, counts, thresholds, sides }
    }
}

impl Picture for Histograms<'_> {
    fn name(&self) -> &'static str {
        "histogram"
    }

    fn title(&self) -> String {
        "Probabilities by class".into()
    }

    fn caption(&self) -> String {
        "How the probabilities of the records of each class are spread, each class as shares of itself. The less the \
        two overlap, \
         the better they can be told apart; records right of a threshold are called positive."
            .into()
    }

    fn data(&self) -> Data {
        let edge = |k: usize| exact(k as f64 / BINS as f64);
        let row = |k: usize| [edge(k), edge(k + 1), exact(self.shares[0][k]), exact(self.shares[1][k])];
        let heads = [0, 1].map(|side| self.sides.share(side));
        Data::of(["from", "to", &heads[0], &heads[1]], (0..BINS).map(row))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let most = self.shares.iter().flatten().copied().fold(0.01, f64::max);
        let y = ("Share of the class", 0.0..most * 1.25);
        let mut chart = pen.axes(area, &self.title(), ("Predicted probability", 0.0..1.0), y)?;
        for (class, color) in [(0, ORANGE), (1, BLUE)] {
            let edge = |k: usize| k as f64 / BINS as f64;
            let bars = self.shares[class].iter().enumerate().filter(|(_, share)| **share > 0.0);
            let bars = bars
                .map(|(k, &share)| Rectangle::new([(edge(k), 0.0), (edge(k + 1), share)], color.mix(0.45).filled()));
            let label = format!("{} ({} records)", self.sides.legend(class), self.counts[class]);
            chart.draw_series(bars)?.label(label).legend(pen.key(color));
        }
        let most = most * 1.25;
        for ((label, threshold), color) in self.thresholds.iter().zip([MUTED, INK]) {
            let line = [(*threshold, 0.0), (*threshold, most)];
            let dashes = DashedLineSeries::new(line, pen.px(6), pen.px(4), pen.line(color, 2));
            chart.draw_series(dashes)?.label(label.clone()).legend(pen.key(color));
        }
        pen.legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_shares_of_their_class() {
        let mut sample = Sample::new();
        [(0.0, false), (0.04, false), (1.0, true)].into_iter().for_each(|(p, y)| sample.push(p, y, None, None));
        let histograms = Histograms::new(&sample, None, Sides(None));
        assert_eq!((histograms.shares[0][0], histograms.shares[1][BINS - 1], histograms.counts), (1.0, 1.0, [2, 1]));
        assert_eq!(histograms.shares[0].iter().sum::<f64>(), 1.0);
    }
}
