//! The scored split's calibration, before and after each calibrator that dev fitted.

use crate::{
    evaluation::calibration::Fitted,
    metrics::{Calibration, Evaluation, Options, Sample, calibrators::Method, evaluate_calibration},
    report::{Table, table::cell},
};

/// Fills `calibration.*_after` and gives the table of every method beside the model's own probabilities.
pub fn score(fitted: &Fitted, sample: &Sample, options: &Options, evaluation: &mut Evaluation) -> Table {
    let mut table = Table::new(
        "calibration",
        "Calibration, before and after",
        &["Metric", "Model", "Temperature", "Platt", "Isotonic"],
    );
    let mut columns: Vec<Option<Calibration>> = Vec::new();
    for method in Method::ALL {
        let calibrator = fitted.methods.get(&method).and_then(|fit| fit.calibrator.as_ref());
        columns.push(calibrator.map(|calibrator| evaluate_calibration(&calibrator.apply_all(sample), options)));
    }
    for (row, (name, own)) in evaluation.calibration.named().into_iter().enumerate() {
        let after = columns
            .iter()
            .map(|column| column.as_ref().map_or_else(|| "–".to_owned(), |column| cell(column.named()[row].1)));
        table.row([name.to_owned(), cell(own)].into_iter().chain(after));
    }
    for (method, fit) in &fitted.methods {
        if let Some(reason) = &fit.reason {
            table.note(format!("{}: not fitted, {reason}.", method.name()));
        }
    }
    table.note(
        "95 % intervals in parentheses, over the same resamples in every column; the calibrators are held fixed.",
    );
    let place = if options.in_sample {
        "Fitted on these very records: the values after are in-sample."
    } else {
        "Fitted on dev only."
    };
    table.note(format!("{place} `predict --calibrated` applies {}.", fitted.method.name()));
    let chosen =
        Method::ALL.iter().zip(columns).find(|(method, _)| **method == fitted.method).and_then(|(_, column)| column);
    evaluation.calibration.after = chosen.map(|calibration| Box::new(calibration.into()));
    table
}
