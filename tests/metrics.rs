//! Metrics against scikit-learn, statsmodels, published examples, the paper's own counts, and properties.

mod common;
#[path = "metrics/journal.rs"]
mod journal;
#[path = "metrics/multiclass.rs"]
mod multiclass;
#[path = "metrics/multiclass_paired.rs"]
mod multiclass_paired;
#[path = "metrics/properties.rs"]
mod properties;

use clsgen::metrics::{
    Metric, Options, Outcome, Sample,
    agreement::{kappa, landis_koch},
    bootstrap::{Resampler, Statistic},
    calibration,
    calibrators::{Calibrator, Method},
    classification::Confusion,
    decision, delong, evaluate, ranking, significance,
    threshold::{self, Objective, Thresholds},
};
use common::golden;
use serde_json::Value;

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn bools(value: &Value) -> Vec<bool> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() == 1).collect()
}

/// Equal within 1e-9 relative; an absolute 1e-12 covers values that are zero up to rounding.
#[track_caller]
fn close(what: &str, ours: Option<f64>, want: &Value) {
    match (ours, want.as_f64()) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * b.abs() + 1e-12 => {}
        (a, b) => panic!("{what}: ours {a:?}, reference {b:?}"),
    }
}

fn sample(fixture: &Value, groups: bool) -> Sample {
    let mut sample = Sample::new();
    let labels = bools(&fixture["y"]);
    for (i, p) in floats(&fixture["p"]).into_iter().enumerate() {
        let group = fixture["g"][i].to_string();
        sample.push(p, labels[i], fixture["v"][i].as_u64().map(|v| v == 1), groups.then_some(group.as_str()));
    }
    sample
}

#[test]
fn fixtures_agree_with_scikit_learn_and_statsmodels() {
    let golden: Value = golden("metrics.json");
    let fixtures = golden["fixtures"].as_array().unwrap();
    assert!(fixtures.len() >= 200);
    for (k, fixture) in fixtures.iter().enumerate() {
        let sample = sample(fixture, false);
        let want = &fixture["want"];
        let ours = evaluate(&sample, None, &Options::default());
        let pairs: [(&str, &Metric); 15] = [
            ("aurc", &ours.aurc),
            ("slope", &ours.calibration.slope),
            ("auroc", &ours.auroc),
            ("average_precision", &ours.auprc),
            ("precision", &ours.default.precision),
            ("recall", &ours.default.recall),
            ("f1", &ours.default.f1),
            ("kappa", ours.default.kappa.as_ref().unwrap()),
            ("auroc_align", &ours.auroc_align),
            ("parsable", &ours.parsable),
            ("brier", &ours.calibration.brier),
            ("ece", &ours.calibration.ece),
            ("mce", &ours.calibration.mce),
            ("observed_expected", &ours.calibration.observed_expected),
            ("intercept", &ours.calibration.intercept),
        ];
        for (name, metric) in pairs {
            close(&format!("fixture {k}, {name}"), metric.value, &want[name]);
            let told = metric
                .reason
                .as_deref()
                .is_some_and(|reason| metric.value.is_none() || reason.starts_with("no interval: "));
            assert_eq!(
                metric.ci95.is_none(),
                told,
                "fixture {k}, {name}: null needs a reason, a number with its interval none"
            );
        }
        let net_benefit = decision::NetBenefit::new(sample.probabilities(), sample.labels(), &[0.1, 0.3, 0.5, 0.9]);
        let [model, all] = net_benefit.of(&vec![1; sample.len()]);
        for (t, (model, all)) in model.into_iter().zip(all).enumerate() {
            close(&format!("fixture {k}, net benefit {t}"), Some(model), &want["net_benefit"][t][0]);
            close(&format!("fixture {k}, net benefit of all {t}"), Some(all), &want["net_benefit"][t][1]);
        }
    }
}

