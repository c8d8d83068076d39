//! `--curve`: the paper's Fig. 1 a–c over the epochs of a run, from what dev said after each. No model is needed.

use super::{Context, inputs};
use crate::{
    error::{Error, Result},
    metrics::{Metric, Options, kappa_at_half, significance::wilson},
    report::{Table, figures::EpochMetrics, table::cell},
    train::{
        checkpoint::{DEV_PREDICTIONS, epoch_path},
        history::dev_history,
    },
};

/// Dev metrics of every epoch of the run, in order.
pub fn epochs(context: &Context, options: &Options) -> Result<Vec<EpochMetrics>> {
    let history = dev_history(&context.run_dir)?;
    if history.is_empty() {
        let message = format!("--curve: no epoch of {} has dev metrics", context.run_dir.display());
        return Err(Error::model(message).hint("give --run of a run that was trained with data.dev"));
    }
    let epochs = history.into_iter().map(|(epoch, dev)| {
        let evaluation = dev.evaluation;
        let kappa = evaluation.default.kappa.unwrap_or_else(|| Metric::undefined("not measured", 0));
        EpochMetrics {
            epoch,
            parsable: with_wilson(evaluation.parsable),
            auroc: evaluation.auroc,
            auroc_align: evaluation.auroc_align,
            kappa: with_bootstrap(context, epoch, kappa, options),
        }
    });
    Ok(epochs.collect())
}

/// The table of Fig. 1.
pub fn table(epochs: &[EpochMetrics]) -> Table {
    let mut table =
        Table::new("curve", "Dev metrics over the epochs (Fig. 1 a–c)", &["Epoch", "Parsable", "AUROC", "κ at 0.5", "AUROC-Align"]);
    for epoch in epochs {
        let cells = [&epoch.parsable, &epoch.auroc, &epoch.kappa, &epoch.auroc_align].map(cell);
        table.row(std::iter::once(epoch.epoch.to_string()).chain(cells));
    }
    table.note("95 % intervals: Wilson's for the parsable rate, DeLong's for AUROC and AUROC-Align, bootstrap for κ.");
    table
}

fn with_wilson(parsable: Metric) -> Metric {
    let interval = parsable.value.and_then(|value| wilson((value * parsable.n as f64).round() as usize, parsable.n));
    parsable.with_ci95(interval)
}

/// κ again from the checkpoint's dev predictions, with an interval; as it was where they are gone or are of another evaluation.
fn with_bootstrap(context: &Context, epoch: usize, kappa: Metric, options: &Options) -> Metric {
    let path = context.run_dir.join(epoch_path(epoch)).join(DEV_PREDICTIONS);
    let again = inputs::read(&path).and_then(|predictions| inputs::sample(&path, &predictions, None));
    let again = again.ok().map(|sample| kappa_at_half(&sample, options));
    again.filter(|again| (again.value, again.n) == (kappa.value, kappa.n)).unwrap_or(kappa)
}
