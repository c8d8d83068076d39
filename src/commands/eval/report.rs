//! `RUN/eval/figures/` and `RUN/eval/report.html`.

use std::{collections::HashMap, path::Path};

use serde_json::Value;

use super::Context;
use crate::{
    config::Config,
    data::{self, Record},
    error::Result,
    evaluation::{Scored, splits},
    labels::Class,
    metrics::{AnyEvaluation, AnySample, Options, Sample, decision_curves::DecisionCurves, multiclass},
    report::{
        Table,
        figures::{self, EpochMetrics, Figure},
        html::{InSample, Reading, RecordView, Report, Source, class_readings, readings},
    },
    storage::{self, run_record},
};

/// Everything a report is made of.
pub struct ReportParts<'a> {
    /// The scored records and what was measured; none when only the curve was asked for.
    pub scored: Option<(&'a Scored, &'a AnyEvaluation)>,
    /// Tables in their order.
    pub tables: &'a [Table],
    /// Net benefit and risk–coverage of the scored records.
    pub decisions: Option<&'a DecisionCurves>,
    /// Dev metrics of each epoch.
    pub epochs: &'a [EpochMetrics],
    /// What figures of more than two classes are drawn from.
    pub classes: Option<Classes<'a>>,
}

/// The scored records of more than two classes.
pub struct Classes<'a> {
    /// All classes.
    pub sample: &'a multiclass::Sample,
    /// Their probabilities under dev's temperature.
    pub calibrated: Option<&'a multiclass::Sample>,
    /// The class that `eval.positive` names, against the rest.
    pub against_rest: Option<&'a Sample>,
}

/// Draws the figures and writes the report; text of records only with `include_text`.
pub fn write(
    context: &Context,
    out: &Path,
    parts: &ReportParts<'_>,
    options: &Options,
    include_text: bool,
) -> Result<()> {
    let figures = draw(out, parts, options)?;
    let scored = parts.scored.map(|(scored, _)| scored);
    let records = scored.filter(|_| include_text).map(|scored| records(context, scored));
    let summary: Vec<Reading> = match parts.scored {
        Some((_, AnyEvaluation::Two(evaluation))) => readings(evaluation),
        Some((_, AnyEvaluation::More(evaluation))) => class_readings(evaluation),
        None => Vec::new(),
    };
    let labels = &context.config.task.labels;
    let report = Report {
        task: &context.config.task.name,
        labels,
        positive: context.config.eval.positive.as_deref().filter(|_| !labels.are_two()),
        question: scored.and_then(|scored| scored.question.as_deref()),
        title: scored.map_or("Training curve", |scored| &scored.title),
        summary,
        in_sample: scored.filter(|_| options.in_sample).and_then(in_sample),
        dev_overlap: scored.map_or(0, |scored| scored.dev_overlap),
        tables: parts.tables,
        figures: &figures,
        sources: sources(scored),
        run: run_record::read(&context.run_dir).unwrap_or(Value::Null),
        records,
    };
    storage::write_file_atomic(&out.join("report.html"), report.render()?.as_bytes())
}

fn draw(out: &Path, parts: &ReportParts<'_>, options: &Options) -> Result<Vec<Figure>> {
    let mut inputs = figures::Inputs {
        scored: None,
        positive: None,
        calibrated: None,
        decisions: parts.decisions,
        epochs: parts.epochs,
        bootstrap: options.bootstrap,
        seed: options.seed,
    };
    let out = out.join("figures");
    match parts.scored.map(|(scored, evaluation)| (scored, &scored.sample, evaluation)) {
        Some((scored, AnySample::Two(sample), AnyEvaluation::Two(evaluation))) => {
            let chosen = scored.calibration.as_ref().and_then(|fitted| Some((fitted, fitted.chosen().ok()?)));
            let calibrated = chosen.map(|(fitted, calibrator)| (fitted.method.name(), calibrator.apply_all(sample)));
            inputs.scored = Some((sample, evaluation));
            inputs.calibrated = calibrated.as_ref().map(|(name, sample)| (*name, sample));
            figures::draw(&out, &inputs)
        }
        Some((_, _, AnyEvaluation::More(evaluation))) => {
            let Some(classes) = &parts.classes else { return figures::draw(&out, &inputs) };
            let positive = evaluation.positive.as_ref();
            inputs.scored = classes.against_rest.zip(positive.map(|positive| &positive.evaluation));
            inputs.positive = positive.map(|positive| positive.label.as_str());
            let calibrated = classes.calibrated.map(|sample| ("temperature", sample));
            figures::draw_classes(&out, &figures::Classes { sample: classes.sample, evaluation, calibrated }, &inputs)
        }
        _ => figures::draw(&out, &inputs),
    }
}