#[test]
fn tuned_thresholds_agree_with_a_brute_force_search_in_fractions() {
    for (k, fixture) in golden::<Value>("metrics.json")["fixtures"].as_array().unwrap().iter().enumerate() {
        let sample = sample(fixture, false);
        for (name, objective) in [("f1", Objective::F1), ("kappa", Objective::Kappa), ("youden", Objective::Youden)] {
            let want = &fixture["want"]["tuned"][name];
            match threshold::tune(&sample, objective) {
                Ok(tuned) => {
                    assert_eq!(Some(tuned.threshold), want["threshold"].as_f64(), "fixture {k}, {name}");
                    close(&format!("fixture {k}, {name}"), Some(tuned.value), &want["value"]);
                }
                Err(reason) => assert!(want.is_null(), "fixture {k}, {name}: {reason}"),
            }
        }
    }
}

#[test]
fn delong_agrees_with_the_kernel_and_with_obuchowski() {
    let golden: Value = golden("metrics.json");
    let mut clustered = 0;
    for (k, fixture) in golden["fixtures"].as_array().unwrap().iter().enumerate() {
        for (groups, key) in [(false, "variance"), (true, "clustered_variance")] {
            let sample = sample(fixture, groups);
            let ours =
                delong::auroc(sample.probabilities(), sample.labels(), sample.clusters(), sample.cluster_count());
            let want = &fixture["want"][key];
            clustered += usize::from(groups && !want.is_null());
            close(
                &format!("fixture {k}, {key}"),
                ours.map(|auroc| auroc.standard_error),
                &want.as_f64().map(|v| v.max(0.0).sqrt()).into(),
            );
        }
    }
    assert!(clustered > 100);
    for pair in golden["paired"].as_array().unwrap() {
        let p = floats(&pair["p"]);
        let q = floats(&pair["q"]);
        let y = bools(&pair["y"]);
        let clusters: Vec<u32> = (0..p.len() as u32).collect();
        let ours = delong::paired(&p, &q, &y, &clusters, p.len()).unwrap();
        close("difference", Some(ours.value), &pair["difference"]);
        close("variance", Some(ours.standard_error.powi(2)), &pair["variance"]);
    }
}

/// The worked example of the 1988 paper (49 patients, of whom SAS's *PROC LOGISTIC* example prints the 43 complete
/// ones): albumin, total protein, K-G score, and 1 where surgery did not help; AUROCs, errors and contrasts as printed
/// there.
#[test]
fn delong_gives_the_published_ovarian_cancer_example() {
    const PATIENTS: &str = "3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 \
        5.6 5 1 \
        3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 \
        4.2 7.6 4 0 \
        4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 \
        4.3 6.5 4 1 \
        3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 \
        2.1 4.8 7 1 \
        2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1";
    let numbers: Vec<f64> = PATIENTS.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let column = |k: usize, sign: f64| numbers.chunks(4).map(|row| sign * row[k]).collect::<Vec<f64>>();
    let albumin = column(0, 1.0);
    let protein = column(1, 1.0);
    let kg = column(2, -1.0);
    let helped: Vec<bool> = numbers.chunks(4).map(|row| row[3] == 1.0).collect();
    let clusters: Vec<u32> = (0..43).collect();
    let rounded = |x: f64| (x * 1e4).round() / 1e4;
    let area = |scores: &[f64]| {
        let auroc = delong::auroc(scores, &helped, &clusters, 43).unwrap();
        [rounded(auroc.value), rounded(auroc.standard_error), rounded(auroc.ci95()[0]), rounded(auroc.ci95()[1])]
    };
    assert_eq!(area(&albumin), [0.7366, 0.0927, 0.5549, 0.9182]);
    assert_eq!(area(&kg), [0.7258, 0.1028, 0.5243, 0.9273]);
    assert_eq!(area(&protein), [0.6478, 0.1000, 0.4518, 0.8439]);
    let contrast = |scores: &[f64]| {
        let difference = delong::paired(scores, &kg, &helped, &clusters, 43).unwrap();
        [rounded(difference.value), rounded(difference.standard_error), rounded(difference.p_value)]
    };
    assert_eq!(contrast(&albumin), [0.0108, 0.0953, 0.9102]);
    assert_eq!(contrast(&protein), [-0.0780, 0.1046, 0.4561]);
}

