//! `--gate FILE`: the worst values allowed; exit 1 names what missed.
//!
//! A TOML (or, by extension, JSON) file with the paths of `metrics.json`. A bare number is the worst value allowed: a
//! floor, or a ceiling where lower is better ([`direction`]). `{ min = …, max = … }` states the side, as it must
//! where a value in between is best.
//!
//! ```toml
//! auroc = 0.80
//! default.f1 = 0.40
//! calibration.ece = 0.10                      # lower is better: a ceiling
//! calibration.slope = { min = 0.8, max = 1.2 }
//! per_class.better.recall = 0.60              # of more than two classes, one by its name
//! per_class.0.auroc = 0.75                    # or by its number
//! operating_points.sensitivity_0.8.ppv = 0.20 # a target of eval.sensitivities, specificities, alert_rates
//! subgroups.sex.F.auroc = 0.75                # a column of eval.subgroups, and a value of it
//! ```
//!
//! Of more than two classes the last two begin with `positive.`, and need `eval.positive`.

mod paths;

pub(super) use paths::leaves_of;

use std::path::Path;

use serde_json::Value;

use crate::{
    error::{Error, Result},
    labels::Labels,
    metrics::{
        AnyEvaluation, Evaluation,
        direction::{self, Direction},
        operating::Target,
    },
    report::table::telling,
};
use paths::{PER_CLASS, POINTS, SUBGROUPS, entry, find, matches, to_value};

/// What one metric must reach.
#[derive(Debug, Clone, PartialEq)]
struct Bound {
    path: String,
    min: Option<f64>,
    max: Option<f64>,
    /// A number alone, whose side the metric's direction decides.
    bare: bool,
}

/// A gate, read before any work: what its metrics are called is checked then, whether this task measures them at the
/// end.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    name: String,
    bounds: Vec<Bound>,
}

impl Gate {
    /// Reads a gate file; anything wrong with it is a usage error (exit 2).
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::usage(format!("{name}: cannot read the gate: {}", crate::storage::reason(&e))))?;
        let parsed = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str::<Value>(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str::<Value>(&text).map_err(|e| e.message().to_owned())
        };
        let value = parsed.map_err(|e| Error::usage(format!("{name}: {e}")).hint(HINT))?;
        let mut bounds = Vec::new();
        collect("", &value, &mut bounds).map_err(|message| Error::usage(format!("{name}: {message}")).hint(HINT))?;
        if bounds.is_empty() {
            return Err(Error::usage(format!("{name}: names no metric")).hint(HINT));
        }
        let known = paths::known()?;
        let is_known = |bound: &&Bound| known.iter().any(|known| matches(known, &bound.path));
        if let Some(bound) = bounds.iter().find(|bound| !is_known(bound)) {
            return Err(unknown(&name, &bound.path, &known));
        }
        match bounds.iter().find_map(|bound| bound.best_between()) {
            Some(message) => Err(Error::usage(format!("{name}: {message}")).hint(HINT)),
            None => Ok(Self { name, bounds }),
        }
    }

    /// Refuses (exit 2) a class that is none of `labels`, before any work.
    pub fn check_classes(&self, labels: &Labels) -> Result<()> {
        let classes = self.bounds.iter().filter_map(|bound| Some((bound, entry(&bound.path, PER_CLASS)?)));
        for (bound, class) in classes {
            let wrong = |message: &str| Error::usage(format!("{}: {}: {message}", self.name, bound.path));
            if labels.are_two() {
                return Err(wrong("per-class metrics need more than two classes").hint(HINT));
            }
            if index_of(class, labels).is_none() {
                let hint = format!("a class by its name ({}) or its number from 0", labels.join(", "));
                return Err(wrong(&format!("{class:?} is none of task.labels")).hint(hint));
            }
        }
        Ok(())
    }

    /// Refuses (exit 2) an operating point that is none of `targets`, and a subgroup of no column in `columns`, before
    /// any work.
    pub fn check_asked(&self, targets: &[Target], columns: &[String]) -> Result<()> {
        let names: Vec<String> = targets.iter().map(Target::name).collect();
        for bound in &self.bounds {
            let wrong = |message: String| Error::usage(format!("{}: {}: {message}", self.name, bound.path));
            let point = entry(&bound.path, POINTS);
            if let Some(point) = point.filter(|point| index_of(point, &names).is_none()) {
                return Err(wrong(format!("{point:?} is no operating point")).hint(format!(
                    "by eval.sensitivities, eval.specificities, eval.alert_rates: {}",
                    names.join(", ")
                )));
            }
            let of_column = |group: &str| {
                columns.iter().any(|column| group.strip_prefix(column).is_some_and(|rest| rest.starts_with('.')))
            };
            if let Some(group) = entry(&bound.path, SUBGROUPS).filter(|group| !of_column(group)) {
                return Err(wrong(format!("{group:?} has no column of eval.subgroups"))
                    .hint("name the column there: subgroups.COLUMN.VALUE.METRIC"));
            }
        }
        Ok(())
    }

    /// Fails (exit 1) with every bound that is missed; a metric that is undefined misses.
    pub fn check(&self, evaluation: &AnyEvaluation) -> Result<()> {
        let metrics = to_value(evaluation)?;
        let mut missed = Vec::new();
        for bound in &self.bounds {
            missed.extend(match find(&metrics, &bound.path) {
                Some(leaf) => bound.miss(leaf),
                None if entry(&bound.path, SUBGROUPS).is_some() => {
                    Some(format!("{} is undefined: no such subgroup was measured", bound.path))
                }
                None => Some(format!("{} is undefined: {}", bound.path, why_absent(&bound.path, evaluation))),
            });
        }
        match missed.as_slice() {
            [] => Ok(()),
            _ => Err(Error::run(format!("gate {} is not met:\n{}", self.name, missed.join("\n")))),
        }
    }
}

