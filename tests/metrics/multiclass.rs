//! Metrics of K > 2 classes against scikit-learn and scipy (`tests/golden/multiclass.py`), and their intervals.

use clsgen::metrics::{
    AnyEvaluation, Metric, Options,
    judge::Judged,
    multiclass::{
        Averages, ClassCalls, Row, Sample, Temperature, evaluate, evaluate_agreement, evaluate_calibration, judge,
        macro_auroc,
        methods::{MethodRun, measure},
    },
};
use serde_json::Value;

use crate::common::golden;

fn sample(fixture: &Value) -> Sample {
    let denominator = fixture["denominator"].as_f64().unwrap();
    let probabilities: Vec<Vec<f64>> = fixture["p"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_array().unwrap().iter().map(|units| units.as_f64().unwrap() / denominator).collect())
        .collect();
    let class = |value: &Value| value.as_u64().map(|class| class as u8);
    let rows = probabilities.iter().enumerate().map(|(i, probabilities)| Row {
        probabilities,
        label: class(&fixture["y"][i]).unwrap(),
        verbalized: class(&fixture["v"][i]),
        group: None,
    });
    Sample::new(fixture["classes"].as_u64().unwrap() as usize, rows).unwrap()
}

fn names(classes: usize) -> Vec<String> {
    (0..classes).map(|k| format!("class-{k}")).collect()
}

#[track_caller]
fn close(what: &str, ours: &Metric, want: &Value) {
    match (ours.value, want.as_f64()) {
        (None, None) => assert!(ours.reason.is_some(), "{what}: null needs a reason"),
        (Some(a), Some(b)) if (a - b).abs() <= 1e-12 => {}
        (a, b) => panic!("{what}: ours {a:?}, reference {b:?}"),
    }
}

fn compare_calls(what: &str, averages: &Averages, classes: &[&ClassCalls], want: &Value) {
    close(&format!("{what}: accuracy"), &averages.accuracy, &want["accuracy"]);
    close(&format!("{what}: balanced accuracy"), &averages.balanced_accuracy, &want["balanced_accuracy"]);
    let means = &averages.macro_mean;
    for (k, metric) in [&means.precision, &means.recall, &means.f1].into_iter().enumerate() {
        close(&format!("{what}: macro {k}"), metric, &want["macro"][k]);
    }
    for (class, calls) in classes.iter().enumerate() {
        for (k, metric) in [&calls.precision, &calls.recall, &calls.f1].into_iter().enumerate() {
            close(&format!("{what}: class {class}, {k}"), metric, &want["per_class"][class][k]);
        }
    }
}

#[test]
fn multiclass_metrics_agree_with_scikit_learn() {
    let golden: Vec<Value> = golden("multiclass.json");
    assert!(golden.len() >= 5);
    for fixture in &golden {
        let sample = sample(fixture);
        let want = &fixture["want"];
        let what = fixture["name"].as_str().unwrap();
        let names = names(sample.classes());
        let ours = evaluate(&sample, &names, true, &Options::default());
        let classes: Vec<&ClassCalls> = ours.per_class.iter().map(|class| &class.calls).collect();
        compare_calls(what, &ours.calls, &classes, want);
        for (key, metric) in [
            ("auroc", &ours.auroc),
            ("auroc_align", &ours.auroc_align),
            ("kappa", &ours.kappa),
            ("kappa_quadratic", ours.kappa_quadratic.as_ref().unwrap()),
            ("parsable", &ours.parsable),
            ("brier", &ours.calibration.brier),
            ("ece", &ours.calibration.ece),
            ("log_loss", &ours.calibration.log_loss),
        ] {
            close(&format!("{what}: {key}"), metric, &want[key]);
        }
        for (k, class) in ours.per_class.iter().enumerate() {
            close(&format!("{what}: AUROC of {k}"), &class.auroc, &want["auroc_per_class"][k]);
            close(&format!("{what}: AUROC-Align of {k}"), &class.auroc_align, &want["auroc_align_per_class"][k]);
        }
        assert_eq!(serde_json::to_value(&ours.confusion).unwrap(), want["confusion"], "{what}");
        let terms = AnyEvaluation::More(Box::new(ours.clone())).terms();
        assert_eq!(
            [terms.auroc, terms.auroc_align, terms.kappa],
            [ours.auroc.value, ours.auroc_align.value, ours.kappa.value]
        );
        assert_eq!(macro_auroc(&sample).ok(), ours.auroc.value, "{what}");
        let curve = evaluate_agreement(&sample, &names, &Options::default());
        assert_eq!((&curve.auroc, &curve.kappa, &curve.parsable), (&ours.auroc, &ours.kappa, &ours.parsable));
    }
}

