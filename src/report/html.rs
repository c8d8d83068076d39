//! `report.html`: one self-contained page for someone who did not run the evaluation.
//!
//! The template beside this file is rendered with autoescape on; figures are our own SVG and the only markup let
//! through. The page opens nothing: its Content-Security-Policy forbids every request. Records are a JSON block that
//! the page's script shows as text, never as markup; without records there is no such block.

use std::collections::BTreeMap;

use minijinja::{Environment, Value as JinjaValue, context};
use serde::Serialize;
use serde_json::Value;

use super::{Table, figures::Figure};
use crate::{
    error::{Error, Result},
    labels::Class,
    metrics::evidence::Evidence,
    storage,
};

pub use super::readings::{Reading, class_readings, readings};

/// A file that the numbers came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// What it is.
    pub what: &'static str,
    /// Its path.
    pub path: String,
    /// BLAKE3 of it.
    pub blake3: String,
}

/// A record as the page lists it. No `Debug`: it holds text.
#[derive(Clone, PartialEq, Serialize)]
pub struct RecordView {
    /// Its id.
    pub id: String,
    /// Gold class.
    pub label: Option<usize>,
    /// softmax(logits)[1]; of more than two classes the called one's.
    pub probability: Option<f64>,
    /// Of more than two classes, the one that the head calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called: Option<usize>,
    /// The calibrated probability, where a calibrator was fitted.
    pub calibrated: Option<f64>,
    /// The class its text names; `None`: unparsable.
    pub verbalized: Option<usize>,
    /// The explanation, or the raw text where it could not be parsed.
    pub explanation: Option<String>,
    /// What of the explanation stands in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Its text fields by name; empty where the split's file is not known.
    pub note: BTreeMap<String, String>,
}

impl RecordView {
    /// The class that the head calls: of two, class 1 from 0.5 on.
    fn called(&self) -> Option<usize> {
        self.called.or_else(|| self.probability.map(|probability| Class::of_probability(probability).index()))
    }
}

/// What looks better than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InSample {
    fitted: &'static str,
    values: &'static str,
}

impl InSample {
    /// Whether thresholds and calibrators were fitted on the scored records; `None` where neither was.
    pub fn of(thresholds: bool, calibrators: bool) -> Option<Self> {
        let told = |fitted, values| Some(Self { fitted, values });
        match (thresholds, calibrators) {
            (true, true) => told("Thresholds and calibrators", "tuned and calibrated"),
            (true, false) => told("Thresholds", "tuned"),
            (false, true) => told("Calibrators", "calibrated"),
            (false, false) => None,
        }
    }
}

/// What the page shows.
pub struct Report<'a> {
    /// `task.name`.
    pub task: &'a str,
    /// `task.labels`.
    pub labels: &'a [String],
    /// Of more than two classes, the one that `eval.positive` names.
    pub positive: Option<&'a str>,
    /// What the model is asked of a record; `None` of another tool's predictions.
    pub question: Option<&'a str>,
    /// What was scored.
    pub title: &'a str,
    /// The metrics that matter, each with its plain reading.
    pub summary: Vec<Reading>,
    /// What was fitted on the very records that are scored.
    pub in_sample: Option<InSample>,
    /// Of the scored records, how many are dev's too; 0 where all are.
    pub dev_overlap: usize,
    /// Every table.
    pub tables: &'a [Table],
    /// Every figure.
    pub figures: &'a [Figure],
    /// What thresholds and calibrators came from.
    pub sources: Vec<Source>,
    /// `run.json`.
    pub run: Value,
    /// The records, only with `--include-text`.
    pub records: Option<Vec<RecordView>>,
}

impl Report<'_> {
    /// The page.
    pub fn render(&self) -> Result<String> {
        // The error's own text may quote the template's input: only its kind and line are told.
        let failed =
            |e: minijinja::Error| Error::run(format!("cannot render report.html: {} in line {:?}", e.kind(), e.line()));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        // The name's extension is what switches autoescape on.
        environment.add_template("report.html", include_str!("report.html.jinja")).map_err(failed)?;
        let figures = self.figures.iter().map(|figure| {
            context! {
                name => figure.name,
                title => figure.title.as_str(),
                caption => figure.caption.as_str(),
                svg => JinjaValue::from_safe_string(inline(&figure.svg)),
            }
        });
        let template = environment.get_template("report.html").map_err(failed)?;
        let page = template.render(context! {
            task => self.task,
            labels => jinja(&self.labels)?,
            label_names => block(&self.labels)?,
            positive => self.positive,
            title => self.title,
            question => self.question,
            summary => jinja(&self.summary.chunk_by(|a, b| a.about == b.about).collect::<Vec<_>>())?,
            worst => jinja(&self.records.as_deref().map(worst))?,
            in_sample => jinja(&self.in_sample)?,
            dev_overlap => self.dev_overlap,
            tables => jinja(&self.tables)?,
            figures => figures.collect::<Vec<JinjaValue>>(),
            sources => jinja(&self.sources)?,
            run => jinja(&manifest(&self.run)?)?,
            records => self.records.as_ref().map(block).transpose()?,
        });
        page.map_err(failed)
    }
}

/// The records that the head is surest and wrong about, the worst first.
fn worst(records: &[RecordView]) -> Vec<&RecordView> {
    /// As many as a reader looks at.
    const WORST: usize = 10;
    // How far the probability of what is called lies beyond calling it by a hair.
    let wrong = |record: &RecordView| {
        let called = record.called();
        let wrong = called.is_some() && record.label.is_some() && called != record.label;
        record.probability.filter(|_| wrong).map(|p| if record.called.is_some() { p } else { (p - 0.5).abs() })
    };
    let mut worst: Vec<(&RecordView, f64)> =
        records.iter().filter_map(|record| Some((record, wrong(record)?))).collect();
    worst.sort_by(|a, b| b.1.total_cmp(&a.1));
    worst.into_iter().take(WORST).map(|(record, _)| record).collect()
}

