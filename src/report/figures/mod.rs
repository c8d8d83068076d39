//! Figures of an evaluation, each as SVG and PNG, its numbers as CSV: `RUN/eval/figures/`.
//!
//! | file | figure |
//! |---|---|
//! | `roc`, `precision-recall` | curves with 95 % bootstrap bands, clustered by group |
//! | `reliability` | observed over predicted, with the histogram of the probabilities |
//! | `calibration-curve` | the same as a smooth curve with its band, over the probabilities by outcome |
//! | `subgroups` | the subgroups' AUROC, O:E and sensitivity with intervals |
//! | `decision-curve`, `risk-coverage` | net benefit; errors among the most confident records; with bands |
//! | `confusion`, `histogram` | calls at 0.5 and at the tuned threshold; probabilities by class |
//! | `curve` | the paper's Fig. 1 a–c over this run's epochs |
//! | `confusion-classes`, `roc-classes`, `reliability-classes` | K > 2: the K × K matrix, each against the rest |
//!
//! Numbers, and the values of `eval.subgroups`: no figure holds text of a record.

mod calibration;
mod calls;
mod curves;
mod decision;
mod epochs;
mod forest;
mod multiclass;
mod names;
mod smooth;
mod style;

use std::path::Path;

pub use epochs::EpochMetrics;
pub use multiclass::Classes;
use names::Sides;
pub use style::Figure;

use crate::{
    error::Result,
    metrics::{Evaluation, Sample, decision_curves::DecisionCurves},
    storage::{self, AtomicDir},
};

/// Names of all figures.
const NAMES: [&str; 13] = [
    "calibration-curve",
    "confusion",
    "confusion-classes",
    "curve",
    "decision-curve",
    "histogram",
    "precision-recall",
    "reliability",
    "reliability-classes",
    "risk-coverage",
    "roc",
    "roc-classes",
    "subgroups",
];
/// What the names of their files end in.
const EXTENSIONS: [&str; 3] = ["svg", "png", "csv"];

/// Resamples of the bands: their edges need fewer than an interval that is printed with four digits.
const BAND_RESAMPLES: usize = 500;

/// What the figures show.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The scored records and what was measured on them; none when only the curve is wanted.
    pub scored: Option<(&'a Sample, &'a Evaluation)>,
    /// Of more than two classes, the one that they are measured for, against the rest; none of two.
    pub positive: Option<&'a str>,
    /// The calibrated probabilities with the method's name.
    pub calibrated: Option<(&'a str, &'a Sample)>,
    /// Net benefit and risk–coverage of the scored records; none where there is no record.
    pub decisions: Option<&'a DecisionCurves>,
    /// Dev metrics of each epoch; empty without `--curve`.
    pub epochs: &'a [EpochMetrics],
    /// Resamples that the intervals of the tables have.
    pub bootstrap: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

/// Draws every figure there is something to show for into the directory `out`: earlier ones go, what others put there
/// stays.
pub fn draw(out: &Path, inputs: &Inputs<'_>) -> Result<Vec<Figure>> {
    let dir = AtomicDir::create(out)?;
    let figures = draw_into(&dir, inputs)?;
    finish(out, dir, figures)
}

/// [`draw`] for K > 2 classes: their own figures before those of `inputs`, whose scored records are the class of
/// `eval.positive` against the rest; none without that key.
pub fn draw_classes(out: &Path, classes: &Classes<'_>, inputs: &Inputs<'_>) -> Result<Vec<Figure>> {
    let dir = AtomicDir::create(out)?;
    let mut figures = classes.draw(&dir, inputs.bootstrap.min(BAND_RESAMPLES), inputs.seed)?;
    figures.extend(draw_into(&dir, inputs)?);
    finish(out, dir, figures)
}

fn finish(out: &Path, dir: AtomicDir, figures: Vec<Figure>) -> Result<Vec<Figure>> {
    storage::keep_others(out, dir.path(), is_ours)?;
    dir.commit(false)?;
    Ok(figures)
}

/// Whether a file of the figures' directory is one of ours, by its name.
pub fn is_ours(file: &str) -> bool {
    let parts = file.rsplit_once('.');
    parts.is_some_and(|(name, extension)| NAMES.contains(&name) && EXTENSIONS.contains(&extension))
}

fn draw_into(dir: &AtomicDir, inputs: &Inputs<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if let Some((sample, evaluation)) = inputs.scored {
        figures.extend(draw_scored(dir, inputs, sample, evaluation)?);
    }
    if !inputs.epochs.is_empty() {
        figures.push(style::emit(&epochs::Epochs(inputs.epochs), dir)?);
    }
    Ok(figures)
}

