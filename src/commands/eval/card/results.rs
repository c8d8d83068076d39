//! What was measured, how, and where it ends.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Sources, display_value, share};
use crate::{
    metrics::{AnyEvaluation, Metric, evaluation::Judge},
    report::{
        Table,
        card::{Facts, code, columns, plain},
        confusion_table, in_sample_note, metrics_table, multiclass_table, operating_table, smooth_table,
        subgroup_table,
        table::{cell, number},
    },
};

/// Reasons for a missing number that are told.
const REASONS: usize = 8;

/// States what is known of the results.
pub fn state(sources: &Sources<'_>, facts: &mut Facts) {
    facts.list("output", output(sources));
    facts.list("thresholds", thresholds(sources));
    facts.list("calibration", calibration(sources));
    facts.list("measures", measures(sources));
    facts.set("headline", headline(sources.evaluation));
    facts.set("results", results(sources));
    facts.list("text", text(sources));
    facts.list("calibrated", calibrated(sources.evaluation));
    facts.list("judge", judge(sources));
    facts.list("comparators", comparators(sources));
    facts.list("fairness", fairness(sources));
    facts.list("limits", limits(sources));
    // Of more than two classes, those of the one that is named.
    let one = match sources.evaluation {
        AnyEvaluation::Two(two) => Some(&**two),
        AnyEvaluation::More(more) => more.positive.as_ref().map(|positive| &positive.evaluation),
    };
    let Some(one) = one else { return };
    let title = &sources.scored.title;
    let in_sample = in_sample_note(sources.options.in_sample, one.dev_overlap, one.n);
    let in_sample = in_sample.as_deref();
    if !one.operating_points.is_empty() {
        let table = operating_table(title, &one.operating_points, in_sample);
        // Target, threshold, sensitivity, specificity, PPV, number needed to evaluate.
        facts.set("operating", columns(&table, &[0, 1, 2, 3, 4, 7]));
    }
    facts.set("smooth", columns(&smooth_table(title, &one.calibration), &[0, 1, 2, 3]));
    if !one.subgroups.is_empty() {
        let threshold = one.tuned.as_ref().and_then(|tuned| tuned.f1.threshold);
        let table = subgroup_table(title, &one.subgroups, threshold, in_sample);
        // Column, value, records, events, AUROC, sensitivity.
        facts.set("subgroups", columns(&table, &[0, 1, 2, 3, 4, 7]));
    }
}

fn output(sources: &Sources<'_>) -> Vec<String> {
    let more = sources.labels().len() > 2;
    let probability = if more {
        "probabilities: softmax of the head's logits, one a class; the class of the largest is called"
    } else {
        "probability: softmax of the head's two logits, class 1's; it is never changed afterwards"
    };
    let Some(job) = sources.job() else { return Vec::new() };
    vec![
        probability.to_owned(),
        format!(
            "text: an explanation and a closing line {}, read back as the class that the text names",
            code(&job.template.verdict)
        ),
    ]
}

fn thresholds(sources: &Sources<'_>) -> Vec<String> {
    let frozen = &sources.thresholds;
    let Some(dev) = display_value(&frozen["dev"]["path"]) else { return Vec::new() };
    let hash = display_value(&frozen["dev"]["blake3"]).unwrap_or_default();
    let n = display_value(&frozen["n"]).unwrap_or_default();
    let when = if sources.options.in_sample {
        "these are the scored records"
    } else {
        "frozen before the scored labels were read"
    };
    let mut lines = vec![format!("tuned on dev: {n} predictions, {}, BLAKE3 {}; {when}", code(&dev), code(&hash))];
    let rules = [
        ("f1", "the highest F1"),
        ("kappa", "the highest κ"),
        ("youden", "the highest Youden's J"),
        ("cost", "the lowest cost"),
    ];
    for (key, rule) in rules {
        let value = display_value(&frozen["thresholds"][key]["threshold"]).unwrap_or_else(|| "dev allows none".into());
        lines.push(format!("{rule} on dev: {value}"));
    }
    lines.push("a record is called positive where its probability is at least the threshold".into());
    lines
}

fn calibration(sources: &Sources<'_>) -> Vec<String> {
    let fitted = &sources.calibration;
    let Some(method) = display_value(&fitted["method"]) else { return Vec::new() };
    let chosen = &fitted["methods"][method.as_str()];
    let calibrator = chosen["calibrator"].as_object();
    let numbers = calibrator.into_iter().flatten().filter(|(_, value)| value.is_number());
    let numbers: Vec<String> =
        numbers.filter_map(|(key, value)| Some(format!("{key} {}", display_value(value)?))).collect();
    let how = match (calibrator, display_value(&chosen["reason"])) {
        (Some(_), _) => {
            format!(
                "fitted on {} dev predictions {}",
                display_value(&fitted["n"]).unwrap_or_default(),
                numbers.join(", ")
            )
        }
        (None, reason) => {
            format!("could not be fitted on dev: {}", reason.map_or_else(String::new, |reason| plain(&reason)))
        }
    };
    vec![format!(
        "calibrator: {method}, {}; it is applied where calibrated values are asked for and changes no probability",
        how.trim_end()
    )]
}

