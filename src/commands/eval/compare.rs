//! `--compare-base`: the base model before tuning, with the same prompts, records and metrics. `--against`:
//! other predictions of the same records.

use super::Context;
use crate::{
    error::{Error, Result},
    evaluation::{
        PredictionSource, Scored,
        against::Against,
        folder::Folder,
        judge::{self, Judgement, Texts},
        run_directory::{Base, EvalJob},
    },
    metrics::{
        AnySample, Evaluation, Options, Sample, comparison::Comparison, evaluate, evaluation::Judge, multiclass, paired,
    },
    report::{
        Table,
        compare::{Sides, compare_table},
        multiclass_compare_table,
    },
    storage,
};

const AGAINST: &str = "against.metrics.json";

/// The other's own numbers, and the two side by side.
pub struct Compared {
    /// Every metric of the base, or of the other predictions.
    pub base: Evaluation,
    /// Base, tuned, difference, p.
    pub table: Table,
}

/// The job whose base can be scored; prediction files have none.
pub fn job<'a>(work: &'a PredictionSource<'_>) -> Result<&'a EvalJob> {
    match work {
        PredictionSource::Run(job) => Ok(job),
        PredictionSource::Files { .. } => {
            Err(Error::usage("--compare-base needs a run directory: a prediction file names no base model")
                .hint("leave --predictions out, or score the base's predictions by themselves"))
        }
    }
}

/// What the base is compared with, and how.
pub struct Tuned<'a> {
    pub context: &'a Context,
    pub folder: &'a Folder,
    pub job: &'a EvalJob,
    pub scored: &'a Scored,
    /// Who judges the base's texts, as it did the tuned model's.
    pub judge: Option<&'a judge::Plan>,
    /// What was said of the tuned model's.
    pub judged: Option<&'a Judgement>,
    pub options: &'a Options,
}

impl Tuned<'_> {
    /// Scores the base on the split.
    fn base(&self) -> Result<Base> {
        self.job.score_base(self.context, self.folder)
    }

    /// What the judge says of the base's texts, and how the tuned model's differ.
    fn judge(&self, base: &Base) -> Result<(Option<Judge>, Vec<Comparison>)> {
        let texts = Texts::of_base(base, self.scored);
        let judged = judge::judge_or_keep(self.judge, self.context, self.folder, texts, self.options)?;
        let pair = judged.as_ref().zip(self.judged);
        let differences =
            pair.map(|(base, tuned)| judge::differences((texts, base), (Texts::of(self.scored), tuned), self.options));
        Ok((judged.map(|judged| judged.metrics), differences.unwrap_or_default()))
    }

    /// Scores the base and compares. `base.metrics.json` holds its numbers.
    pub fn compare(&self, sample: &Sample, evaluation: &Evaluation) -> Result<Compared> {
        let base = self.base()?;
        let AnySample::Two(before) = &base.sample else { return Err(other_classes()) };
        // No thresholds: those of dev belong to the tuned model.
        let mut numbers = evaluate(before, None, self.options);
        let mut differences = paired::differences(before, sample, self.options);
        let (judge, judged) = self.judge(&base)?;
        numbers.judge = judge.unwrap_or(numbers.judge);
        differences.extend(judged);
        storage::write_json(&self.folder.out.join("base.metrics.json"), &numbers)?;
        let table = compare_table(&Sides::base(&self.scored.title), &numbers, evaluation, &differences);
        Ok(Compared { base: numbers, table })
    }

    /// The same of more than two classes.
    pub fn compare_classes(
        &self,
        sample: &multiclass::Sample,
        evaluation: &multiclass::Evaluation,
    ) -> Result<(multiclass::Evaluation, Table)> {
        let base = self.base()?;
        let AnySample::More(before) = &base.sample else { return Err(other_classes()) };
        let task = &self.context.config.task;
        let mut numbers = multiclass::evaluate(before, &task.labels, task.ordinal, self.options);
        let mut differences = multiclass::paired::differences(before, sample, &task.labels, self.options);
        let (judge, judged) = self.judge(&base)?;
        numbers.judge = judge.unwrap_or(numbers.judge);
        differences.extend(judged);
        storage::write_json(&self.folder.out.join("base.metrics.json"), &numbers)?;
        let table = multiclass_compare_table(&Sides::base(&self.scored.title), &numbers, evaluation, &differences);
        Ok((numbers, table))
    }
}

/// Compares with other predictions of the records scored. `against.metrics.json` holds their numbers.
pub fn against(
    context: &Context,
    folder: &Folder,
    against: &Against,
    (scored, sample, evaluation): (&Scored, &Sample, &Evaluation),
    options: &Options,
) -> Result<Compared> {
    let AnySample::Two(other) = against.sample(context, scored)? else { return Err(other_classes()) };
    // No thresholds: those of dev belong to the model that was scored.
    let base = evaluate(&other, None, options);
    storage::write_json(&folder.out.join(AGAINST), &base)?;
    let differences = paired::differences(&other, sample, options);
    let table = compare_table(&Sides::against(&scored.title, &against.name), &base, evaluation, &differences);
    Ok(Compared { base, table })
}

/// The same of more than two classes.
pub fn against_classes(
    context: &Context,
    folder: &Folder,
    against: &Against,
    (scored, sample, evaluation): (&Scored, &multiclass::Sample, &multiclass::Evaluation),
    options: &Options,
) -> Result<(multiclass::Evaluation, Table)> {
    let AnySample::More(other) = against.sample(context, scored)? else { return Err(other_classes()) };
    let task = &context.config.task;
    let numbers = multiclass::evaluate(&other, &task.labels, task.ordinal, options);
    storage::write_json(&folder.out.join(AGAINST), &numbers)?;
    let differences = multiclass::paired::differences(&other, sample, &task.labels, options);
    let sides = Sides::against(&scored.title, &against.name);
    let table = multiclass_compare_table(&sides, &numbers, evaluation, &differences);
    Ok((numbers, table))
}

fn other_classes() -> Error {
    Error::run("the other predictions are of another number of classes")
}
