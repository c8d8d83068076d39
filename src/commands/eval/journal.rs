//! What a journal's reviewer asks for of the scored split: operating points, smooth calibration, subgroups.

use super::Context;
use crate::{
    evaluation::{Scored, targets},
    metrics::{
        Evaluation, Metric, Options, Sample,
        evidence::{Evidence, EvidenceMetrics},
        multiclass,
        operating::{Frozen, operating_points},
        quoted::quoted,
        smooth::smooth,
        subgroups::{Column, MOST_VALUES, subgroups},
    },
    report::{Table, in_sample_note, operating_table, smooth_table, subgroup_table},
};

/// Why nothing of these is measured of more than two classes.
const NO_POSITIVE: &str = "eval.positive names no class";

/// Fills them in and gives their tables.
pub fn fill(
    context: &Context,
    (scored, sample): (&Scored, &Sample),
    evaluation: &mut Evaluation,
    options: &Options,
) -> Vec<Table> {
    let without_dev = || targets(context).into_iter().map(|target| target.untuned("no dev predictions")).collect();
    let frozen: Vec<Frozen> = scored.frozen.as_ref().map_or_else(without_dev, |dev| dev.operating_points.clone());
    evaluation.operating_points = operating_points(sample, &frozen, options);
    evaluation.calibration.smooth = Some(Box::new(smooth(sample, options)));
    let tuned = evaluation.tuned.as_ref().map(|tuned| &tuned.f1);
    let reason = tuned.map_or("no dev predictions", |calls| calls.f1.reason.as_deref().unwrap_or("no threshold"));
    let threshold = tuned.and_then(|calls| calls.threshold);
    evaluation.subgroups = of_columns(context, (scored, sample), threshold.ok_or(reason), options);
    let in_sample = in_sample_note(options.in_sample, evaluation.dev_overlap, evaluation.n);
    let in_sample = in_sample.as_deref();
    let mut tables = Vec::new();
    if !evaluation.operating_points.is_empty() {
        tables.push(operating_table(&scored.title, &evaluation.operating_points, in_sample));
    }
    tables.push(smooth_table(&scored.title, &evaluation.calibration));
    if !evaluation.subgroups.is_empty() {
        tables.push(subgroup_table(&scored.title, &evaluation.subgroups, threshold, in_sample));
    }
    tables
}

/// Says of more than two classes, none of which is named, why there is none of it.
pub fn undefined(context: &Context, evaluation: &mut multiclass::Evaluation) {
    let none = || Some(Metric::undefined(NO_POSITIVE, evaluation.n));
    evaluation.operating_points = none().filter(|_| !targets(context).is_empty());
    evaluation.subgroups = none().filter(|_| !context.config.eval.subgroups.is_empty());
    evaluation.calibration.smooth = none();
}

/// What of the explanations stands in the records, where the predictions say it.
pub fn evidence(scored: &Scored, options: &Options) -> Option<EvidenceMetrics> {
    let evidence: Vec<Option<&[Evidence]>> =
        scored.predictions.iter().map(|line| line.evidence.as_ref()?.as_deref()).collect();
    let asked = scored.predictions.iter().any(|line| line.evidence.is_some());
    asked.then(|| quoted(&scored.sample, &evidence, options))
}

/// The columns of `eval.subgroups`.
fn of_columns(
    context: &Context,
    (scored, sample): (&Scored, &Sample),
    threshold: Result<f64, &str>,
    options: &Options,
) -> crate::metrics::subgroups::Subgroups {
    let value = |name: &String| -> Vec<Option<&str>> {
        scored.predictions.iter().map(|prediction| prediction.columns.get(name)?.as_deref()).collect()
    };
    let values: Vec<(&String, Vec<Option<&str>>)> =
        context.config.eval.subgroups.iter().map(|name| (name, value(name))).collect();
    let columns: Vec<Column<'_>> = values.iter().map(|(name, values)| Column { name, values }).collect();
    for column in columns.iter().filter(|column| column.count() > MOST_VALUES) {
        tracing::warn!(
            "eval.subgroups: {} has {} values, over {MOST_VALUES}: it is carried along, not measured",
            column.name,
            column.count()
        );
    }
    subgroups(sample, &columns, threshold, options)
}