fn draw_scored(dir: &AtomicDir, inputs: &Inputs<'_>, sample: &Sample, evaluation: &Evaluation) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    // One class has neither curve.
    if let Some(curves) = crate::metrics::curves::curves(sample, inputs.bootstrap.min(BAND_RESAMPLES), inputs.seed) {
        let prevalence = sample.positives() as f64 / sample.len() as f64;
        figures.push(style::emit(&curves::Roc { curve: &curves.roc, area: &evaluation.auroc }, dir)?);
        let precision_recall =
            curves::PrecisionRecall { curve: &curves.precision_recall, area: &evaluation.auprc, prevalence };
        figures.push(style::emit(&precision_recall, dir)?);
    }
    let tuned = evaluation.tuned.as_ref().and_then(|tuned| tuned.f1.threshold);
    let sides = Sides(inputs.positive);
    figures.push(style::emit(&calibration::Reliability::new(sample, inputs.calibrated), dir)?);
    let resamples = inputs.bootstrap.min(BAND_RESAMPLES);
    if let Some(curve) = crate::metrics::smooth::curve(sample, resamples, inputs.seed) {
        let distances = evaluation.calibration.smooth.as_deref();
        figures.push(style::emit(&smooth::CalibrationCurve::new(curve, distances, sample, sides), dir)?);
    }
    if !evaluation.subgroups.is_empty() {
        figures.push(style::emit(&forest::Forest(evaluation), dir)?);
    }
    if let Some(decisions) = inputs.decisions {
        figures.push(style::emit(&decision::Decision::new(decisions), dir)?);
        figures.push(style::emit(&curves::RiskCoverage { curve: &decisions.risk, area: &evaluation.aurc }, dir)?);
    }
    figures.push(style::emit(&calls::Matrices::new(sample, tuned, sides), dir)?);
    figures.push(style::emit(&calls::Histograms::new(sample, tuned, sides), dir)?);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metric, Options, decision_curves::decision_curves, evaluate};

    fn sample(one_class: bool) -> Sample {
        let mut sample = Sample::new();
        (0..40)
            .for_each(|i| sample.push(f64::from(i * 7 % 40) / 40.0, !one_class && i % 3 == 0, Some(i % 2 == 0), None));
        sample
    }

    fn nothing() -> Inputs<'static> {
        Inputs { scored: None, positive: None, calibrated: None, decisions: None, epochs: &[], bootstrap: 50, seed: 1 }
    }

    fn names(figures: &[Figure]) -> Vec<&str> {
        figures.iter().map(|figure| figure.name).collect()
    }

    #[test]
    fn every_figure_is_written_twice_and_the_svg_is_text() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("figures");
        let sample = sample(false);
        let epochs = [1, 2, 3].map(epoch);
        let evaluation = evaluate(&sample, None, &Options::default());
        let decisions = decision_curves(&sample, 50, 1);
        let scored = Some((&sample, &evaluation));
        let inputs = Inputs { scored, decisions: decisions.as_ref(), epochs: &epochs, ..nothing() };
        let figures = draw(&dir, &inputs).unwrap();
        assert_eq!(
            names(&figures),
            [
                "roc",
                "precision-recall",
                "reliability",
                "calibration-curve",
                "decision-curve",
                "risk-coverage",
                "confusion",
                "histogram",
                "curve"
            ]
        );
        for figure in &figures {
            assert!(
                figure.svg.starts_with("<svg") && figure.svg.contains("<text") && figure.caption.len() > 50,
                "{}",
                figure.name
            );
            assert_eq!(std::fs::read_to_string(dir.join(format!("{}.svg", figure.name))).unwrap(), figure.svg);
            let png = std::fs::read(dir.join(format!("{}.png", figure.name))).unwrap();
            let csv = std::fs::read_to_string(dir.join(format!("{}.csv", figure.name))).unwrap();
            let widths: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
            assert!(widths.len() > 4 && widths.iter().all(|width| *width == widths[0]), "{}: {csv}", figure.name);
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{}: {} bytes", figure.name, png.len());
        }
    }

    fn epoch(epoch: usize) -> EpochMetrics {
        let metric = |value: f64| Metric::new(Ok(value / epoch as f64), 40).with_ci95(Some([0.1, 0.9]));
        EpochMetrics {
            epoch,
            parsable: metric(1.0),
            auroc: metric(0.7),
            auroc_align: Metric::undefined("none", 0),
            kappa: metric(-0.2),
        }
    }

    #[test]
    fn one_class_and_no_record_draw_what_they_can() {
        let out = tempfile::tempdir().unwrap();
        let always = ["reliability", "confusion", "histogram"];
        let decided = ["reliability", "decision-curve", "risk-coverage", "confusion", "histogram"];
        for (sample, want) in [(sample(true), &decided[..]), (Sample::new(), &always)] {
            let evaluation = evaluate(&sample, None, &Options::default());
            let decisions = decision_curves(&sample, 50, 1);
            let scored = Some((&sample, &evaluation));
            let inputs = Inputs { scored, decisions: decisions.as_ref(), ..nothing() };
            assert_eq!(names(&draw(&out.path().join("figures"), &inputs).unwrap()), want);
        }
    }
}
