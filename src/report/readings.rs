//! What each metric means, in words a clinician reads.

use serde::Serialize;

use super::table::{interval, number, telling};
use crate::metrics::{
    Evaluation, Metric,
    agreement::landis_koch,
    direction::{self, Direction},
    multiclass,
};

/// A metric with its plain reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The reader's question that it answers; readings of one stand together.
    pub about: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Its 95 % interval.
    pub interval: Option<String>,
    /// What that means.
    pub sentence: String,
}

/// Does the probability rank records rightly?
const APART: &str = "Does it tell them apart?";
/// What calling by it gets wrong.
const FAILS: &str = "Where does it fail?";
/// Whether a probability can be taken at its word.
const SURE: &str = "How sure can one be of a probability?";
/// Whether text and probability say the same.
const TEXT: &str = "Does the explanation say the same?";

/// The metrics that matter most, in the order one reads them.
pub fn readings(evaluation: &Evaluation) -> Vec<Reading> {
    let default = &evaluation.default;
    let mut readings = vec![
        read(APART, "AUROC", &evaluation.auroc, |v| {
            format!(
                "Given one positive and one negative record, the positive one gets the higher probability {} times. \
                Chance is 50.",
                of_100(v)
            )
        }),
        read(APART, "Average precision", &evaluation.auprc, |_| {
            "Mean precision over all levels of recall. Compare it with the share of positives, which calling at \
            random reaches."
                .to_owned()
        }),
        read(FAILS, "Recall at 0.5", &default.recall, |v| {
            format!("Of 100 positive records, {} are called positive, {} are missed.", whole(v), whole(1.0 - v))
        }),
        read(FAILS, "Precision at 0.5", &default.precision, |v| {
            format!("Of 100 records called positive, {} are positive, {} false alarms.", whole(v), whole(1.0 - v))
        }),
        read(FAILS, "F1 at 0.5", &default.f1, |_| {
            "Balance of precision and recall: 1 is perfect, 0 finds nothing.".to_owned()
        }),
    ];
    if let Some(tuned) = &evaluation.tuned {
        let threshold = tuned.f1.threshold.map_or_else(|| "–".to_owned(), |threshold| telling(threshold, &[0.5]));
        readings.push(read(FAILS, "F1, tuned", &tuned.f1.f1, |_| {
            format!("The same when called positive from {threshold} on, the best threshold on dev.")
        }));
    }
    readings.push(read(SURE, "Brier score", &evaluation.calibration.brier, |_| {
        "Mean squared distance of the probability from what was true: 0 is perfect, 0.25 is always saying 50 %."
            .to_owned()
    }));
    readings.push(read(SURE, "Calibration error (ECE)", &evaluation.calibration.ece, |v| {
        format!("Probabilities are off by {:.1} percentage points on average.{}", v * 100.0, better("ece"))
    }));
    if let Some(smooth) = &evaluation.calibration.smooth {
        readings.push(read(SURE, "Smooth calibration (ICI)", &smooth.ici, |v| {
            format!(
                "A probability lies {:.1} percentage points from the smooth calibration curve on average.{}",
                v * 100.0,
                better("ici")
            )
        }));
    }
    if let Some(after) = &evaluation.calibration.after {
        readings.push(read(SURE, "ECE after calibration", &after.ece_after, |v| {
            format!("After a calibrator fitted on dev they are off by {:.1} points.", v * 100.0)
        }));
    }
    readings.push(read(SURE, "Risk–coverage (AURC)", &evaluation.aurc, |v| {
        format!(
            "If the model answers only where it is surest, at first a few records and in the end all, {:.1} of 100 \
            answers are wrong on \
             average over the way.{}",
            v * 100.0,
            better("aurc")
        )
    }));
    readings.push(parsable(&evaluation.parsable));
    readings.push(read(TEXT, "AUROC-Align", &evaluation.auroc_align, |v| {
        format!(
            "A record whose text says positive gets a higher probability than one whose text says negative {} times.",
            of_100(v)
        )
    }));
    if let Some(kappa) = &default.kappa {
        readings.push(read(TEXT, "Cohen's κ, head and text", kappa, |v| {
            format!(
                "Probability (at 0.5) and text agree beyond chance: {} in the words of Landis and Koch.",
                landis_koch(v)
            )
        }));
    }
    readings.extend((evaluation.judge.rli.n > 0).then(|| inconsistency(&evaluation.judge.rli)));
    readings
}