/// What was measured, and what its intervals are.
fn measures(sources: &Sources<'_>) -> Vec<String> {
    let options = sources.options;
    let groups: BTreeSet<&str> = sources.scored.predictions.iter().filter_map(|line| line.group.as_deref()).collect();
    let clustered = match groups.len() {
        0 => "; no record names a group, so that each counts by itself".to_owned(),
        n => format!(", clustered by the {n} groups of the records"),
    };
    let table = main_table(sources);
    let mut names: Vec<&str> = table.rows.iter().map(|row| row[0].as_str()).collect();
    names.dedup();
    vec![
        format!("measures: {}", plain(&names.join("; "))),
        format!(
            "95 % intervals: DeLong's for an AUROC of two classes, Clopper–Pearson's for a proportion of 0 or 1, \
             else percentiles of {} bootstrap resamples (seed {}), stratified by class{clustered}",
            options.bootstrap, options.seed
        ),
        "a number that is not defined has none, with the reason".into(),
    ]
}

fn main_table(sources: &Sources<'_>) -> Table {
    let title = &sources.scored.title;
    match sources.evaluation {
        AnyEvaluation::Two(two) => metrics_table(title, two, sources.options.in_sample),
        AnyEvaluation::More(more) => multiclass_table(title, more, sources.options.in_sample),
    }
}

/// In one sentence.
fn headline(evaluation: &AnyEvaluation) -> String {
    let named = [
        ("AUROC", Some(evaluation.auroc())),
        ("F1", Some(evaluation.f1())),
        ("Brier", Some(evaluation.brier())),
        ("AUROC-Align", Some(evaluation.auroc_align())),
        ("κ of head and text", evaluation.kappa()),
    ];
    let told: Vec<String> = named
        .iter()
        .filter_map(|(name, metric)| Some((name, (*metric)?)))
        .filter(|(_, metric)| metric.value.is_some())
        .map(|(name, metric)| format!("{name} {}", cell(metric)))
        .collect();
    match &told[..] {
        [] => String::new(),
        told => format!("Over {} records: {}; 95 % intervals in parentheses.", evaluation.n(), told.join(", ")),
    }
}

fn results(sources: &Sources<'_>) -> String {
    let main = columns(&main_table(sources), &[0, 1, 2, 3, 4]);
    match sources.evaluation {
        AnyEvaluation::Two(_) => main,
        AnyEvaluation::More(more) => {
            let confusion = confusion_table(&sources.scored.title, more);
            format!("{main}\n{}", columns(&confusion, &(0..confusion.columns.len()).collect::<Vec<_>>()))
        }
    }
}

fn named(lines: &mut Vec<String>, name: &str, metric: &Metric) {
    if metric.value.is_some() {
        lines.push(format!("{name}: {} over {} records", cell(metric), metric.n));
    }
}

/// How good the texts are.
fn text(sources: &Sources<'_>) -> Vec<String> {
    let evaluation = sources.evaluation;
    let mut lines = Vec::new();
    named(&mut lines, "texts that name a class", evaluation.parsable());
    named(&mut lines, "AUROC of the probability against the class that the text names", evaluation.auroc_align());
    if let Some(kappa) = evaluation.kappa() {
        named(&mut lines, "κ of head and text", kappa);
    }
    for (key, metric) in evaluation.evidence().iter().flat_map(|evidence| evidence.named()) {
        named(&mut lines, crate::metrics::direction::name(key).unwrap_or(key), metric);
    }
    judged(evaluation).named().iter().for_each(|(name, metric)| named(&mut lines, name, metric));
    lines
}

/// What a calibrator makes of it.
fn calibrated(evaluation: &AnyEvaluation) -> Vec<String> {
    let calibration = match evaluation {
        AnyEvaluation::Two(two) => serde_json::to_value(&two.calibration),
        AnyEvaluation::More(more) => serde_json::to_value(&more.calibration),
    };
    let calibration = calibration.unwrap_or_default();
    let after = calibration.as_object().into_iter().flatten().filter_map(|(key, after)| {
        let name = key.strip_suffix("_after")?;
        let [before, after] = [&calibration[name], after].map(|metric| metric["value"].as_f64());
        let label = crate::metrics::direction::name(name).unwrap_or(name);
        Some(format!("{label} after calibration on dev: {}, before: {}", number(Some(after?)), number(before)))
    });
    after.collect()
}