#[test]
fn mcnemar_and_holm_agree_with_statsmodels() {
    let golden: Value = golden("metrics.json");
    for case in golden["mcnemar"].as_array().unwrap() {
        let p = significance::mcnemar(case["b"].as_u64().unwrap(), case["c"].as_u64().unwrap());
        close("mcnemar", Some(p), &case["p"]);
    }
    for case in golden["holm"].as_array().unwrap() {
        for (ours, want) in
            significance::holm(&floats(&case["p"])).into_iter().zip(case["adjusted"].as_array().unwrap())
        {
            close("holm", Some(ours), want);
        }
    }
}

#[test]
fn calibrators_agree_with_scikit_learn_and_scipy() {
    for case in golden::<Value>("metrics.json")["calibrators"].as_array().unwrap() {
        let scores = floats(&case["p"]);
        let labels = bools(&case["y"]);
        let dev = sample_of(&scores.iter().copied().zip(labels.iter().copied()).collect::<Vec<_>>());
        for (name, method) in
            [("temperature", Method::Temperature), ("platt", Method::Platt), ("isotonic", Method::Isotonic)]
        {
            let calibrator = Calibrator::fit(&dev, method, true).unwrap();
            for (&at, want) in floats(&case["grid"]).iter().zip(case[name].as_array().unwrap()) {
                let ours = calibrator.apply(at, None);
                let want = want.as_f64().unwrap();
                assert!((ours - want).abs() <= 1e-8 * want + 1e-12, "{name} at {at}: {ours} {want}");
            }
            let written = serde_json::to_string(&calibrator).unwrap();
            assert_eq!(serde_json::from_str::<Calibrator>(&written).unwrap(), calibrator, "reads back to the bit");
        }
        close("aurc", decision::aurc(&scores, &labels).ok(), &case["aurc"]);
    }
}

#[test]
fn isotonic_is_refused_on_a_small_dev_unless_forced() {
    let dev = sample_of(&(0..999).map(|i| (f64::from(i) / 999.0, i % 3 == 0)).collect::<Vec<_>>());
    assert!(Calibrator::fit(&dev, Method::Isotonic, false).unwrap_err().contains("1000"));
    assert!(Calibrator::fit(&dev, Method::Isotonic, true).is_ok());
    let one_class = sample_of(&[(0.1, true), (0.2, true)]);
    assert!(Calibrator::fit(&one_class, Method::Platt, false).is_err());
}

/// Table 2's rows from the integer counts they decode to: (positives, true positives, predicted) → precision, recall,
/// F1.
#[test]
fn the_papers_table_2_follows_from_its_counts() {
    let rows: [(u64, u64, u64, [&str; 3]); 6] = [
        (261, 37, 66, ["0.5606", "0.1418", "0.2263"]),
        (261, 41, 73, ["0.5616", "0.1571", "0.2455"]),
        (596, 133, 229, ["0.5808", "0.2232", "0.3224"]),
        (596, 172, 357, ["0.4818", "0.2886", "0.3610"]),
        (113, 95, 108, ["0.8796", "0.8407", "0.8597"]),
        (113, 93, 105, ["0.8857", "0.8230", "0.8532"]),
    ];
    for (positives, true_positives, predicted, want) in rows {
        let table = Confusion {
            true_positives,
            false_positives: predicted - true_positives,
            false_negatives: positives - true_positives,
            true_negatives: 0,
        };
        let ours = [table.precision(), table.recall(), table.f1()].map(|value| format!("{:.4}", value.unwrap()));
        assert_eq!(ours, want);
    }
}