/// Anything of ours as a value of the template, by way of JSON.
fn jinja(value: &impl Serialize) -> Result<JinjaValue> {
    fn of(value: Value) -> JinjaValue {
        match value {
            Value::Null => JinjaValue::from(()),
            Value::Bool(value) => value.into(),
            Value::Number(value) => value.as_i64().map_or_else(|| value.as_f64().into(), JinjaValue::from),
            Value::String(value) => value.into(),
            Value::Array(items) => items.into_iter().map(of).collect(),
            // Collected, pairs would be a list.
            Value::Object(object) => JinjaValue::from_pairs(object.into_iter().map(|(key, value)| (key, of(value)))),
        }
    }
    serde_json::to_value(value).map(of).map_err(|e| Error::run(format!("cannot write JSON: {e}")))
}

/// JSON that may stand within a `<script>`: none of its characters can end the element or begin another.
fn block(value: &impl Serialize) -> Result<JinjaValue> {
    let json = serde_json::to_string(value).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
    let safe = json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    Ok(JinjaValue::from_safe_string(safe))
}

/// The SVG without fixed size: the page scales it.
fn inline(svg: &str) -> String {
    let Some(end) = svg.find('>') else { return svg.to_owned() };
    let attribute = |name: &str| {
        let rest = svg[..end].split_once(&format!(" {name}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let width = attribute("width").unwrap_or("720");
    let height = attribute("height").unwrap_or("520");
    format!("<svg viewBox=\"0 0 {width} {height}\" aria-hidden=\"true\" focusable=\"false\">{}", &svg[end + 1..])
}

/// What the page tells of `run.json`, as rows of name and value; the config as JSON.
#[derive(Debug, Default, Serialize)]
struct Manifest {
    rows: Vec<(String, String)>,
    inputs: Vec<(String, String, String)>,
    config: String,
}

fn manifest(run: &Value) -> Result<Manifest> {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    let mut rows = Vec::new();
    for key in ["command_line", "started"] {
        rows.extend(run.get(key).map(|value| (key.replace('_', " "), shown(value))));
    }
    for section in ["versions", "seeds", "hardware"] {
        collect(section, &run[section], &shown, &mut rows);
    }
    let inputs = run["inputs"].as_array().into_iter().flatten();
    let inputs = inputs.map(|input| (shown(&input["path"]), shown(&input["bytes"]), shown(&input["blake3"]))).collect();
    let config = run.get("config").map(storage::json).transpose()?.unwrap_or_default();
    Ok(Manifest { rows, inputs, config: String::from_utf8_lossy(config.trim_ascii_end()).into_owned() })
}

/// Leaves of a section with their paths.
fn collect(path: &str, value: &Value, shown: &dyn Fn(&Value) -> String, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| collect(&format!("{path} · {key}"), value, shown, rows))
        }
        Value::Null => {}
        leaf => rows.push((path.to_owned(), shown(leaf))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report<'a>(tables: &'a [Table], figures: &'a [Figure], records: Option<Vec<RecordView>>) -> Report<'a> {
        let run = json!({"command_line": ["clsgen", "eval"], "versions": {"clsgen": "1.2.3"}, "seeds": {"seed": 7},
            "config": {"a": "<b>"},
            "inputs": [{"path": "x<y.jsonl", "bytes": 3, "blake3": "abc"}]});
        let summary = vec![Reading {
            about: "Well?",
            name: "AUROC",
            value: "0.8".into(),
            interval: None,
            sentence: "It is <good>.".into(),
        }];
        Report {
            task: "t&t",
            labels: &[],
            positive: None,
            question: Some("Is <b>it</b>?"),
            title: "a <title>",
            summary,
            in_sample: None,
            dev_overlap: 0,
            tables,
            figures,
            sources: Vec::new(),
            run,
            records,
        }
    }

    #[test]
    fn everything_is_escaped_and_nothing_is_fetched() {
        let mut table = Table::new("t", "<script>alert(1)</script>", &["a", "b"]);
        table.row(["x", "<img src=//evil>"]);
        let svg =
            "<svg width=\"72\" height=\"52\" xmlns=\"http://www.w3.org/2000/svg\">\n<text>x</text></svg>".to_owned();
        let figure = Figure { name: "roc", title: "ROC".into(), caption: "c".into(), svg };
        let page = report(&[table], &[figure], None).render().unwrap();
        assert!(
            page.starts_with("<!doctype html>")
                && page.contains("a &lt;title&gt;")
                && page.contains("1.2.3")
                && page.contains("x&lt;y.jsonl")
        );
        assert!(!page.contains("<img") && !page.contains("<script>alert") && page.contains("viewBox=\"0 0 72 52\""));
        assert!(!page.contains("http:") && !page.contains("https:") && page.contains("default-src 'none'"));
        assert!(!page.contains("id=\"records\""));
    }

    #[test]
    fn text_of_a_record_cannot_leave_its_block() {
        let record = RecordView {
            id: "1".into(),
            label: Some(1),
            probability: Some(0.25),
            called: None,
            calibrated: None,
            verbalized: None,
            explanation: Some("</script><script>alert(1)</script>".into()),
            evidence: Vec::new(),
            note: BTreeMap::from([("text".into(), "SECRET <b>".into())]),
        };
        let page = report(&[], &[], Some(vec![record])).render().unwrap();
        assert!(page.contains("SECRET") && !page.contains("<script>alert") && !page.contains("SECRET <b>"));
    }
}
