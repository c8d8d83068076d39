//! Operating points, smooth calibration and subgroups against scikit-learn, statsmodels and scipy.

use clsgen::metrics::{
    operating::{Aim, Target, operating_points},
    smooth::{curve, smooth},
    subgroups::{Column, subgroups},
};

use super::*;

fn digits(value: &Value) -> Vec<bool> {
    value.as_str().unwrap().bytes().map(|digit| digit == b'1').collect()
}

fn records(fixture: &Value, count: usize) -> Sample {
    let rows: Vec<(f64, bool)> = floats(&fixture["p"]).into_iter().zip(digits(&fixture["y"])).take(count).collect();
    sample_of(&rows)
}

/// Equal within the digits that the file has, and 1e-7 where two minimisers meet.
#[track_caller]
fn near(what: &str, ours: Option<f64>, want: &Value) {
    match (ours, want.as_f64()) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() <= 1e-7 * b.abs() + 1e-9 => {}
        (a, b) => panic!("{what}: ours {a:?}, reference {b:?}"),
    }
}

#[test]
fn operating_points_agree_with_a_brute_force_search_and_scikit_learn() {
    let golden: Value = golden("journal.json");
    let aim = |name: &Value| match name.as_str().unwrap() {
        "sensitivity" => Aim::Sensitivity,
        "specificity" => Aim::Specificity,
        _ => Aim::AlertRate,
    };
    let targets: Vec<Target> = golden["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| Target { target: aim(&target[0]), at: target[1].as_f64().unwrap() })
        .collect();
    let fixtures = golden["fixtures"].as_array().unwrap();
    assert!(fixtures.len() >= 100);
    for (k, fixture) in fixtures.iter().enumerate() {
        let dev = records(fixture, fixture["dev"].as_u64().unwrap() as usize);
        let frozen: Vec<_> = targets.iter().map(|target| target.freeze(&dev)).collect();
        let points = operating_points(&records(fixture, usize::MAX), &frozen, &Options::default());
        for (point, want) in points.iter().zip(fixture["points"].as_array().unwrap()) {
            let place = format!("fixture {k}, {}", point.name);
            assert_eq!(point.threshold, want[0].as_f64(), "{place}");
            for (i, (key, metric)) in point.named().into_iter().enumerate() {
                near(&format!("{place}, {key}"), metric.value, &want[1][i]);
                assert!(metric.value.is_some() || metric.reason.is_some(), "{place}, {key}");
            }
        }
    }
}

#[test]
fn the_smooth_curve_agrees_with_statsmodels_on_another_basis() {
    for (k, fixture) in golden::<Value>("journal.json")["fixtures"].as_array().unwrap().iter().enumerate() {
        let sample = records(fixture, usize::MAX);
        let want = &fixture["smooth"];
        for (i, (key, metric)) in smooth(&sample, &Options::default()).named().into_iter().enumerate() {
            near(&format!("fixture {k}, {key}"), metric.value, &want["distances"][i]);
        }
        let drawn = curve(&sample, 0, 1).unwrap();
        for (i, place) in [0, 50, 100].into_iter().enumerate() {
            near(&format!("fixture {k}, the curve at {}", drawn.x[place]), Some(drawn.y[place]), &want["curve"][i]);
        }
    }
}

#[test]
fn subgroups_agree_with_scikit_learn_and_scipy() {
    let mut measured = 0;
    for (k, fixture) in golden::<Value>("journal.json")["fixtures"].as_array().unwrap().iter().enumerate() {
        let Some(want) = fixture["subgroups"].as_array() else { continue };
        measured += 1;
        let sample = records(fixture, usize::MAX);
        let names = ["zero", "one"];
        let values: Vec<Option<&str>> =
            digits(&fixture["g"]).into_iter().map(|one| Some(names[usize::from(one)])).collect();
        let found = subgroups(&sample, &[Column { name: "g", values: &values }], Ok(0.4), &Options::default());
        for (name, want) in names.into_iter().zip(want) {
            for (i, (key, metric)) in found["g"][name].own.named().into_iter().enumerate() {
                near(&format!("fixture {k}, {name}, {key}"), metric.value, &want[i]);
            }
        }
        for (i, (key, metric)) in found["g"]["zero"].difference.named().into_iter().enumerate() {
            let apart = want[0][i].as_f64().zip(want[1][i].as_f64()).map(|(zero, one)| zero - one);
            near(&format!("fixture {k}, difference of {key}"), metric.value, &apart.into());
        }
    }
    assert!(measured >= 100);
}
