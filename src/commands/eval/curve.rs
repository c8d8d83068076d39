//! `--curve`: the paper's Fig. 1 a–c over the epochs of a run, from what dev said after each. No model is needed.

use serde_json::json;

use super::{
    super::{dry_run::DryRunReport, output, run_json},
    Context, report, write_tables,
};
use crate::{
    data::Predictions,
    error::{Error, Result},
    evaluation::{folder, inputs},
    generate::scoring,
    metrics::{AnySample, Metric, Options, multiclass, parsable_and_kappa},
    model::checkpoint::read_info,
    report::{Table, figures::EpochMetrics, table::cell},
    storage,
    train::{
        checkpoint::{DEV_PREDICTIONS, epoch_path},
        history::dev_history,
    },
};

/// `--curve` of a run that has no test split to score: the table and the figure, from its epochs alone, in
/// `RUN/eval/curve/`.
pub fn alone(context: &Context, options: &Options) -> Result<()> {
    let mut context = context.clone();
    // The config need not repeat the run's classes.
    if let Ok(info) = scoring::checkpoint_dir(&context.run_dir).and_then(|dir| read_info(&dir)) {
        context.config.task.labels = info.labels;
    }
    let context = &context;
    let epochs = self::epochs(context, options)?;
    let table = self::table(&epochs, context.config.task.labels.are_two());
    folder::refuse_older(&context.run_dir.join("eval"))?;
    if context.dry_run {
        return DryRunReport::new(context, "eval")
            .with("scores", "nothing: data.test names no file, only the curve is made")
            .print(context);
    }
    let out = context.run_dir.join("eval").join("curve");
    let lock = run_json::lock(&context.run_dir)?;
    storage::create_dir_all(&out)?;
    run_json::write(context, "eval", &[], &[], lock)?;
    write_tables(&out, &[&table])?;
    let parts = report::ReportParts {
        scored: None,
        tables: std::slice::from_ref(&table),
        decisions: None,
        epochs: &epochs,
        classes: None,
    };
    report::write(context, &out, &parts, options, false)?;
    tracing::info!("data.test names no file: only the curve was made, {}", out.join("report.html").display());
    if context.json {
        output::write(&storage::json(&json!({ "curve": table }))?)
    } else {
        output::line(&table.markdown())
    }
}

/// Dev metrics of every epoch of the run, in order.
pub fn epochs(context: &Context, options: &Options) -> Result<Vec<EpochMetrics>> {
    let history = dev_history(&context.run_dir)?;
    if history.is_empty() {
        let message = format!("--curve: no epoch of {} has dev metrics", context.run_dir.display());
        return Err(Error::model(message).hint("give --run of a run that was trained with data.dev"));
    }
    let epochs = history.into_iter().map(|(epoch, dev)| {
        let evaluation = dev.evaluation;
        let kappa = evaluation.kappa().cloned().unwrap_or_else(|| Metric::undefined("not measured", 0));
        let measured = EpochMetrics {
            epoch,
            parsable: evaluation.parsable().clone(),
            auroc: evaluation.auroc().clone(),
            auroc_align: evaluation.auroc_align().clone(),
            kappa,
        };
        with_bootstrap(context, measured, options)
    });
    Ok(epochs.collect())
}

/// The table of Fig. 1.
pub fn table(epochs: &[EpochMetrics], two_classes: bool) -> Table {
    let columns = if two_classes {
        ["Epoch", "Parsable", "AUROC", "κ at 0.5", "AUROC-Align"]
    } else {
        ["Epoch", "Parsable", "AUROC, macro", "κ", "AUROC-Align, macro"]
    };
    let mut table = Table::new("curve", "Dev metrics over the epochs (Fig. 1 a–c)", &columns);
    for epoch in epochs {
        let cells = [&epoch.parsable, &epoch.auroc, &epoch.kappa, &epoch.auroc_align].map(cell);
        table.row(std::iter::once(epoch.epoch.to_string()).chain(cells));
    }
    table.note(if two_classes {
        "95 % intervals: DeLong's for AUROC and AUROC-Align, bootstrap for the parsable rate and κ (Clopper \
        and Pearson's for a rate of 0 or 1)."
    } else {
        "95 % intervals: bootstrap (Clopper and Pearson's for a rate of 0 or 1)."
    });
    table
}

/// `measured` with bootstrap intervals, from the epoch's dev predictions; as it is where those are gone or are of
/// another evaluation.
fn with_bootstrap(context: &Context, measured: EpochMetrics, options: &Options) -> EpochMetrics {
    let labels = &context.config.task.labels;
    let path = context.run_dir.join(epoch_path(measured.epoch)).join(DEV_PREDICTIONS);
    let again = Predictions::read(&[path], labels, &[]).and_then(|dev| inputs::sample(&dev, labels, None));
    let again = match again {
        Ok(AnySample::Two(sample)) => {
            let [parsable, kappa] = parsable_and_kappa(&sample, options);
            EpochMetrics { parsable, kappa, ..measured.clone() }
        }
        Ok(AnySample::More(sample)) => {
            let agreement = multiclass::evaluate_agreement(&sample, labels, options);
            EpochMetrics {
                epoch: measured.epoch,
                parsable: agreement.parsable,
                auroc: agreement.auroc,
                auroc_align: agreement.auroc_align,
                kappa: agreement.kappa,
            }
        }
        Err(_) => return measured,
    };
    let same = |of: fn(&EpochMetrics) -> &Metric| {
        let again = of(&again);
        let was = of(&measured);
        (again.value, again.n) == (was.value, was.n)
    };
    let all = same(|m| &m.parsable) && same(|m| &m.kappa) && same(|m| &m.auroc) && same(|m| &m.auroc_align);
    if all { again } else { measured }
}