#[test]
fn answers_without_a_class_agree_with_scikit_learn() {
    for fixture in golden::<Vec<Value>>("multiclass.json") {
        let sample = sample(&fixture);
        let what = fixture["name"].as_str().unwrap();
        let names = names(sample.classes());
        let run = |calls: Vec<Option<u8>>| MethodRun { probabilities: vec![None; calls.len()], calls };
        let texts = run(sample.verbalized().to_vec());
        let ours = measure(&sample, &names, std::slice::from_ref(&texts), true, &Options::default());
        let classes: Vec<&ClassCalls> = ours.per_class.iter().collect();
        compare_calls(what, &ours.averages, &classes, &fixture["want"]["answers"]);
        close(what, &ours.parsable, &fixture["want"]["parsable"]);
        // Over runs: the mean.
        let both = measure(&sample, &names, &[texts, run(sample.calls())], true, &Options::default());
        let mean = |of: &Value| of["accuracy"].as_f64().unwrap() / 2.0;
        let want = mean(&fixture["want"]) + mean(&fixture["want"]["answers"]);
        assert!((both.averages.accuracy.value.unwrap() - want).abs() < 1e-12, "{what}");
    }
}

#[test]
fn the_temperature_agrees_with_scipy_and_calls_the_same() {
    for fixture in golden::<Vec<Value>>("multiclass.json") {
        let sample = sample(&fixture);
        let ours = Temperature::fit(&sample).unwrap();
        let want = fixture["want"]["temperature"].as_f64().unwrap();
        assert!((ours.temperature - want).abs() <= 1e-6 * want, "{}: {ours:?} {want}", fixture["name"]);
        let calibrated = ours.apply_all(&sample);
        assert_eq!(calibrated.predicted(), sample.predicted());
        assert!(calibrated.rows().all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        let loss = |sample: &Sample| evaluate_calibration(sample, &Options::default()).log_loss.value.unwrap();
        assert!(loss(&calibrated) < loss(&sample), "{}", fixture["name"]);
        let written = serde_json::to_value(ours).unwrap();
        assert_eq!(written["method"], "temperature");
        assert_eq!(serde_json::from_value::<Temperature>(written).unwrap(), ours, "reads back to the bit");
    }
}

#[test]
fn a_macro_mean_is_null_where_a_class_has_none_and_names_it() {
    let find = |name: &str| {
        golden::<Vec<Value>>("multiclass.json").into_iter().find(|fixture| fixture["name"] == name).unwrap()
    };
    let missing = evaluate(&sample(&find("missing")), &names(3), false, &Options::default());
    assert_eq!(missing.calls.balanced_accuracy.reason.as_deref(), Some("class class-1: no positive record"));
    assert_eq!(missing.auroc.reason.as_deref(), Some("class class-1: only one class is present"));
    assert!(missing.calls.accuracy.value.is_some() && missing.kappa_quadratic.is_none());
    let json = serde_json::to_value(&missing).unwrap();
    assert_eq!(json["macro"]["recall"]["value"], Value::Null);
    assert_eq!((&json["default"]["threshold"], &json["positive"]), (&Value::Null, &Value::Null));
    assert_eq!(serde_json::from_value::<clsgen::metrics::multiclass::Evaluation>(json).unwrap(), missing);
    let never = evaluate(&sample(&find("never called")), &names(7), false, &Options::default());
    let reason = never.calls.macro_mean.precision.reason.unwrap();
    assert_eq!(reason, "class class-4: nothing is predicted positive");
    let nothing = Sample::new(3, std::iter::empty()).unwrap();
    let nothing = evaluate(&nothing, &names(3), true, &Options { bootstrap: 10, ..Options::default() });
    for metric in [&nothing.auroc, &nothing.calls.accuracy, &nothing.kappa, &nothing.calibration.brier] {
        assert_eq!((metric.value, metric.reason.as_deref()), (None, Some("no record")));
    }
}

/// Three classes of 30, 60 and 120 records, called right three times out of four.
fn grouped(group: impl Fn(usize) -> Option<String>) -> Sample {
    let label = |i: usize| [0, 1, 1, 2, 2, 2, 2][i % 7];
    let groups: Vec<Option<String>> = (0..210).map(group).collect();
    let probabilities: Vec<[f64; 3]> = (0..210)
        .map(|i| {
            let mut row = [0.2 + (i % 5) as f64 / 100.0; 3];
            let called = if i % 4 == 3 { (usize::from(label(i)) + 1) % 3 } else { usize::from(label(i)) };
            row[called] = 0.0;
            row[called] = 1.0 - row.iter().sum::<f64>();
            row
        })
        .collect();
    let rows = (0..210).map(|i| Row {
        probabilities: &probabilities[i],
        label: label(i),
        verbalized: (!i.is_multiple_of(9)).then_some(label(i + i % 2)),
        group: groups[i].as_deref(),
    });
    Sample::new(3, rows).unwrap()
}

#[test]
fn every_number_has_its_interval_and_whole_groups_are_resampled() {
    let options = Options { bootstrap: 300, ..Options::default() };
    let alone = evaluate(&grouped(|_| None), &names(3), true, &options);
    let all = alone.calls.named().into_iter().chain(alone.calibration.named());
    let all = all.map(|(_, metric)| metric).chain([&alone.auroc, &alone.auroc_align, &alone.kappa, &alone.parsable]);
    let classes = alone.per_class.iter().flat_map(|class| {
        let ClassCalls { precision, recall, f1, .. } = &class.calls;
        [precision, recall, f1, &class.auroc, &class.auroc_align]
    });
    for metric in all.chain(classes) {
        let [low, high] = metric.ci95.unwrap();
        let value = metric.value.unwrap();
        assert!(low <= value && value <= high, "{metric:?}");
    }
    // Groups of one class that are right or wrong as a whole make accuracy less certain.
    let width = |sample: &Sample| {
        let [low, high] = evaluate(sample, &names(3), false, &options).calls.accuracy.ci95.unwrap();
        high - low
    };
    assert!(width(&grouped(|i| Some(format!("{}", i % 28)))) > width(&grouped(|_| None)));
    // Class 0, the rarest, in one group: no interval, but for DeLong's of other classes.
    let one = evaluate(&grouped(|i| i.is_multiple_of(7).then(|| "one".to_owned())), &names(3), false, &options);
    let reason = "no interval: one group alone holds some rarest class";
    assert_eq!((one.calls.accuracy.ci95, one.calls.accuracy.reason.as_deref()), (None, Some(reason)));
    assert!(one.per_class[1].auroc.ci95.is_some());
}

#[test]
fn a_proportion_of_one_has_clopper_and_pearsons_interval() {
    let probabilities: Vec<[f64; 3]> = (0..30).map(|i| std::array::from_fn(|k| f64::from(i % 3 == k))).collect();
    let rows = (0..30).map(|i| Row {
        probabilities: &probabilities[i],
        label: (i % 3) as u8,
        verbalized: Some((i % 3) as u8),
        group: None,
    });
    let sample = Sample::new(3, rows).unwrap();
    let right = evaluate(&sample, &names(3), false, &Options { bootstrap: 200, ..Options::default() });
    let end = |n: f64| Some([0.025f64.powf(1.0 / n), 1.0]);
    assert_eq!(right.calls.accuracy.ci95, end(30.0));
    assert_eq!((right.per_class[0].calls.recall.ci95, right.per_class[0].calls.precision.ci95), (end(10.0), end(10.0)));
    assert_eq!(right.calls.balanced_accuracy.reason.as_deref(), Some("no interval: no variation"));
    assert!(Temperature::fit(&sample).unwrap_err().contains("right throughout"));
}

#[test]
fn one_class_against_the_rest_is_a_sample_of_two_classes() {
    let sample = grouped(|i| Some(format!("{}", i / 3)));
    let class = sample.one_vs_rest(2);
    assert_eq!((class.len(), class.positives(), class.cluster_count()), (210, 120, 70));
    assert_eq!(class.probabilities(), sample.column(2));
    assert_eq!(class.verbalized()[1], sample.verbalized()[1].map(|label| label == 2));
    let two = clsgen::metrics::evaluate(&class, None, &Options::default());
    let ours = evaluate(&sample, &names(3), false, &Options::default());
    assert_eq!((two.auroc, two.auroc_align), (ours.per_class[2].auroc.clone(), ours.per_class[2].auroc_align.clone()));
}

#[test]
fn the_judge_finds_explanations_for_another_class() {
    let sample = grouped(|_| None);
    let verdict = |i: usize| Judged {
        verbalized: sample.verbalized()[i],
        inferred: sample.verbalized()[i].map(|label| if i.is_multiple_of(10) { (label + 1) % 3 } else { label }),
        written: true,
        asked: true,
        readable: Some(true),
    };
    let verdicts: Vec<Option<Judged<u8>>> = (0..210).map(|i| Some(verdict(i))).collect();
    let judged = judge(&sample, &verdicts, &Options { bootstrap: 300, ..Options::default() });
    let parsable = sample.parsable();
    let other = parsable.iter().filter(|&&i| i % 10 == 0).count() as f64;
    assert_eq!((judged.rli.value, judged.rli.n), (Some(other / parsable.len() as f64), parsable.len()));
    assert!(judged.rl_kappa.ci95.is_some() && judged.readability.value == Some(1.0));
}
