//! Paths into `metrics.json`: which there can be, and what stands at one.
//!
//! Entries that a command names itself (a class, an operating point, a subgroup) stand as a word in capitals in what is
//! known before any work, and go by their names in a gate. A name may hold dots, a metric has none.

use serde_json::Value;

use crate::{
    error::{Error, Result},
    metrics::{
        AnyEvaluation, AnySample, Evaluation, Options, Sample, evaluate,
        multiclass::{self, Positive},
        operating::{Aim, Target, operating_points},
        perplexity::perplexity,
        quoted::quoted,
        smooth::Smooth,
        subgroups::Subgroup,
        threshold::Thresholds,
    },
};

/// The array of `metrics.json` with an entry a class.
pub(super) const PER_CLASS: &str = "per_class";
/// The array with an entry an operating point.
pub(super) const POINTS: &str = "operating_points";
/// The object with an entry a column.
pub(super) const SUBGROUPS: &str = "subgroups";

/// What stands for the names of entries in [`known`].
const NAMED: [(&str, &str); 3] = [(PER_CLASS, "CLASS"), (POINTS, "POINT"), (SUBGROUPS, "COLUMN.VALUE")];

/// Every path of `metrics.json`, of two classes and of more, from evaluations of nothing.
pub(super) fn known() -> Result<Vec<String>> {
    let mut empty = evaluate(&Sample::new(), Some(&Thresholds::default()), &Options::default());
    empty.calibration.after = Some(Box::new(empty.calibration.clone().into()));
    empty.calibration.smooth = Some(Box::new(Smooth::undefined("nothing", 0)));
    let point = Target { target: Aim::Sensitivity, at: 1.0 }.untuned("nothing");
    empty.operating_points = operating_points(&Sample::new(), &[point], &Options::default());
    let value = [("VALUE".to_owned(), Subgroup::undefined("nothing", 0, 0))].into();
    empty.subgroups.insert("COLUMN".to_owned(), value);
    empty.perplexity = Some(Box::new(perplexity(&[], &Options::default())));
    let nothing = AnySample::Two(Sample::new());
    empty.evidence = Some(Box::new(quoted(&nothing, &[], &Options::default())));
    let labels = ["a", "b", "c"].map(String::from);
    let none = multiclass::Sample::new(labels.len(), std::iter::empty()).map_err(Error::run)?;
    let mut more = multiclass::evaluate(&none, &labels, true, &Options::default());
    more.calibration.after = Some(Box::new(more.calibration.clone().into()));
    more.perplexity = empty.perplexity.take();
    more.evidence = empty.evidence.take();
    let two = Evaluation { perplexity: more.perplexity.clone(), evidence: more.evidence.clone(), ..empty.clone() };
    more.positive = Some(Box::new(Positive { label: labels[0].clone(), evaluation: empty }));
    let mut known = Vec::new();
    leaves("", &to_value(&AnyEvaluation::Two(Box::new(two)))?, &mut known);
    leaves("", &to_value(&AnyEvaluation::More(Box::new(more)))?, &mut known);
    Ok(known)
}

pub(super) fn to_value(evaluation: &AnyEvaluation) -> Result<Value> {
    serde_json::to_value(evaluation).map_err(|e| Error::run(format!("cannot write JSON: {e}")))
}

/// Paths of all leaves.
fn leaves(prefix: &str, value: &Value, out: &mut Vec<String>) {
    for (key, child) in value.as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let word = NAMED.iter().find(|(list, _)| list == key).map(|(_, word)| word);
        match (child, word) {
            _ if child.get("ci95").is_some() => out.push(path),
            (Value::Array(entries), Some(word)) => {
                entries.iter().take(1).for_each(|entry| leaves(&format!("{path}.{word}"), entry, out))
            }
            _ => leaves(&path, child, out),
        }
    }
}

