//! What `clsgen eval` measures and writes of more than two classes.
//!
//! The class that `eval.positive` names is measured against the rest besides, with all that two classes have: its
//! thresholds come from dev, its tables and figures follow those of all classes.

use serde_json::json;

use super::{Context, Outcome, Plans, compare, curve, document, journal, methods, report, report::ReportParts, save};
use crate::{
    error::Result,
    evaluation::{Scored, folder::Folder, judge, positive},
    metrics::{
        AnyEvaluation, Options, evaluate,
        multiclass::{self, Evaluation, Positive, Temperature},
    },
    progress,
    report::{Table, confusion_table, evidence_table, metrics_table, multiclass_table, perplexity_table},
};

/// Measures what was scored and writes it.
pub fn measure(
    context: &Context,
    folder: &Folder,
    plans: Plans<'_>,
    (scored, sample): (&Scored, &multiclass::Sample),
    options: &Options,
) -> Result<Outcome> {
    let labels = &context.config.task.labels;
    let measuring = progress::measuring(context.quiet, sample.len());
    let mut evaluation = multiclass::evaluate(sample, labels, context.config.task.ordinal, options);
    evaluation.dev_overlap = scored.dev_overlap;
    evaluation.perplexity = plans.perplexity.clone().map(Box::new);
    evaluation.evidence = journal::evidence(scored, options).map(Box::new);
    let calibrated = calibrated(scored, sample, options, &mut evaluation);
    let against_rest = positive(context)?.map(|class| sample.one_vs_rest(class.into()));
    let mut asked_by_journals = Vec::new();
    if let Some((class, label)) = against_rest.as_ref().zip(context.config.eval.positive.as_ref()) {
        let thresholds = scored.frozen.as_ref().map(|frozen| &frozen.thresholds);
        let mut evaluation_of = evaluate(class, thresholds, options);
        evaluation_of.dev_overlap = scored.dev_overlap;
        asked_by_journals = journal::fill(context, (scored, class), &mut evaluation_of, options);
        evaluation.positive = Some(Box::new(Positive { label: label.clone(), evaluation: evaluation_of }));
    } else {
        journal::undefined(context, &mut evaluation);
    }
    drop(measuring);
    let texts = judge::Texts::of(scored);
    let judged = judge::judge_or_keep(plans.judge.as_ref(), context, folder, texts, options)?;
    if let Some(judged) = &judged {
        evaluation.judge = judged.metrics.clone();
    }
    let others = match &plans.baselines {
        Some(plan) => {
            let answered = plan.run(context, &folder.out)?;
            methods::score_classes(&answered, &folder.out, (scored, sample), (labels, &evaluation), options)?
        }
        None => methods::Outcome::default(),
    };
    let base = match plans.comparable {
        Some(job) => {
            let judge = plans.judge.as_ref();
            let tuned = compare::Tuned { context, folder, job, scored, judge, judged: judged.as_ref(), options };
            Some(tuned.compare_classes(sample, &evaluation)?)
        }
        None => None,
    };
    let against = match &plans.against {
        Some(against) => {
            Some(compare::against_classes(context, folder, against, (scored, sample, &evaluation), options)?)
        }
        None => None,
    };
    let epochs = if plans.asked.curve { curve::epochs(context, options)? } else { Vec::new() };
    let curve = plans.asked.curve.then(|| curve::table(&epochs, false));

    let mut tables = vec![multiclass_table(&scored.title, &evaluation), confusion_table(&scored.title, &evaluation)];
    tables.extend(evaluation.positive.as_ref().map(|positive| {
        let title = format!("{}: {} against the rest", scored.title, positive.label);
        Table { name: "metrics_positive".into(), ..metrics_table(&title, &positive.evaluation, options.in_sample) }
    }));
    tables.extend(evaluation.evidence.iter().map(|evidence| evidence_table(&scored.title, evidence)));
    tables.extend(plans.perplexity.iter().map(perplexity_table));
    tables.extend(curve.clone());
    tables.extend(base.iter().chain(&against).map(|(_, table)| table.clone()));
    tables.extend(others.tables);
    let mut all = tables.clone();
    all.extend(asked_by_journals);
    all.extend(report::leakage(&context.config, &scored.fields));

    let evaluation = AnyEvaluation::More(Box::new(evaluation));
    let beside = [
        ("compare", base.as_ref().map(|(base, table)| json!({ "base": base, "table": table }))),
        ("against", against.as_ref().map(|(other, table)| json!({ "other": other, "table": table }))),
        ("baselines", others.described),
        ("curve", curve.as_ref().map(|curve| json!(curve))),
        ("paper", None),
    ];
    let document = document(&evaluation, beside)?;
    let against_rest = against_rest.as_ref();
    let classes = Some(report::Classes { sample, calibrated: calibrated.as_ref(), against_rest });
    let scored = Some((scored, &evaluation));
    let parts = ReportParts { scored, tables: &all, decisions: None, epochs: &epochs, classes };
    save(context, folder, &evaluation, against_rest, parts, options, plans.include_text)?;
    folder.finish(context, &plans.asked)?;
    let base = base.map(|(base, _)| AnyEvaluation::More(Box::new(base)));
    Ok(Outcome { evaluation, base, curve, tables, document })
}

/// Fills `calibration.*_after` and gives the calibrated sample, where a temperature was fitted on dev.
fn calibrated(
    scored: &Scored,
    sample: &multiclass::Sample,
    options: &Options,
    evaluation: &mut Evaluation,
) -> Option<multiclass::Sample> {
    let fitted = scored.calibration.as_ref()?;
    let Some(temperature) = fitted.temperature() else {
        let reason = format!("no calibrator fits dev: {}", fitted.chosen().err().unwrap_or_default());
        let after = multiclass::Calibration::undefined(&reason, evaluation.n);
        evaluation.calibration.after = Some(Box::new(after.into()));
        return None;
    };
    let calibrated = Temperature { temperature }.apply_all(sample);
    let after = multiclass::evaluate_calibration(&calibrated, options);
    evaluation.calibration.after = Some(Box::new(after.into()));
    Some(calibrated)
}
