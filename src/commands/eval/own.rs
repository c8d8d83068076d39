//! The model's own numbers on the scored split, of two classes or more, and their tables.
//!
//! Of more than two, the class that `eval.positive` names is measured against the rest besides, with all that two
//! classes have: its thresholds come from dev, its tables and figures follow those of all classes.

use super::{Context, calibration_table, journal, report};
use crate::{
    error::Result,
    evaluation::{Scored, positive},
    metrics::{
        AnyEvaluation, AnySample, Evaluation, Options, Sample, evaluate,
        multiclass::{self, Positive, Temperature},
    },
    report::{Table, confusion_table, metrics_table, multiclass_table},
};

/// What the model's answers came to.
pub struct Own {
    /// Every metric that asks nobody else.
    pub evaluation: AnyEvaluation,
    /// Tables for the files and the report: too wide for a terminal.
    pub wide: Vec<Table>,
    /// Of more than two classes, what their figures are drawn from.
    more: Option<More>,
}

/// Other views of a sample of more than two classes.
struct More {
    /// Under dev's temperature, where one was fitted.
    calibrated: Option<multiclass::Sample>,
    /// The class that `eval.positive` names, against the rest.
    against_rest: Option<Sample>,
}

impl Own {
    /// Measures the scored split.
    pub fn measure(context: &Context, scored: &Scored, options: &Options) -> Result<Self> {
        match &scored.sample {
            AnySample::Two(sample) => Ok(Self::two(context, (scored, sample), options)),
            AnySample::More(sample) => Self::more(context, (scored, sample), options),
        }
    }

    fn two(context: &Context, (scored, sample): (&Scored, &Sample), options: &Options) -> Self {
        let (mut evaluation, journal) = binary(context, (scored, sample), options);
        let calibrated = scored.calibration.as_ref();
        let calibrated = calibrated.map(|fitted| calibration_table::score(fitted, sample, options, &mut evaluation));
        let wide = calibrated.into_iter().chain(journal).collect();
        Self { evaluation: AnyEvaluation::Two(Box::new(evaluation)), wide, more: None }
    }

    fn more(context: &Context, (scored, sample): (&Scored, &multiclass::Sample), options: &Options) -> Result<Self> {
        let task = &context.config.task;
        let mut evaluation = multiclass::evaluate(sample, &task.labels, task.ordinal, options);
        evaluation.dev_overlap = scored.dev_overlap;
        let calibrated = calibrated(scored, sample, options, &mut evaluation);
        let against_rest = positive(context)?.map(|class| sample.one_vs_rest(class.into()));
        let mut wide = Vec::new();
        if let Some((class, label)) = against_rest.as_ref().zip(context.config.eval.positive.as_ref()) {
            let (evaluation_of, journal) = binary(context, (scored, class), options);
            evaluation.positive = Some(Box::new(Positive { label: label.clone(), evaluation: evaluation_of }));
            wide = journal;
        } else {
            journal::undefined(context, &mut evaluation);
        }
        let evaluation = AnyEvaluation::More(Box::new(evaluation));
        Ok(Self { evaluation, wide, more: Some(More { calibrated, against_rest }) })
    }

    /// The tables of all that was measured, the judge's answers among it: first those that are printed first.
    pub fn tables(&self, title: &str, in_sample: bool) -> Vec<Table> {
        match &self.evaluation {
            AnyEvaluation::Two(evaluation) => vec![metrics_table(title, evaluation, in_sample)],
            AnyEvaluation::More(evaluation) => {
                let mut tables =
                    vec![multiclass_table(title, evaluation, in_sample), confusion_table(title, evaluation)];
                tables.extend(evaluation.positive.as_ref().map(|positive| {
                    let title = format!("{title}: {} against the rest", positive.label);
                    let table = metrics_table(&title, &positive.evaluation, in_sample);
                    Table { name: "metrics_positive".into(), ..table }
                }));
                tables
            }
        }
    }

    /// The sample that has a positive class: that of two classes, or of the class that `eval.positive` names.
    pub fn positive<'a>(&'a self, sample: &'a AnySample) -> Option<&'a Sample> {
        match sample {
            AnySample::Two(sample) => Some(sample),
            AnySample::More(_) => self.more.as_ref()?.against_rest.as_ref(),
        }
    }

    /// What figures of more than two classes are drawn from.
    pub fn classes<'a>(&'a self, sample: &'a AnySample) -> Option<report::Classes<'a>> {
        let AnySample::More(sample) = sample else { return None };
        let More { calibrated, against_rest } = self.more.as_ref()?;
        Some(report::Classes { sample, calibrated: calibrated.as_ref(), against_rest: against_rest.as_ref() })
    }
}

/// One class against the other, or against the rest, with what journals ask for.
fn binary(context: &Context, (scored, sample): (&Scored, &Sample), options: &Options) -> (Evaluation, Vec<Table>) {
    let mut evaluation = evaluate(sample, scored.frozen.as_ref().map(|frozen| &frozen.thresholds), options);
    evaluation.dev_overlap = scored.dev_overlap;
    let tables = journal::fill(context, (scored, sample), &mut evaluation, options);
    (evaluation, tables)
}

/// Fills `calibration.*_after` and gives the calibrated sample, where a temperature was fitted on dev.
fn calibrated(
    scored: &Scored,
    sample: &multiclass::Sample,
    options: &Options,
    evaluation: &mut multiclass::Evaluation,
) -> Option<multiclass::Sample> {
    let fitted = scored.calibration.as_ref()?;
    let Some(temperature) = fitted.temperature() else {
        let reason = format!("no calibrator fits dev: {}", fitted.chosen().err().unwrap_or_default());
        let after = multiclass::Calibration::undefined(&reason, evaluation.n);
        evaluation.calibration.after = Some(Box::new(after.into()));
        return None;
    };
    let calibrated = Temperature { temperature }.apply_all(sample);
    let after = multiclass::evaluate_calibration(&calibrated, options);
    evaluation.calibration.after = Some(Box::new(after.into()));
    Some(calibrated)
}
