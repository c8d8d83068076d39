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
    let place = match evaluation.dev_overlap {
        _ if options.in_sample => "Fitted on these very records: the values after are in-sample.".to_owned(),
        0 => "Fitted on dev only.".to_owned(),
        shared => format!(
            "Fitted on dev, which holds {shared} of these {} records: the values after are in-sample for those.",
            sample.len()
        ),
    };
    table.note(format!("{place} `predict --calibrated` applies {}.", fitted.method.name()));
    let place = Method::ALL.iter().position(|method| *method == fitted.method);
    let after = place.and_then(|place| columns.swap_remove(place)).unwrap_or_else(|| {
        let reason = fitted.chosen().err().unwrap_or_default();
        Calibration::undefined(&format!("no calibrator fits dev: {reason}"), sample.len())
    });
    evaluation.calibration.after = Some(Box::new(after.into()));
    table
}