/// Why metrics.json has no such metric, which other evaluations have.
fn why_absent(path: &str, evaluation: &AnyEvaluation) -> &'static str {
    let of = |part: &str| path.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
    match evaluation {
        _ if of("perplexity") => "eval.language_text names no text to measure it on",
        _ if of("evidence") => "the predictions say no evidence (generate.evidence)",
        AnyEvaluation::Two(two) if of("calibration") && path.contains("_after") => match two.tuned {
            Some(_) => "eval.calibrate asks for no calibrator",
            None => "no dev predictions",
        },
        AnyEvaluation::Two(two) => binary_absent(path, two),
        AnyEvaluation::More(more) => match (path.strip_prefix("positive."), &more.positive) {
            (Some(inside), Some(positive)) => binary_absent(inside, &positive.evaluation),
            (Some(_), None) => "eval.positive names no class",
            (None, _) if of("calibration") && path.contains("_after") => {
                "no calibrator was fitted: that takes dev predictions and eval.calibrate"
            }
            (None, _) if path == "kappa_quadratic" => "the classes have no order (task.ordinal)",
            (None, _) => "it is not measured of more than two classes",
        },
    }
}

/// The same of two classes, or of one against the rest.
fn binary_absent(path: &str, evaluation: &Evaluation) -> &'static str {
    match &evaluation.tuned {
        None if path.starts_with("tuned.") => "no dev predictions",
        _ => "this evaluation does not have it",
    }
}

/// The index of this name, else of this number: a name that is a number comes first (`task.labels`).
fn index_of(class: &str, names: &[String]) -> Option<usize> {
    let named = names.iter().position(|name| name == class);
    named.or_else(|| class.parse().ok().filter(|&number| number < names.len()))
}