/// Every leaf by its path, entries of lists by their names.
pub(in crate::commands::eval) fn leaves_of(value: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(prefix: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        let at = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        match value {
            leaf if leaf.get("ci95").is_some() => out.push((prefix.to_owned(), leaf)),
            Value::Object(object) => object.iter().for_each(|(key, child)| walk(&at(key), child, out)),
            Value::Array(entries) => entries.iter().for_each(|entry| {
                let name = ["label", "name"].iter().find_map(|key| entry[key].as_str());
                name.into_iter().for_each(|name| walk(&at(name), entry, out));
            }),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}

/// Whether a path is the one that is known, some name in place of its word.
pub(super) fn matches(known: &str, path: &str) -> bool {
    let word = NAMED.iter().find_map(|(list, word)| known.split_once(&format!("{list}.{word}.")).zip(Some(list)));
    match word {
        None => known == path,
        Some(((before, metric), list)) => named(path, &format!("{before}{list}"), metric).is_some(),
    }
}

/// The name in `LIST.NAME.METRIC`.
fn named<'a>(path: &'a str, list: &str, metric: &str) -> Option<&'a str> {
    let name = path.strip_prefix(list)?.strip_prefix('.')?.strip_suffix(metric)?.strip_suffix('.')?;
    (!name.is_empty()).then_some(name)
}

/// The name of an entry of this list in a path, and of the class of `eval.positive`'s.
pub(super) fn entry<'a>(path: &'a str, list: &str) -> Option<&'a str> {
    let inside = path.strip_prefix("positive.").unwrap_or(path);
    let (name, _) = inside.strip_prefix(list)?.strip_prefix('.')?.rsplit_once('.')?;
    Some(name)
}

/// What stands at a path. An entry of a list goes by its name, else by its number.
pub(super) fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    let behind = |key: &str| {
        let rest = path.strip_prefix(key)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    };
    match value {
        Value::Object(object) => object.iter().find_map(|(key, child)| find(child, behind(key)?)),
        Value::Array(entries) => {
            let name = |entry: &'a Value| ["label", "name"].iter().find_map(|key| entry[key].as_str());
            let by_name = entries.iter().find_map(|entry| find(entry, behind(name(entry)?)?));
            by_name.or_else(|| entries.iter().enumerate().find_map(|(k, entry)| find(entry, behind(&k.to_string())?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::direction;

    #[test]
    fn every_metric_of_metrics_json_has_a_direction() {
        let known = known().unwrap();
        for path in ["per_class.CLASS.auroc_align", "operating_points.POINT.ppv", "calibration.smooth.ici"] {
            assert!(known.contains(&path.to_owned()), "{path}");
        }
        assert!(known.contains(&"positive.subgroups.COLUMN.VALUE.difference.slope".to_owned()));
        for path in known {
            assert!(direction::of(&path).is_some(), "{path}");
        }
    }

    #[test]
    fn entries_go_by_names_that_may_hold_dots() {
        let metrics = json!({
            "operating_points": [{ "name": "sensitivity_0.8", "ppv": 1 }, { "name": "alert_rate_0.05", "ppv": 2 }],
            "per_class": [{ "label": "v1.5", "f1": 3 }, { "label": "0", "f1": 4 }],
            "subgroups": { "age.band": { "60+": { "auroc": 5 } }, "age": { "band.60+": { "n": 6 } } },
        });
        let at = |path: &str| find(&metrics, path).and_then(Value::as_u64);
        assert_eq!([at("operating_points.sensitivity_0.8.ppv"), at("operating_points.1.ppv")], [Some(1), Some(2)]);
        // A name that is a number is its own.
        assert_eq!([at("per_class.v1.5.f1"), at("per_class.0.f1"), at("per_class.2.f1")], [Some(3), Some(4), None]);
        assert_eq!([at("subgroups.age.band.60+.auroc"), at("subgroups.age.band.60+.n")], [Some(5), Some(6)]);
        assert!(matches("operating_points.POINT.ppv", "operating_points.sensitivity_0.8.ppv"));
        assert!(matches("subgroups.COLUMN.VALUE.difference.auroc", "subgroups.sex.F.difference.auroc"));
        assert!(!matches("operating_points.POINT.ppv", "operating_points.ppv") && matches("auroc", "auroc"));
        assert_eq!(entry("positive.operating_points.specificity_0.9.npv", POINTS), Some("specificity_0.9"));
    }
}