#[test]
fn undefined_is_null_with_a_reason() {
    let one_class =
        evaluate(&sample_of(&[(0.2, false), (0.7, false)]), None, &Options { bootstrap: 50, ..Options::default() });
    assert_eq!((one_class.auroc.value, one_class.auroc.reason.as_deref()), (None, Some("only one class is present")));
    assert_eq!(one_class.default.recall.value, None);
    assert_eq!(one_class.default.precision.value, Some(0.0));
    let nothing_called = evaluate(&sample_of(&[(0.2, false), (0.3, true)]), None, &Options::default());
    assert_eq!((nothing_called.default.precision.value, nothing_called.default.f1.value), (None, Some(0.0)));
    let json = serde_json::to_value(&nothing_called).unwrap();
    assert!(json["tuned"].is_null());
    assert_eq!(json["default"]["precision"]["value"], Value::Null);
    assert_eq!(json["default"]["precision"]["reason"], "nothing is predicted positive");
    assert_eq!(json["judge"]["rli"]["reason"], "no judge was run");
    let empty =
        evaluate(&Sample::new(), Some(&Thresholds::default()), &Options { bootstrap: 10, ..Options::default() });
    assert!(empty.auroc.value.is_none() && empty.parsable.value.is_none() && empty.calibration.brier.value.is_none());
}

fn sample_of(rows: &[(f64, bool)]) -> Sample {
    let mut sample = Sample::new();
    for &(probability, label) in rows {
        sample.push(probability, label, Some(label), None);
    }
    sample
}

#[test]
fn intervals_do_not_depend_on_threads_and_do_depend_on_the_seed() {
    let golden: Value = golden("metrics.json");
    let options = |seed| Options { bootstrap: 300, seed, ..Options::default() };
    let samples = golden["fixtures"].as_array().unwrap().iter().map(|fixture| sample(fixture, true));
    let told = |sample: &Sample| evaluate(sample, None, &options(42)).calibration.brier.ci95.is_some();
    let sample = samples.into_iter().find(told).expect("a fixture of enough groups for an interval");
    let on = |threads: usize, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            evaluate(&sample, Some(&Thresholds::tune(&sample, threshold::Costs::default())), &options(seed))
        })
    };
    assert_eq!(on(1, 42), on(3, 42));
    assert_ne!(on(1, 42).calibration.brier.ci95, on(1, 43).calibration.brier.ci95);
}

#[test]
fn a_resample_keeps_classes_and_groups_together() {
    let mut sample = Sample::new();
    for i in 0..40 {
        let group = format!("trial {}", i / 4);
        sample.push(0.5, i < 12, None, Some(&group));
    }
    let resampler = Resampler::new(&sample, 7);
    for resample in 0..50 {
        let weights = resampler.weights(resample);
        assert_eq!(weights.iter().sum::<u32>(), 40);
        assert_eq!(weights[..12].iter().sum::<u32>(), 12, "the share of positives is kept");
        assert!(weights.chunks(4).all(|group| group.iter().all(|w| *w == group[0])), "a group is drawn whole");
    }
}

#[test]
fn a_paired_difference_finds_the_better_calls() {
    let labels: Vec<bool> = (0..200).map(|i| i % 3 == 0).collect();
    let sample = sample_of(&labels.iter().map(|&label| (0.5, label)).collect::<Vec<_>>());
    let right =
        |flip: usize| labels.iter().enumerate().map(|(i, &label)| label ^ (i % flip == 0)).collect::<Vec<bool>>();
    let good = right(20);
    let bad = right(3);
    let f1 = |calls: &[bool], weights: &[u32]| {
        Confusion::count(labels.iter().zip(calls).zip(weights).map(|((&y, &c), &w)| (y, c, w))).f1()
    };
    let statistic = Statistic::new(200, |weights| Ok(f1(&good, weights)? - f1(&bad, weights)?));
    let (difference, p) = Resampler::new(&sample, 1).differences(&[statistic], 500).swap_remove(0);
    assert!(difference.ci95.unwrap()[0] > 0.0 && p.unwrap() < 0.01, "{difference:?} {p:?}");
}

#[test]
fn bands_are_those_the_paper_prints() {
    let bands = [-0.1, 0.1, 0.3, 0.5, 0.6074, 0.8709].map(landis_koch);
    assert_eq!(bands, ["poor", "slight", "fair", "moderate", "substantial", "almost perfect"]);
}
