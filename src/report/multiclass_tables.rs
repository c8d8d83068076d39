//! The tables of K > 2 classes: every metric, and who was called what.

use super::{
    metrics_table::{add_row, in_sample_note, note_band},
    table::Table,
};
use crate::metrics::{
    Metric, direction,
    multiclass::{ClassMetrics, Evaluation},
};

/// Every metric of `evaluation` with its interval, and what is missing and why; those of the class of `eval.positive`
/// are a [`super::metrics_table`] of their own.
pub fn multiclass_table(title: &str, evaluation: &Evaluation, in_sample: bool) -> Table {
    let mut table = Table::new("metrics", title, &["Metric", "Class", "Value", "95 % CI", "n", "Note"]);
    add(&mut table, &of_all("auroc"), "", &evaluation.auroc);
    for (key, metric) in evaluation.calls.named() {
        add(&mut table, &of_all(key), "", metric);
    }
    for (name, of) in class_metrics() {
        for class in &evaluation.per_class {
            add(&mut table, name, &class.calls.label, of(class));
        }
    }
    add(&mut table, &of_all("auroc_align"), "", &evaluation.auroc_align);
    add(&mut table, name("kappa"), "", &evaluation.kappa);
    note_band(&mut table, &evaluation.kappa);
    if let Some(kappa) = &evaluation.kappa_quadratic {
        add(&mut table, name("kappa_quadratic"), "", kappa);
        note_band(&mut table, kappa);
    }
    add(&mut table, name("parsable"), "", &evaluation.parsable);
    for (name, metric) in evaluation.judge.named().into_iter().filter(|(_, metric)| metric.n > 0) {
        add(&mut table, name, "", metric);
    }
    for (key, metric) in evaluation.calibration.named() {
        add(&mut table, name(key), "", metric);
    }
    if let Some(after) = &evaluation.calibration.after {
        let after = [("brier", &after.brier_after), ("ece", &after.ece_after), ("log_loss", &after.log_loss_after)];
        for (key, metric) in after {
            add(&mut table, &format!("{}, temperature", name(key)), "", metric);
        }
    }
    let calibrated = evaluation.calibration.after.as_ref().is_some_and(|after| after.brier_after.value.is_some());
    if in_sample && calibrated {
        table.note("Values after the temperature are in-sample: it was fitted on these very records.");
    }
    // All classes have no tuned values of their own: of these the table of `eval.positive` tells.
    if let Some(note) = in_sample_note(false, evaluation.dev_overlap, evaluation.n) {
        table.note(note);
    }
    if let Some(note) = direction::note(table.rows.clone().iter().map(|row| row[0].as_str())) {
        table.note(note);
    }
    table.note(
        "A class is called where its probability is the highest, of equals the lowest. Macro: the mean over all \
         classes, one against the rest. Brier is the sum over the classes (0 to 2), ECE their mean.",
    );
    table
}

/// Records by gold class (rows) and called class (columns).
pub fn confusion_table(title: &str, evaluation: &Evaluation) -> Table {
    let called: Vec<String> = evaluation.classes.iter().map(|class| format!("Called {class}")).collect();
    let columns: Vec<&str> = std::iter::once("Is").chain(called.iter().map(String::as_str)).chain(["All"]).collect();
    let mut table = Table::new("confusion", title, &columns);
    for (class, counts) in evaluation.classes.iter().zip(&evaluation.confusion) {
        let total: u64 = counts.iter().sum();
        let counts = counts.iter().chain([&total]).map(u64::to_string);
        table.row(std::iter::once(class.clone()).chain(counts));
    }
    table
}

fn add(table: &mut Table, name: &str, class: &str, metric: &Metric) {
    add_row(table, name, class.to_owned(), metric);
}

/// A metric of one class.
type OfClass = fn(&ClassMetrics) -> &Metric;

/// What each class has, with its name in the table.
fn class_metrics() -> [(&'static str, OfClass); 5] {
    [
        ("AUROC", |class| &class.auroc),
        ("Precision", |class| &class.calls.precision),
        ("Recall", |class| &class.calls.recall),
        ("F1", |class| &class.calls.f1),
        ("AUROC-Align", |class| &class.auroc_align),
    ]
}

/// The name of a metric of all classes by its key, such as `macro.f1`.
pub(super) fn of_all(key: &str) -> String {
    let plain = key.trim_start_matches("macro.");
    let name = direction::name(plain).unwrap_or(plain);
    if plain != key || matches!(key, "auroc" | "auroc_align") { format!("{name}, macro") } else { name.to_owned() }
}

/// The name of the metric of this key.
fn name(key: &'static str) -> &'static str {
    direction::name(key).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{
        Options,
        multiclass::{Row, Sample, evaluate},
    };

    fn evaluation() -> Evaluation {
        let row = |i: usize| Row {
            probabilities: [&[0.5, 0.3, 0.2], &[0.1, 0.6, 0.3], &[0.4, 0.2, 0.4]][i % 3],
            label: (i % 3) as u8,
            verbalized: (!i.is_multiple_of(4)).then_some((i % 3) as u8),
            group: None,
        };
        let sample = Sample::new(3, (0..60).map(row)).unwrap();
        evaluate(&sample, &["lower", "same", "higher"].map(String::from), true, &Options::default())
    }

    #[test]
    fn every_class_has_its_rows_and_no_metric_lacks_a_name() {
        let table = multiclass_table("Test", &evaluation(), false);
        let rows = |name: &str| table.rows.iter().filter(|row| row[0] == name).count();
        assert_eq!([rows("Recall"), rows("F1, macro"), rows("Balanced accuracy"), rows("Log loss")], [3, 1, 1, 1]);
        assert_eq!(rows("κ (head, text), quadratic"), 1);
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        assert!(table.notes[0].starts_with("Lower is better: Brier; ECE; Log loss."), "{:?}", table.notes);
        let macro_precision = table.rows.iter().find(|row| row[0] == "Precision, macro").unwrap();
        assert!(macro_precision[5].starts_with("class higher: "), "{macro_precision:?}");
    }

    #[test]
    fn ties_stand_with_the_lowest_class() {
        let table = confusion_table("Test", &evaluation());
        assert_eq!(table.columns, ["Is", "Called lower", "Called same", "Called higher", "All"]);
        assert_eq!(table.rows[2], ["higher", "20", "0", "0", "20"]);
    }
}
