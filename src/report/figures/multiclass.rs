//! Figures of K > 2 classes: the confusion matrix, ROC curves and reliability of each class against the rest.

use plotters::prelude::*;

use super::{
    calibration::{COLUMNS as RELIABILITY, Reliability},
    calls::{CELL, Grid},
    curves::Roc,
    names::shortened,
    style::{Area, Data, Drawn, Figure, Pen, Picture, curve_rows, emit},
};
use crate::{
    error::Result,
    metrics::{
        Metric,
        curves::{BandedCurve, curves},
        multiclass::{Evaluation, Sample},
    },
    storage::AtomicDir,
};

/// Width of all cells of a matrix, and height, where K cells of two classes' size would be more.
const MATRIX: (u32, u32) = (560, 500);

/// A panel of one class.
const PANEL: (u32, u32) = (520, 420);
/// Panels side by side.
const COLUMNS: usize = 2;

/// The scored records over K > 2 classes, and what was measured on them.
#[derive(Debug, Clone, Copy)]
pub struct Classes<'a> {
    /// Predictions.
    pub sample: &'a Sample,
    /// Their metrics.
    pub evaluation: &'a Evaluation,
    /// The calibrated probabilities with the method's name.
    pub calibrated: Option<(&'a str, &'a Sample)>,
}

impl Classes<'_> {
    /// Draws the figures into `dir`, bands from `resamples` resamples.
    pub(super) fn draw(&self, dir: &AtomicDir, resamples: usize, seed: u64) -> Result<Vec<Figure>> {
        let mut figures = vec![emit(&Matrix(self.evaluation), dir)?];
        let areas = self.evaluation.per_class.iter().map(|class| (class.calls.label.clone(), &class.auroc));
        let samples = || (0..self.sample.classes()).map(|class| self.sample.one_vs_rest(class as u8));
        // A class of no record, or of all, has no curve.
        let rocs = areas.zip(samples()).filter_map(|((label, area), sample)| {
            curves(&sample, resamples, seed).map(|curves| (label, curves.roc, area))
        });
        let rocs = RocPanels(rocs.collect());
        if !rocs.0.is_empty() {
            figures.push(emit(&rocs, dir)?);
        }
        let reliability = samples().enumerate().map(|(class, sample)| {
            let calibrated = self.calibrated.map(|(name, sample)| (name, sample.one_vs_rest(class as u8)));
            Reliability::new(&sample, calibrated.as_ref().map(|(name, sample)| (*name, sample)))
        });
        let panels = self.evaluation.classes.iter().cloned().zip(reliability).collect();
        figures.push(emit(&ReliabilityPanels(panels), dir)?);
        Ok(figures)
    }
}

/// The K × K matrix.
struct Matrix<'a>(&'a Evaluation);

impl Matrix<'_> {
    fn cell(&self) -> (u32, u32) {
        let classes = self.0.classes.len().max(1) as u32;
        (CELL.0.min(MATRIX.0 / classes), CELL.1.min(MATRIX.1 / classes))
    }
}

impl Picture for Matrix<'_> {
    fn size(&self) -> (u32, u32) {
        (820, 120 + self.0.classes.len() as u32 * self.cell().1)
    }

    fn name(&self) -> &'static str {
        "confusion-classes"
    }

    fn title(&self) -> String {
        "Confusion matrix".into()
    }

    fn caption(&self) -> String {
        "Records by what they are (rows) and the class of the highest probability (columns); below each count its \
         share of the row. The stronger a cell's colour, the larger that share."
            .into()
    }

    fn data(&self) -> Data {
        let names = &self.0.classes;
        let cell = |k: usize, j: usize, count: u64| [names[k].clone(), names[j].clone(), count.to_string()];
        let rows = self.0.confusion.iter().enumerate();
        let rows = rows.flat_map(|(k, row)| row.iter().enumerate().map(move |(j, &count)| cell(k, j, count)));
        Data::of(["is", "called", "records"], rows)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        let short = |letters: u32| self.0.classes.iter().map(move |name| shortened(name, letters as usize)).collect();
        let grid = Grid {
            rows: self.0.confusion.clone(),
            row_names: short(16),
            column_names: short(self.cell().0 / 9),
            cell: self.cell(),
        };
        grid.draw(area, "Rows: what records are; columns: what they are called", pen)
    }
}