/// The same of more than two classes.
pub fn class_readings(evaluation: &multiclass::Evaluation) -> Vec<Reading> {
    let means = &evaluation.calls.macro_mean;
    let mut readings = vec![
        read(APART, "Accuracy", &evaluation.calls.accuracy, |v| {
            format!("Of 100 records, the class of the highest probability is right for {}.", whole(v))
        }),
        read(APART, "Balanced accuracy", &evaluation.calls.balanced_accuracy, |v| {
            format!("The same were every class equally frequent: {} of 100.", whole(v))
        }),
        read(APART, "AUROC, mean over classes", &evaluation.auroc, |v| {
            format!(
                "Given a record of a class and one of another, the first gets that class's higher probability {} \
                times. Chance is 50.",
                of_100(v)
            )
        }),
        read(APART, "F1, mean over classes", &means.f1, |_| {
            "Balance of precision and recall of each class against the rest: 1 is perfect, 0 finds nothing.".to_owned()
        }),
        read(SURE, "Brier score", &evaluation.calibration.brier, |_| {
            "Squared distance of the probabilities from what was true, summed over classes: 0 is perfect, 2 is sure \
            and wrong."
                .to_owned()
        }),
        read(SURE, "Calibration error (ECE)", &evaluation.calibration.ece, |v| {
            format!("A class's probability is off by {:.1} percentage points on average.{}", v * 100.0, better("ece"))
        }),
    ];
    if let Some(after) = &evaluation.calibration.after {
        readings.push(read(SURE, "ECE after calibration", &after.ece_after, |v| {
            format!("With the temperature fitted on dev they are off by {:.1} points.", v * 100.0)
        }));
    }
    readings.push(parsable(&evaluation.parsable));
    readings.push(read(TEXT, "AUROC-Align, mean over classes", &evaluation.auroc_align, |v| {
        format!(
            "A record whose text names a class gets a higher probability of it than one whose text names another {} \
            times.",
            of_100(v)
        )
    }));
    readings.push(read(TEXT, "Cohen's κ, head and text", &evaluation.kappa, |v| {
        format!(
            "The class called and the text's agree beyond chance: {} in the words of Landis and Koch.",
            landis_koch(v)
        )
    }));
    readings.extend((evaluation.judge.rli.n > 0).then(|| inconsistency(&evaluation.judge.rli)));
    readings
}

fn parsable(metric: &Metric) -> Reading {
    read(TEXT, "Parsable texts", metric, |v| {
        format!(
            "Of 100 generated texts, {} end in a verdict that can be read. The agreement figures are over those.",
            whole(v)
        )
    })
}

fn inconsistency(rli: &Metric) -> Reading {
    read(TEXT, "Rationale–label inconsistency", rli, |v| {
        format!(
            "Of 100 explanations, {} argue for another label than the one they end in, says the judge.{}",
            whole(v),
            better("rli")
        )
    })
}

fn read(about: &'static str, name: &'static str, metric: &Metric, sentence: impl Fn(f64) -> String) -> Reading {
    let undefined = || format!("Undefined: {}.", metric.reason.as_deref().unwrap_or("no reason given"));
    Reading {
        about,
        name,
        value: number(metric.value),
        interval: metric.ci95.map(|ci95| interval(Some(ci95))),
        sentence: metric.value.map_or_else(undefined, sentence),
    }
}

/// Which way is better, where that is not up.
fn better(key: &str) -> &'static str {
    if direction::of(key) == Some(Direction::Lower) { " Lower is better." } else { "" }
}

/// A share as a count of a hundred.
fn whole(share: f64) -> String {
    format!("{:.0}", share * 100.0)
}

fn of_100(share: f64) -> String {
    format!("{} of 100", whole(share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Options, Sample, evaluate};

    #[test]
    fn every_reading_says_something_and_what_is_undefined_says_why() {
        let mut sample = Sample::new();
        [(0.9, true, Some(true)), (0.2, false, Some(false)), (0.7, true, None)]
            .into_iter()
            .for_each(|(p, y, v)| sample.push(p, y, v, None));
        let all = readings(&evaluate(&sample, None, &Options::default()));
        let auroc = &all[0];
        assert_eq!((auroc.name, auroc.value.as_str()), ("AUROC", "1.0000"));
        assert!(auroc.sentence.contains("100 of 100"));
        let labels = ["a", "b", "c"].map(String::from);
        let row = |label| multiclass::Row { probabilities: &[0.2, 0.3, 0.5], label, verbalized: Some(2), group: None };
        let three = multiclass::Sample::new(3, [0, 2].map(row).into_iter()).unwrap();
        let all = class_readings(&multiclass::evaluate(&three, &labels, false, &Options::default()));
        assert!(all[0].sentence.contains("right for 50"), "{}", all[0].sentence);
        let none = multiclass::Sample::new(3, std::iter::empty()).unwrap();
        let mut nothing = class_readings(&multiclass::evaluate(&none, &labels, false, &Options::default()));
        nothing.extend(readings(&evaluate(&Sample::new(), None, &Options::default())));
        assert!(
            nothing.iter().all(|reading| reading.sentence.starts_with("Undefined: ") && reading.value == "–"),
            "{nothing:?}"
        );
    }
}
