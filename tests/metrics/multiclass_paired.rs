//! A model of K > 2 classes against another method, paired, beside scikit-learn and scipy
//! (`tests/golden/multiclass_paired.py`).

use clsgen::metrics::{
    Options,
    comparison::Comparison,
    multiclass::{
        Row, Sample, evaluate,
        methods::{MethodRun, compare, measure},
        paired::differences,
    },
};
use serde_json::Value;

use crate::common::golden;

/// The order of the fixture's columns.
const METRICS: [&str; 4] = ["auroc", "accuracy", "balanced_accuracy", "macro.f1"];

/// Resamples of ours and of the fixture.
const RESAMPLES: [f64; 2] = [10_000.0, 2_000.0];

fn shares(row: &Value) -> Option<Vec<f64>> {
    Some(row.as_array()?.iter().map(|units| units.as_f64().unwrap() / 100.0).collect())
}

fn rows(values: &Value) -> Vec<Option<Vec<f64>>> {
    values.as_array().unwrap().iter().map(shares).collect()
}

/// The records with these probabilities as the model's, `verbalized` as what its texts say.
fn sample(fixture: &Value, probabilities: &[Option<Vec<f64>>]) -> Sample {
    let groups: Option<Vec<String>> =
        fixture["groups"].as_array().map(|groups| groups.iter().map(Value::to_string).collect());
    let rows = probabilities.iter().enumerate().map(|(i, probabilities)| Row {
        probabilities: probabilities.as_ref().unwrap(),
        label: fixture["y"][i].as_u64().unwrap() as u8,
        verbalized: None,
        group: groups.as_ref().map(|groups| groups[i].as_str()),
    });
    Sample::new(fixture["classes"].as_u64().unwrap() as usize, rows).unwrap()
}

fn names(fixture: &Value) -> Vec<String> {
    (0..fixture["classes"].as_u64().unwrap()).map(|k| format!("class-{k}")).collect()
}

/// The method as a run: of equal probabilities the lowest class is its answer.
fn run(fixture: &Value) -> MethodRun {
    let probabilities = rows(&fixture["q"]);
    let largest = |row: &Vec<f64>| (1..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best }) as u8;
    MethodRun { calls: probabilities.iter().map(|row| row.as_ref().map(largest)).collect(), probabilities }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Our comparisons beside the fixture's: values to rounding, the accuracy's exact p too; ends and p-values of the
/// bootstrap within 4½ standard errors of what two numbers of resamples leave to chance.
fn agree(fixture: &Value, compared: &[Comparison]) {
    let want = &fixture["want"];
    let spread = RESAMPLES.iter().map(|n| 1.0 / n).sum::<f64>().sqrt();
    for (k, metric) in METRICS.iter().enumerate() {
        let what = format!("{}, {metric}", fixture["name"]);
        let ours = compared.iter().find(|comparison| comparison.metric == *metric).unwrap();
        let value = ours.difference.value.unwrap();
        assert!((value - number(&want["difference"][k])).abs() < 1e-12, "{what}: {value}");
        // A normal's 2.5 percentile is uncertain by √(0.025 · 0.975) / φ(1.96) = 2.67 standard deviations / √n.
        let allowed = 4.5 * 2.67 * spread * number(&want["sd"][k]);
        for (side, end) in ours.difference.ci95.unwrap().into_iter().enumerate() {
            let reference = number(&want["ci95"][k][side]);
            assert!((end - reference).abs() < allowed, "{what}: end {end}, reference {reference} ± {allowed}");
        }
        let p = ours.p_value.unwrap();
        if *metric == "accuracy" {
            let grouped = fixture["groups"].is_array();
            assert_eq!(ours.test, if grouped { "sign-flip over groups, exact" } else { "McNemar, exact" }, "{what}");
            let exact = want["accuracy_p"].as_f64();
            assert!(exact.is_none_or(|exact| (p - exact).abs() < 1e-12), "{what}: p {p}, exact {exact:?}");
        } else {
            let reference = number(&want["p"][k]);
            let tail = reference.clamp(0.001, 1.0) / 2.0;
            let allowed = 4.5 * 2.0 * (tail * (1.0 - tail)).sqrt() * spread;
            assert!((p - reference).abs() < allowed, "{what}: p {p}, reference {reference} ± {allowed}");
        }
    }
}

#[test]
fn a_method_is_compared_as_scikit_learn_and_scipy_do() {
    let golden: Vec<Value> = golden("multiclass_paired.json");
    assert!(golden.iter().filter(|fixture| fixture["want"]["accuracy_p"].is_f64()).count() >= 3);
    let options = Options { bootstrap: RESAMPLES[0] as usize, ..Options::default() };
    for fixture in &golden {
        let sample = sample(fixture, &rows(&fixture["p"]));
        let names = names(fixture);
        let run = run(fixture);
        let metrics = measure(&sample, &names, std::slice::from_ref(&run), true, &Options::default());
        let answered = run.calls.iter().flatten().count();
        assert_eq!((metrics.auroc.n, metrics.averages.accuracy.n), (answered, run.calls.len()));
        let parsable = answered as f64 / run.calls.len() as f64;
        assert!((metrics.parsable.value.unwrap() - parsable).abs() < 1e-12);
        let named = metrics.named();
        for (k, metric) in METRICS.iter().enumerate() {
            let ours = named.iter().find(|(key, _)| key == metric).unwrap().1.value.unwrap();
            assert!((ours - number(&fixture["want"]["method"][k])).abs() < 1e-12, "{}: {metric}", fixture["name"]);
        }
        let compared = compare(&sample, &names, &run, true, &options);
        assert_eq!(compared[0].difference.n, answered);
        agree(fixture, &compared);
    }
}

#[test]
fn two_models_are_compared_as_scikit_learn_and_scipy_do() {
    let golden: Vec<Value> = golden("multiclass_paired.json");
    let fixture = golden.iter().find(|fixture| fixture["name"] == "answers all").unwrap();
    let names = names(fixture);
    let model = sample(fixture, &rows(&fixture["p"]));
    let other = sample(fixture, &rows(&fixture["q"]));
    let options = Options { bootstrap: RESAMPLES[0] as usize, ..Options::default() };
    agree(fixture, &differences(&other, &model, &names, &options));
    // The same resamples as those of the metrics themselves.
    let own = evaluate(&model, &names, false, &options);
    assert!((own.auroc.value.unwrap() - number(&fixture["want"]["model"][0])).abs() < 1e-12);
}