/// Panels of the classes in a grid, each drawn by `draw`.
fn panels<B: DrawingBackend, T>(
    area: &Area<B>,
    items: &[T],
    mut draw: impl FnMut(&Area<B>, &T) -> Drawn<B>,
) -> Drawn<B> {
    let cells = area.split_evenly((items.len().div_ceil(COLUMNS).max(1), COLUMNS));
    items.iter().zip(&cells).try_for_each(|(item, cell)| draw(cell, item))
}

/// Width and height of `count` panels.
fn panels_size(count: usize) -> (u32, u32) {
    (PANEL.0 * COLUMNS as u32, PANEL.1 * count.div_ceil(COLUMNS).max(1) as u32)
}

/// A ROC curve of each class that has one.
struct RocPanels<'a>(Vec<(String, BandedCurve, &'a Metric)>);

impl Picture for RocPanels<'_> {
    fn size(&self) -> (u32, u32) {
        panels_size(self.0.len())
    }

    fn name(&self) -> &'static str {
        "roc-classes"
    }

    fn title(&self) -> String {
        "ROC curves, each class against the rest".into()
    }

    fn caption(&self) -> String {
        "Of the records of a class, how many are found (vertical) when so many of the others are called that class by \
         mistake (horizontal). The closer to the upper left corner, the better; the dashed diagonal is chance. \
         Shaded: 95 % band of the vertically averaged bootstrap curves, point by point."
            .into()
    }

    fn data(&self) -> Data {
        let rows = self.0.iter().flat_map(|(label, curve, _)| {
            curve_rows(curve).map(move |[x, y, low, high]| [label.clone(), x, y, low, high])
        });
        Data::of(["class", "false_positive_rate", "true_positive_rate", "low", "high"], rows)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        panels(area, &self.0, |cell, (label, curve, area)| Roc { curve, area }.chart(cell, &shortened(label, 40), pen))
    }
}

/// A reliability diagram of each class.
struct ReliabilityPanels(Vec<(String, Reliability)>);

impl Picture for ReliabilityPanels {
    fn size(&self) -> (u32, u32) {
        panels_size(self.0.len())
    }

    fn name(&self) -> &'static str {
        "reliability-classes"
    }

    fn title(&self) -> String {
        "Reliability diagrams, each class against the rest".into()
    }

    fn caption(&self) -> String {
        "Records in 10 bins of the probability of a class: a dot says how many of a bin's records really were of that \
         class, its bar is Wilson's 95 % interval; a line joins neighbours of 10 records or more. On the dashed \
         diagonal probabilities mean what they say; below it they promise too much."
            .into()
    }

    fn data(&self) -> Data {
        let mut data = Data::new(&[&["class"], &RELIABILITY[..]].concat());
        for (label, reliability) in &self.0 {
            reliability.rows().for_each(|row| data.row(std::iter::once(label.clone()).chain(row)));
        }
        data
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B> {
        panels(area, &self.0, |cell, (label, reliability)| {
            reliability.diagram(cell, &shortened(label, 40), "Share of this class", pen)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{
        Options,
        multiclass::{Row, evaluate},
    };

    #[test]
    fn every_figure_of_the_classes_is_drawn_and_names_them() {
        let out = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..5).map(|k| format!("a class with a long name, {k}")).collect();
        let probabilities: Vec<[f64; 5]> = (0..200usize)
            .map(|i| std::array::from_fn(|k| if k == i * 7 % 5 { 0.4 + (i % 10) as f64 / 50.0 } else { 0.1 }))
            .collect();
        // Class 4 has no record: no ROC curve.
        let rows = (0..200).map(|i| Row {
            probabilities: &probabilities[i],
            label: (i * 3 % 4) as u8,
            verbalized: Some(1),
            group: None,
        });
        let sample = Sample::new(5, rows).unwrap();
        let evaluation = evaluate(&sample, &names, false, &Options::default());
        let classes = Classes { sample: &sample, evaluation: &evaluation, calibrated: Some(("temperature", &sample)) };
        let inputs = super::super::Inputs {
            scored: None,
            positive: None,
            calibrated: None,
            decisions: None,
            epochs: &[],
            bootstrap: 50,
            seed: 1,
        };
        let dir = out.path().join("figures");
        let figures = super::super::draw_classes(&dir, &classes, &inputs).unwrap();
        let drawn: Vec<&str> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(drawn, ["confusion-classes", "roc-classes", "reliability-classes"]);
        assert_eq!(figures[1].svg.matches("AUROC").count(), 4);
        assert!(figures[0].svg.contains("a class with a…") && figures[2].svg.contains("a class with a long name, 3"));
        for name in drawn {
            assert!(std::fs::read(dir.join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"), "{name}");
        }
    }
}