/// What dev, whose records are scored, gave thresholds and calibrators.
fn in_sample(scored: &Scored) -> Option<InSample> {
    let thresholds = scored.frozen.as_ref().map(|frozen| &frozen.thresholds);
    let thresholds = thresholds.is_some_and(|t| [t.f1, t.kappa, t.youden, t.cost].iter().any(Option::is_some));
    let fits = scored.calibration.iter().flat_map(|fitted| fitted.methods.values());
    InSample::of(thresholds, fits.into_iter().any(|fit| fit.calibrator.is_some()))
}

/// What thresholds and calibrators came from, by hash.
fn sources(scored: Option<&Scored>) -> Vec<Source> {
    let Some(frozen) = scored.and_then(|scored| scored.frozen.as_ref()) else { return Vec::new() };
    let checkpoint = frozen.checkpoint.as_ref().map(|named| ("Checkpoint", named));
    let named = checkpoint.into_iter().chain([("Dev predictions", &frozen.dev)]);
    named.map(|(what, named)| Source { what, path: named.path.clone(), blake3: named.blake3.clone() }).collect()
}

/// What the splits share that they should not; `None` where fewer than two can be read.
pub fn leakage(config: &Config, fields: &[String]) -> Option<Table> {
    let files = [("train", &config.data.train), ("dev", &config.data.dev), ("test", &config.data.test)];
    let read = |path: &std::path::PathBuf| splits::readable(config, path, fields);
    let splits: Vec<(&str, Vec<Record>)> =
        files.into_iter().filter_map(|(name, path)| Some((name, read(path.as_ref()?)?))).collect();
    if splits.len() < 2 {
        return None;
    }
    let report = data::leakage(&splits.iter().map(|(name, records)| (*name, records.as_slice())).collect::<Vec<_>>());
    let mut table =
        Table::new("leakage", "Leakage: what two splits share", &["Splits", "Groups", "Ids", "Identical texts"]);
    for pair in &report.pairs {
        let texts = pair
            .identical_texts
            .iter()
            .map(|(field, count)| format!("{count} in {field}"))
            .collect::<Vec<_>>()
            .join(", ");
        table.row([
            format!("{} and {}", pair.a, pair.b),
            pair.shared_groups.to_string(),
            pair.shared_ids.to_string(),
            texts,
        ]);
    }
    table.note(if report.is_clean() {
        "No two splits share anything."
    } else {
        "Records that splits share make a score look better than it is; intervals are clustered by group."
    });
    Some(table)
}

/// The records with their text: notes by id where the split's file is known, the model's words from the predictions.
fn records(context: &Context, scored: &Scored) -> Vec<RecordView> {
    let config = &context.config;
    let loaded = match (&scored.records, &config.data.test) {
        (None, Some(test)) => splits::readable(config, test, &scored.fields).unwrap_or_default(),
        _ => Vec::new(),
    };
    let records = scored.records.as_deref().unwrap_or(&loaded);
    let by_id: HashMap<&str, &Record> = records.iter().map(|record| (record.id.as_str(), record)).collect();
    let of = |prediction: &data::Prediction| by_id.get(prediction.id.as_deref()?).copied();
    if !scored.predictions.iter().any(|prediction| of(prediction).is_some()) {
        let (why, hint) = if by_id.is_empty() {
            ("a prediction file holds none", "name the records with --set data.test=FILE")
        } else {
            ("no record of data.test has the id of one", "name the file that was predicted from")
        };
        tracing::warn!("the report's records have no note text: {why}, {hint}");
    }
    let calibrator = scored.calibration.as_ref().and_then(|fitted| fitted.chosen().ok());
    let view = |prediction: &data::Prediction| RecordView {
        id: prediction.id.clone().unwrap_or_default(),
        label: prediction.label.map(Class::index),
        probability: prediction.probability.or_else(|| of_called(prediction)),
        called: prediction.over_classes.as_ref().and_then(|over| over.predicted).map(Class::index),
        calibrated: prediction
            .probability
            .zip(calibrator)
            .map(|(probability, calibrator)| calibrator.apply(probability, prediction.logits.as_deref())),
        verbalized: prediction.parsed_label().map(Class::index),
        explanation: prediction.explanation.clone().or_else(|| prediction.text.clone()),
        evidence: prediction.evidence.clone().flatten().unwrap_or_default(),
        note: of(prediction).map(|record| record.fields.clone()).unwrap_or_default(),
    };
    scored.predictions.iter().map(view).collect()
}

/// Of more than two classes, the probability of the one that is called.
fn of_called(prediction: &data::Prediction) -> Option<f64> {
    let over = prediction.over_classes.as_ref()?;
    over.probabilities.as_ref()?.get(over.predicted?.index()).copied()
}
