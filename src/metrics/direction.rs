//! Which way each metric is better: one table for the gate, the report and the tables.

/// Where a metric is best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Direction {
    /// The more the better: a bare bound of a gate is a floor.
    Higher,
    /// The less the better: a bare bound is a ceiling.
    Lower,
    /// Best at a value: a bare bound would say nothing.
    Near(f64),
}

/// Metrics by the last key of their path in `metrics.json`, with their names in the tables.
const DIRECTIONS: [(&str, &str, Direction); 42] = [
    ("auroc", "AUROC", Direction::Higher),
    ("auprc", "AUPRC", Direction::Higher),
    ("aurc", "AURC", Direction::Lower),
    ("f1", "F1", Direction::Higher),
    ("precision", "Precision", Direction::Higher),
    ("recall", "Recall", Direction::Higher),
    ("specificity", "Specificity", Direction::Higher),
    ("kappa", "κ (head, text)", Direction::Higher),
    ("kappa_quadratic", "κ (head, text), quadratic", Direction::Higher),
    ("cost", "Cost", Direction::Lower),
    ("auroc_align", "AUROC-Align", Direction::Higher),
    ("parsable", "Parsable", Direction::Higher),
    ("accuracy", "Accuracy", Direction::Higher),
    ("balanced_accuracy", "Balanced accuracy", Direction::Higher),
    ("rli", "RLI", Direction::Lower),
    ("rl_kappa", "κ rationale, label", Direction::Higher),
    ("readability", "Readability", Direction::Higher),
    ("unparsable", "Judge's answers unparsable", Direction::Lower),
    ("brier", "Brier", Direction::Lower),
    ("brier_skill", "Brier skill", Direction::Higher),
    ("ece", "ECE", Direction::Lower),
    ("ece_equal_mass", "ECE, equal-mass", Direction::Lower),
    ("mce", "MCE", Direction::Lower),
    ("log_loss", "Log loss", Direction::Lower),
    ("slope", "Calibration slope", Direction::Near(1.0)),
    ("intercept", "Calibration intercept", Direction::Near(0.0)),
    ("observed_expected", "Observed : expected", Direction::Near(1.0)),
    ("youden", "Youden's J", Direction::Higher),
    ("sensitivity", "Sensitivity", Direction::Higher),
    ("ppv", "PPV", Direction::Higher),
    ("npv", "NPV", Direction::Higher),
    ("alerts_per_100", "Alerts per 100", Direction::Lower),
    ("number_needed_to_evaluate", "Number needed to evaluate", Direction::Lower),
    ("ici", "ICI", Direction::Lower),
    ("e50", "E50", Direction::Lower),
    ("e90", "E90", Direction::Lower),
    ("emax", "Emax", Direction::Lower),
    ("base", "Perplexity, base", Direction::Lower),
    ("tuned", "Perplexity, tuned", Direction::Lower),
    ("ratio", "Perplexity, tuned : base", Direction::Lower),
    ("with_evidence", "Explanations with evidence", Direction::Higher),
    ("quoted_words", "Quoted words in the record", Direction::Higher),
];

/// Which way the metric at `path` of `metrics.json` is better; calibrated ones (`…_after`) as their own. A subgroup's
/// difference from the rest is best at 0, whatever it is of.
///
/// ```
/// use clsgen::metrics::direction::{Direction, of};
/// assert_eq!(of("judge.unparsable"), Some(Direction::Lower));
/// assert_eq!(of("calibration.slope_after"), Some(Direction::Near(1.0)));
/// assert_eq!(of("subgroups.sex.F.difference.auroc"), Some(Direction::Near(0.0)));
/// ```
pub fn of(path: &str) -> Option<Direction> {
    let mut keys = path.rsplit('.');
    let key = keys.next()?.trim_end_matches("_after");
    let known = DIRECTIONS.iter().find(|(name, ..)| *name == key).map(|(.., direction)| *direction);
    let of_difference = keys.next() == Some("difference");
    known.map(|direction| if of_difference { Direction::Near(0.0) } else { direction })
}

/// The name that tables give the metric of this key.
pub fn name(key: &str) -> Option<&'static str> {
    DIRECTIONS.iter().find(|(name, ..)| *name == key).map(|(_, name, _)| *name)
}

/// A sentence on those of the named rows that are not best at their highest.
pub fn note<'a>(rows: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let among = |keep: &dyn Fn(Direction) -> bool| {
        let shown =
            DIRECTIONS.iter().filter(|(_, name, direction)| keep(*direction) && rows.clone().any(|row| row == *name));
        shown.map(|(_, name, _)| *name).collect::<Vec<_>>().join("; ")
    };
    let sentence = |start: &str, names: String| (!names.is_empty()).then(|| format!("{start}: {names}."));
    let sentences: Vec<String> = [
        sentence("Lower is better", among(&|direction| direction == Direction::Lower)),
        sentence("Best at 1", among(&|direction| direction == Direction::Near(1.0))),
        sentence("Best at 0", among(&|direction| direction == Direction::Near(0.0))),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!sentences.is_empty()).then(|| sentences.join(" ") + " All others: higher is better.")
}
