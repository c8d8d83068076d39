//! Predictions as the metrics want them; what cannot be scored is listed with file, record and field (exit 3).

use std::collections::HashMap;

use crate::{
    data::{ErrorKind, Prediction, Predictions, Record},
    error::{Error, Result},
    labels::Labels,
    metrics::{
        AnySample,
        calibration::{CONTRADICTION, log_odds},
        multiclass::Row,
        softmax,
    },
};

/// How many problems a message lists.
const LISTED: usize = 20;

/// Rows of the metrics from predictions over `labels`, with groups from `records` (by id) where the file names none.
pub fn sample(predictions: &Predictions, labels: &Labels, records: Option<&[Record]>) -> Result<AnySample> {
    let groups: HashMap<&str, &str> = records
        .unwrap_or_default()
        .iter()
        .filter_map(|record| Some((record.id.as_str(), record.group.as_deref()?)))
        .collect();
    let mut rows = Vec::with_capacity(predictions.len());
    let mut problems = Vec::new();
    for (i, prediction) in predictions.iter().enumerate() {
        match row(prediction) {
            Ok(row) => {
                let group = row.group.or_else(|| groups.get(prediction.id.as_deref()?).copied());
                rows.push(Row { group, ..row });
            }
            Err((field, what)) => problems.push(format!("{}, field {field}: {what}", predictions.place(i))),
        }
    }
    if !problems.is_empty() {
        return Err(listed(problems));
    }
    warn_of_contradictions(predictions);
    let silent = predictions.iter().all(|p| {
        // `parsable: false` says that a text was read, even where it is not kept.
        p.text.is_none() && p.verbalized_label.is_none() && p.generated_tokens.is_none() && p.parsable.is_none()
    });
    let mut sample = AnySample::new(labels.count(), rows.into_iter()).map_err(Error::data)?;
    if let AnySample::Two(sample) = &mut sample {
        let told = predictions.iter().zip(sample.probabilities());
        sample.set_log_odds(told.map(|(p, &probability)| log_odds(probability, p.logits.as_deref())).collect());
    }
    if silent {
        sample.set_silent();
    }
    Ok(sample)
}

/// Says how many lines contradict themselves, and which is the first: other tools round, so it is no error.
fn warn_of_contradictions(predictions: &Predictions) {
    let mut found = predictions.iter().enumerate().filter_map(|(i, prediction)| Some((i, contradiction(prediction)?)));
    let Some((first, what)) = found.next() else { return };
    let count = 1 + found.count();
    let all = predictions.len();
    tracing::warn!(
        "{count} of {all} predictions contradict themselves; the first, {}: {what}",
        predictions.place(first)
    );
}

/// What a line says twice and differently.
fn contradiction(prediction: &Prediction) -> Option<&'static str> {
    if prediction.parsable == Some(false) && prediction.verbalized_label.is_some() {
        return Some("verbalized_label is set although `parsable` is false, which counts");
    }
    let shares = softmax(prediction.logits.as_deref()?);
    let scores = prediction.scores()?;
    let told = shares.len().checked_sub(scores.len()).and_then(|from| shares.get(from..))?;
    let apart = told.iter().zip(scores).any(|(told, score)| (told - score).abs() > CONTRADICTION);
    apart.then_some("the probability is not the softmax of the logits, and counts")
}

/// A prediction as the metrics want it, or the field that cannot be scored.
fn row(prediction: &Prediction) -> Result<Row<'_>, (&'static str, String)> {
    if let Some(error) = &prediction.error {
        // A foreign file may say anything there, a record's text among it.
        let kind = ErrorKind::named(&error.kind).map_or("by an error of no known kind", ErrorKind::as_str);
        return Err(("error", format!("this record was not predicted ({kind})")));
    }
    let label = prediction.label.ok_or(("label", "is null, but scoring needs the gold label".to_owned()))?;
    let field = if prediction.over_classes.is_some() { "probabilities" } else { "probability" };
    let probabilities = prediction.scores().ok_or((field, "is null".to_owned()))?;
    let parsable = prediction.parsable.unwrap_or(prediction.verbalized_label.is_some());
    if parsable && prediction.verbalized_label.is_none() {
        return Err(("verbalized_label", "is null although `parsable` is true".to_owned()));
    }
    let verbalized = prediction.verbalized_label.filter(|_| parsable).map(u8::from);
    Ok(Row { probabilities, label: label.into(), verbalized, group: prediction.group.as_deref() })
}

fn listed(mut problems: Vec<String>) -> Error {
    let more = problems.len().saturating_sub(LISTED);
    problems.truncate(LISTED);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Error::data(problems.join("\n")).hint("repair these records and predict them again, or take their lines out")
}