/// Metrics of the judge.
fn judged(evaluation: &AnyEvaluation) -> &Judge {
    match evaluation {
        AnyEvaluation::Two(two) => &two.judge,
        AnyEvaluation::More(more) => &more.judge,
    }
}

/// Who judged; where an earlier command asked, its record says so.
fn judge(sources: &Sources<'_>) -> Vec<String> {
    if judged(sources.evaluation).readability.n == 0 {
        return Vec::new();
    }
    let earlier = sources.run["earlier"].as_array().into_iter().flatten();
    let records = std::iter::once(&sources.run).chain(earlier.filter(|record| record["command"] == "eval"));
    let inputs = |record: &'_ Value| record["inputs"].as_array().cloned().unwrap_or_default();
    let named = records.flat_map(inputs).find(|input| input["role"] == "eval.judge").unwrap_or_default();
    let who = display_value(&named["path"]).map_or_else(|| "its name is not recorded".into(), |path| code(&path));
    let hash = display_value(&named["blake3"]).map_or_else(String::new, |hash| format!(", {}", code(&hash)));
    vec![format!("a language model judged the explanations, without seeing the label: {who}{hash}")]
}

/// What lies beside the metrics.
fn comparators(sources: &Sources<'_>) -> Vec<String> {
    let out = &sources.folder.out;
    let there = |name: &str| super::read(&out.join(name));
    let mut lines = Vec::new();
    let mut with = |name: &str, what: &str| {
        let other: Option<Value> = there(name);
        if let Some(auroc) = other.map(|other| other["auroc"]["value"].as_f64()) {
            lines.push(format!("{what}, on the same records: AUROC {}", number(auroc)));
        }
    };
    with("base.metrics.json", "the base model before tuning");
    with("against.metrics.json", "other predictions");
    let baselines = there("baselines.json").unwrap_or_default();
    let methods = baselines["methods"].as_array().into_iter().flatten();
    let names: Vec<String> =
        methods.filter_map(|method| display_value(&method["name"])).map(|name| code(&name)).collect();
    if !names.is_empty() {
        lines.push(format!("baselines (`baselines.json`): {}", names.join(", ")));
    }
    lines
}

fn fairness(sources: &Sources<'_>) -> Vec<String> {
    let columns: Vec<String> = sources.context.config.eval.subgroups.iter().map(|name| code(name)).collect();
    if columns.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "performance was measured in each group of {}, at one threshold for all, with its difference from the rest; \
         groups of fewer than 10 events or non-events are counted, not measured",
        columns.join(", ")
    )]
}

/// What the run's files say against its own numbers.
fn limits(sources: &Sources<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let scored = sources.scored;
    if sources.options.in_sample {
        lines.push("tuned and calibrated values are in-sample: they were fitted on the scored records".into());
    }
    if scored.dev_overlap > 0 {
        lines.push(format!("{} of the scored records are dev's too", share(scored.dev_overlap, scored.sample.len())));
    }
    if scored.frozen.is_none() {
        lines.push("there are no dev predictions: no threshold and no calibrator was fitted".into());
    }
    let mut by_class: Vec<usize> = vec![0; sources.labels().len()];
    for class in scored.predictions.iter().filter_map(|line| line.label) {
        if let Some(count) = by_class.get_mut(class.index()) {
            *count += 1;
        }
    }
    lines.extend(by_class.iter().min().map(|fewest| format!("the rarest class has {fewest} scored records")));
    let cut = scored.predictions.iter().filter(|line| line.truncated_tokens.is_some_and(|tokens| tokens > 0)).count();
    if cut > 0 {
        lines.push(format!("{} of the scored documents were cut to the window", share(cut, scored.predictions.len())));
    }
    let undone = |done: bool, what: &str| (!done).then(|| what.to_owned());
    lines.extend(undone(!judge(sources).is_empty(), "no judge read the explanations"));
    lines.extend(undone(!sources.context.config.eval.subgroups.is_empty(), "no groups of people were measured"));
    lines.extend(undone(!comparators(sources).is_empty(), "nothing else was scored on the same records"));
    let metrics = serde_json::to_value(sources.evaluation).unwrap_or_default();
    let mut reasons = BTreeSet::new();
    undefined(&metrics, &mut reasons);
    lines.extend(reasons.iter().take(REASONS).map(|reason| format!("not defined here: {}", plain(reason))));
    lines
}

/// Why metrics have no value, once each.
fn undefined(value: &Value, reasons: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else {
        return value.as_array().into_iter().flatten().for_each(|item| undefined(item, reasons));
    };
    match (object.get("value"), object.get("reason").and_then(Value::as_str)) {
        (Some(Value::Null), Some(reason)) => _ = reasons.insert(reason.to_owned()),
        _ => object.values().for_each(|item| undefined(item, reasons)),
    }
}
