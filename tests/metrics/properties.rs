//! What holds of every sample: order, symmetry, optimality of a tuned threshold.

use proptest::prelude::*;

use super::*;

fn scored() -> impl Strategy<Value = Vec<(u16, bool)>> {
    prop::collection::vec((0u16..60, any::<bool>()), 1..60)
}

fn columns(rows: &[(u16, bool)], score: impl Fn(u16) -> f64) -> (Vec<f64>, Vec<bool>) {
    rows.iter().map(|&(x, y)| (score(x), y)).unzip()
}

/// U counted pair by pair.
fn auroc_by_pairs(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let of = |class: bool| {
        scores.iter().zip(labels).filter(move |(_, y)| **y == class).map(|(x, _)| *x).collect::<Vec<f64>>()
    };
    let positive = of(true);
    let negative = of(false);
    let wins: f64 = positive
        .iter()
        .flat_map(|p| {
            negative.iter().map(move |n| {
                if p > n {
                    1.0
                } else if p == n {
                    0.5
                } else {
                    0.0
                }
            })
        })
        .sum();
    (!positive.is_empty() && !negative.is_empty()).then(|| wins / (positive.len() * negative.len()) as f64)
}

proptest! {
    #[test]
    fn auroc_counts_pairs_and_only_sees_the_order(rows in scored()) {
        let (scores, labels) = columns(&rows, |x| f64::from(x) / 60.0);
        let ours = ranking::auroc(&scores, &labels).ok();
        let want = auroc_by_pairs(&scores, &labels);
        prop_assert_eq!(ours.is_some(), want.is_some());
        prop_assert!(ours.zip(want).is_none_or(|(ours, want)| (want - ours).abs() < 1e-12), "{:?} {:?}", ours, want);
        let (warped, _) = columns(&rows, |x| (f64::from(x) * 0.3).exp());
        prop_assert_eq!(ours, ranking::auroc(&warped, &labels).ok());
        let (negated, _) = columns(&rows, |x| -f64::from(x));
        if let (Some(a), Ok(b)) = (ours, ranking::auroc(&negated, &labels)) {
            prop_assert!((a + b - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn metrics_do_not_depend_on_the_order_of_records(rows in scored(), turn in 0usize..60) {
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len());
        let of = |rows: &[(u16, bool)]| -> Vec<Outcome> {
            let (scores, labels) = columns(rows, |x| f64::from(x) / 60.0);
            let table = Confusion::at(&scores, &labels, 0.5);
            let ranked = [ranking::auroc(&scores, &labels), ranking::average_precision(&scores, &labels)];
            ranked.into_iter().chain([table.f1(), table.kappa()]).collect()
        };
        prop_assert_eq!(of(&rows), of(&turned));
    }

    #[test]
    fn kappa_is_symmetric_and_one_only_for_equal_labels(pairs in prop::collection::vec(any::<(bool, bool)>(), 1..40)) {
        let (a, b): (Vec<bool>, Vec<bool>) = pairs.into_iter().unzip();
        prop_assert_eq!(kappa(&a, &b), kappa(&b, &a));
        if let Ok(value) = kappa(&a, &b) {
            prop_assert!((-1.0..=1.0).contains(&value));
            prop_assert_eq!(value == 1.0, a == b);
        }
    }

    #[test]
    fn a_tuned_threshold_is_a_dev_probability_no_other_beats(rows in scored()) {
        let (scores, labels) = columns(&rows, |x| f64::from(x) / 60.0);
        let sample = sample_of(&scores.iter().copied().zip(labels.iter().copied()).collect::<Vec<_>>());
        if let Ok(tuned) = threshold::tune(&sample, Objective::F1) {
            prop_assert!(scores.contains(&tuned.threshold));
            for &other in &scores {
                let value = Confusion::at(&scores, &labels, other).f1().unwrap();
                prop_assert!(value < tuned.value || (value == tuned.value && other <= tuned.threshold));
            }
        }
    }

    #[test]
    fn every_record_falls_into_one_bin(rows in scored(), bins in 1usize..15) {
        let (scores, labels) = columns(&rows, |x| f64::from(x) / 59.0);
        let ones = vec![1; rows.len()];
        let rows_of = || calibration::rows(&scores, &labels, &ones);
        for bins in [calibration::equal_width(rows_of(), bins), calibration::equal_mass(rows_of(), bins)] {
            prop_assert_eq!(bins.iter().map(|bin| bin.weight).sum::<f64>(), rows.len() as f64);
        }
    }
}

#[test]
fn one_run_of_a_method_has_the_interval_that_the_models_own_auroc_has() {
    use clsgen::metrics::{
        Options, evaluate,
        methods::{BinaryAnswer, measure},
    };
    for groups in [60, 20] {
        let mut sample = clsgen::metrics::Sample::new();
        for i in 0..60 {
            let group = format!("g{}", i % groups);
            sample.push((i * 37 % 60) as f64 / 60.0, (i * 37 % 60) + (i * 11 % 30) > 50, None, Some(&group));
        }
        let run: Vec<_> =
            sample.probabilities().iter().map(|&p| Some(BinaryAnswer { score: Some(p), call: p >= 0.5 })).collect();
        let options = Options { bootstrap: 300, ..Options::default() };
        let own = evaluate(&sample, None, &options).auroc;
        assert!(own.ci95.is_some());
        assert_eq!(measure(&sample, std::slice::from_ref(&run), false, &options).auroc, own);
        assert_eq!(measure(&sample, &[run.clone(), run.clone()], false, &options).auroc, own);
        // Runs that differ keep the resampled interval of their mean.
        let mut other = run.clone();
        other[0] = Some(BinaryAnswer { score: Some(0.99), call: true });
        assert_ne!(measure(&sample, &[run, other], false, &options).auroc.ci95, own.ci95);
    }
}