fn unknown(name: &str, path: &str, known: &[String]) -> Error {
    if let Some((metric, _)) = path.rsplit_once('.').filter(|(metric, _)| known.iter().any(|known| known == metric)) {
        return Error::usage(format!("{name}: `{path}` is no bound of {metric}"))
            .hint(format!("`{metric} = {{ min = 0.8, max = 0.9 }}`, or one of the two"));
    }
    // The last part of a name is what people remember of it.
    let last = known.iter().filter(|known| known.rsplit('.').next() == Some(path)).min_by_key(|known| known.len());
    let nearest = last.or_else(|| {
        known.iter().max_by(|a, b| strsim::jaro_winkler(a, path).total_cmp(&strsim::jaro_winkler(b, path)))
    });
    let hint = nearest.map_or_else(|| HINT.to_owned(), |nearest| format!("did you mean `{nearest}`?"));
    Error::usage(format!("{name}: no metric is called `{path}`")).hint(hint)
}

const HINT: &str = "a gate names metrics as metrics.json does: `auroc = 0.8`, `default.f1 = 0.4`, `calibration.slope \
    = { min = 0.8, max = 1.2 }`, `per_class.NAME.recall = 0.6`";

impl Bound {
    /// What is wrong with a number alone where neither more nor less is better.
    fn best_between(&self) -> Option<String> {
        match direction::of(&self.path) {
            Some(Direction::Near(best)) if self.bare => {
                Some(format!("{} is best at {best}, a number alone bounds neither side", self.path))
            }
            _ => None,
        }
    }

    fn miss(&self, leaf: &Value) -> Option<String> {
        let Some(value) = leaf["value"].as_f64() else {
            return Some(format!(
                "{} is undefined: {}",
                self.path,
                leaf["reason"].as_str().unwrap_or("no reason given")
            ));
        };
        if self.min.is_some_and(|min| value < min) {
            return self.min.map(|min| format!("{} = {}, below {min}", self.path, telling(value, &[min])));
        }
        self.max
            .filter(|&max| value > max)
            .map(|max| format!("{} = {}, above {max}", self.path, telling(value, &[max])))
    }
}

/// Turns nested tables into bounds with dotted paths.
fn collect(prefix: &str, value: &Value, bounds: &mut Vec<Bound>) -> Result<(), String> {
    let Value::Object(table) = value else { return Err("a gate is a table of metrics".to_owned()) };
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let number = |value: &Value| {
            value.as_f64().filter(|bound| bound.is_finite()).ok_or(format!("{path}: a bound is a number"))
        };
        match value {
            Value::Object(inner) if inner.is_empty() => return Err(format!("{path}: an empty table bounds nothing")),
            // A class may be named `min`; its value is then a table.
            Value::Object(inner)
                if inner.iter().all(|(key, side)| (key == "min" || key == "max") && !side.is_object()) =>
            {
                let side = |name: &str| inner.get(name).map(number).transpose();
                let min = side("min")?;
                let max = side("max")?;
                if min.zip(max).is_some_and(|(min, max)| min > max) {
                    return Err(format!("{path}: min is above max, which nothing can meet"));
                }
                bounds.push(Bound { min, max, path, bare: false });
            }
            Value::Object(_) => collect(&path, value, bounds)?,
            _ => {
                let bound = Some(number(value)?);
                let (min, max) =
                    if direction::of(&path) == Some(Direction::Lower) { (None, bound) } else { (bound, None) };
                bounds.push(Bound { path, min, max, bare: true });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_goes_by_its_name_or_its_number() {
        let names = ["0", "v1.5", "min"].map(String::from);
        let of = |path: &str| entry(path, PER_CLASS).and_then(|class| index_of(class, &names));
        assert_eq!([of("per_class.0.f1"), of("per_class.2.f1"), of("per_class.3.f1")], [Some(0), Some(2), None]);
        assert_eq!([of("per_class.v1.5.recall"), of("per_class.recall"), of("auroc")], [Some(1), None, None]);
        let mut bounds = Vec::new();
        let file = toml::from_str("[per_class]\nmin.recall = 0.5\n\"v1.5\" = { f1 = { min = 0.1 } }").unwrap();
        collect("", &file, &mut bounds).unwrap();
        let paths: Vec<&str> = bounds.iter().map(|bound| bound.path.as_str()).collect();
        assert_eq!(paths, ["per_class.min.recall", "per_class.v1.5.f1"]);
    }
}
