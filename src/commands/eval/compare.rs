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
        run_directory::EvalJob,
    },
    metrics::{AnyEvaluation, AnySample, Options, comparison::Comparison, evaluate, multiclass, paired},
    report::{
        Table,
        compare::{Sides, compare_table},
        multiclass_compare_table,
    },
    storage,
};

/// The other's own numbers, and the two side by side.
pub struct Compared {
    /// Every metric of the base, or of the other predictions.
    pub other: AnyEvaluation,
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

/// What was scored, for others to be compared with.
pub struct Tuned<'a> {
    pub context: &'a Context,
    pub folder: &'a Folder,
    pub scored: &'a Scored,
    pub evaluation: &'a AnyEvaluation,
    pub options: &'a Options,
}

impl Tuned<'_> {
    /// Scores the base on the split and compares; `judge` judges its texts, as it did (`judged`) the tuned model's.
    /// `base.metrics.json` holds its numbers.
    pub fn with_base(
        &self,
        job: &EvalJob,
        judge: Option<&judge::Plan>,
        judged: Option<&Judgement>,
    ) -> Result<Compared> {
        let base = job.score_base(self.context, self.folder)?;
        let (mut numbers, mut differences) = self.measure(&base.sample)?;
        let texts = Texts::of_base(&base, self.scored);
        if let Some(of_base) = judge::judge_or_keep(judge, self.context, self.folder, texts, self.options)? {
            if let Some(judged) = judged.filter(|_| judge::is_of_both(&self.folder.out)) {
                let tuned = (Texts::of(self.scored), judged);
                differences.extend(judge::differences((texts, &of_base), tuned, self.options));
            } else if judged.is_some() {
                tracing::warn!("the base's texts were judged by another judge than the model's: they are not compared");
            }
            numbers.set_judge(of_base.metrics);
        }
        self.write("base.metrics.json", numbers, &differences, &Sides::base(&self.scored.title))
    }

    /// Compares with other predictions of the records scored. `against.metrics.json` holds their numbers.
    pub fn with_predictions(&self, against: &Against) -> Result<Compared> {
        let (numbers, differences) = self.measure(&against.sample(self.context, self.scored)?)?;
        let sides = Sides::against(&self.scored.title, &against.name);
        self.write("against.metrics.json", numbers, &differences, &sides)
    }

    /// The other's numbers, and how those scored differ. No thresholds: those of dev belong to the model scored.
    fn measure(&self, other: &AnySample) -> Result<(AnyEvaluation, Vec<Comparison>)> {
        match (other, &self.scored.sample) {
            (AnySample::Two(other), AnySample::Two(sample)) => {
                let numbers = evaluate(other, None, self.options);
                Ok((AnyEvaluation::Two(Box::new(numbers)), paired::differences(other, sample, self.options)))
            }
            (AnySample::More(other), AnySample::More(sample)) => {
                let task = &self.context.config.task;
                let numbers = multiclass::evaluate(other, &task.labels, task.ordinal, self.options);
                let differences = multiclass::paired::differences(other, sample, &task.labels, self.options);
                Ok((AnyEvaluation::More(Box::new(numbers)), differences))
            }
            _ => Err(other_classes()),
        }
    }

    fn write(&self, file: &str, other: AnyEvaluation, differences: &[Comparison], sides: &Sides) -> Result<Compared> {
        storage::write_json(&self.folder.out.join(file), &other)?;
        let table = match (&other, self.evaluation) {
            (AnyEvaluation::Two(other), AnyEvaluation::Two(own)) => compare_table(sides, other, own, differences),
            (AnyEvaluation::More(other), AnyEvaluation::More(own)) => {
                multiclass_compare_table(sides, other, own, differences)
            }
            _ => return Err(other_classes()),
        };
        Ok(Compared { other, table })
    }
}

fn other_classes() -> Error {
    Error::run("the other predictions are of another number of classes")
}
