//! What baselines answered: texts read, runs turned round for the metrics.

use std::path::Path;

use super::{FOLDER, file};
use crate::{
    baselines::{
        Baseline,
        prompting::{self, BaselineAnswer, BaselineRecord},
    },
    context::Context,
    data::Record,
    error::Result,
    evaluation::{
        asked_model::AskedModel,
        cnn,
        folder::{EvalRequest, Folder},
        log,
    },
    labels::Labels,
    metrics::{methods, multiclass},
    prompt::Verdict,
};

/// A baseline's answers, run by run.
pub enum BaselineRuns {
    /// Of two classes: a call, and a score where the method gives one.
    Two(Vec<methods::BinaryAnswers>),
    /// Of more: a class, and a probability of each where the method gives them.
    More(Vec<multiclass::methods::MethodRun>),
}

impl BaselineRuns {
    /// Runs of two classes.
    pub fn two(&self) -> Option<&[methods::BinaryAnswers]> {
        match self {
            Self::Two(runs) => Some(runs),
            Self::More(_) => None,
        }
    }

    /// Runs of more.
    pub fn more(&self) -> Option<&[multiclass::methods::MethodRun]> {
        match self {
            Self::Two(_) => None,
            Self::More(runs) => Some(runs),
        }
    }

    /// `runs` holds an entry a record, in the records' order.
    pub(super) fn new(labels: &Labels, runs: Vec<Vec<BaselineAnswer>>) -> Self {
        if labels.are_two() {
            return Self::Two(runs.iter().map(|run| run.iter().map(BaselineAnswer::answer).collect()).collect());
        }
        let classes = labels.count();
        let call = |run: &BaselineAnswer| run.verbalized_label.filter(|class| class.index() < classes).map(u8::from);
        let of_run = |run: Vec<BaselineAnswer>| multiclass::methods::MethodRun {
            calls: run.iter().map(call).collect(),
            probabilities: run.into_iter().map(|run| run.probabilities.filter(|p| p.len() == classes)).collect(),
        };
        Self::More(runs.into_iter().map(of_run).collect())
    }
}

/// What a text answers to the prompt of a baseline.
pub(super) fn read(baseline: Baseline, text: &str, verdict: &Verdict, labels: &Labels) -> BaselineAnswer {
    match baseline {
        Baseline::Verbalized if labels.are_two() => {
            prompting::probability(text).map(BaselineAnswer::of_probability).unwrap_or_default()
        }
        Baseline::Verbalized => {
            prompting::probabilities(text, labels).map(BaselineAnswer::of_probabilities).unwrap_or_default()
        }
        _ => BaselineAnswer { verbalized_label: prompting::label(text, verdict, labels), ..BaselineAnswer::default() },
    }
}

/// The lines' runs, turned: an entry a run, in it one a record.
pub(super) fn by_run(lines: Vec<BaselineRecord>) -> Vec<Vec<BaselineAnswer>> {
    let mut runs = vec![Vec::with_capacity(lines.len()); lines.first().map_or(0, |line| line.runs.len())];
    for line in lines {
        let mut of_line = line.runs.into_iter();
        runs.iter_mut().for_each(|run| run.push(of_line.next().unwrap_or_default()));
    }
    runs
}

/// Baselines by the files of answers that they are measured on: self-consistency votes over those of label.
const READERS: [&[Baseline]; 4] = [
    &[Baseline::Verbalized],
    &[Baseline::Label, Baseline::SelfConsistency],
    &[Baseline::TokenProbability],
    &[Baseline::Cnn],
];

/// The baselines whose answers count as they are, whatever settings made them: an earlier command finished them, and
/// this one names none of their file.
pub fn kept(context: &Context, asked: &EvalRequest, folder: &Folder) -> Vec<Baseline> {
    let is_there = |baseline: &Baseline| match baseline {
        Baseline::Cnn => folder.held(&folder.out.join(FOLDER)).is_some_and(|held| cnn::finished(context, &held) > 0),
        _ => folder.holds(&file(&folder.out, *baseline)),
    };
    of_earlier(asked, &asked.kept, true).into_iter().filter(is_there).collect()
}

/// The baselines whose runs stay: an earlier command asked them, and this one does not say how often.
pub(super) fn keeping_runs(asked: &EvalRequest) -> Vec<Baseline> {
    of_earlier(asked, &asked.keeping_runs, asked.runs.is_some())
}

/// The baselines of every file that one `among` them reads; where `alone`, of none that another reads as well.
fn of_earlier(asked: &EvalRequest, among: &[String], alone: bool) -> Vec<Baseline> {
    let named = |names: &[String], baseline: Baseline| names.iter().any(|name| name == baseline.name());
    let new = |baseline: Baseline| named(&asked.baselines, baseline) && !named(among, baseline);
    let stay = |readers: &&[Baseline]| {
        let earlier = readers.iter().any(|baseline| named(among, *baseline));
        earlier && !(alone && readers.iter().any(|baseline| new(*baseline)))
    };
    READERS.into_iter().filter(stay).flatten().copied().collect()
}

/// The runs that a file of answers was asked for.
pub(super) fn runs_of(file: &Path) -> Option<usize> {
    usize::try_from(log::made_by(file)?.get("eval.runs").as_u64()?).ok()
}

/// Says what this command gives that a baseline's answers of an earlier one, which it does not name, were not asked by.
pub(super) fn tell_kept(
    context: &Context,
    asked: Option<&AskedModel>,
    (out, baseline): (&Path, Baseline),
) -> Result<()> {
    let file = file(out, if baseline == Baseline::SelfConsistency { Baseline::Label } else { baseline });
    tell_runs(context, baseline, runs_of(&file));
    let other = asked.map(AskedModel::identity).transpose()?;
    if let (Some(other), Some(made)) = (other, log::made_by(&file))
        && *made.get("eval.baseline_model") != other
    {
        tracing::warn!(
            "{0}: its answers of an earlier command stay, which another model than eval.baseline_model gave; \
             --baselines {0} asks this one",
            baseline.name()
        );
    }
    Ok(())
}

/// Says where so many runs of a baseline stay and the command gives another number.
pub(super) fn tell_runs(context: &Context, baseline: Baseline, stay: Option<usize>) {
    let runs = context.config.eval.runs;
    let given = context.config.given.contains("eval.runs");
    if let Some(stay) = stay.filter(|stay| given && *stay != runs) {
        tracing::warn!(
            "{}: its {stay} runs of an earlier command stay: eval.runs = {runs} is of new answers",
            baseline.name()
        );
    }
}

/// The lines that a baseline is measured on, where its file in the split's folder has every record, whatever settings
/// made it; none of any other file or, under `overwrite`, of one that was changed: it is gone on with, or refused.
pub(super) fn finished(
    (out, baseline): (&Path, Baseline),
    records: &[Record],
    overwrite: bool,
) -> Result<Option<Vec<BaselineRecord>>> {
    let file = file(out, if baseline == Baseline::SelfConsistency { Baseline::Label } else { baseline });
    if log::made_by(&file).is_none() || log::lines(&file) < records.len() {
        return Ok(None);
    }
    match log::verified(&file, without_texts) {
        Err(_) if overwrite => Ok(None),
        lines => Ok(Some(lines?).filter(|lines| are_of(lines, records))),
    }
}

/// Whether there is a line for each of the records, in their order.
pub(super) fn are_of(lines: &[BaselineRecord], records: &[Record]) -> bool {
    lines.iter().map(|line| &line.id).eq(records.iter().map(|record| &record.id))
}

/// What was written stays on disk: ten answers a note would fill the memory of a large split.
pub(super) fn without_texts(line: &mut BaselineRecord) {
    line.runs.iter_mut().for_each(|run| run.text = None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Class;

    #[test]
    fn a_text_is_read_as_its_baseline_asked() {
        let two = Labels::two("no", "yes");
        let three = Labels::new(["no", "perhaps", "yes"].map(String::from).to_vec()).unwrap();
        let said = |baseline, text: &str, labels: &Labels| {
            let run = read(baseline, text, &Verdict::default(), labels);
            (run.verbalized_label.map(Class::index), run.probability, run.probabilities)
        };
        let lines = "Probability of no: 30\nProbability of perhaps: 60\nProbability of yes: 30\nProbability: 70";
        assert_eq!(said(Baseline::Verbalized, lines, &two), (Some(1), Some(0.7), None));
        assert_eq!(said(Baseline::Verbalized, lines, &three), (Some(1), None, Some(vec![0.25, 0.5, 0.25])));
        assert_eq!(said(Baseline::Verbalized, "Probability: 70", &three), (None, None, None));
        assert_eq!(said(Baseline::Label, "Classification: perhaps", &three), (Some(1), None, None));
        assert_eq!(said(Baseline::SelfConsistency, "yes", &two), (Some(1), None, None));
    }

    #[test]
    fn answers_of_more_classes_keep_their_probabilities_and_nothing_that_does_not_fit() {
        let labels = Labels::new(["a", "b", "c"].map(String::from).to_vec()).unwrap();
        let of = |shares: &[f64]| BaselineAnswer::of_probabilities(shares.to_vec());
        let line = |runs| BaselineRecord { id: "n".into(), label: None, prompt_tokens: 1, truncated_tokens: 0, runs };
        let lines =
            vec![line(vec![of(&[0.2, 0.5, 0.3]), BaselineAnswer::default()]), line(vec![of(&[0.1, 0.2, 0.3, 0.4])])];
        let BaselineRuns::More(runs) = BaselineRuns::new(&labels, by_run(lines)) else {
            panic!("more than two classes")
        };
        assert_eq!(runs[0].calls, [Some(1), None], "there is no fourth class");
        assert_eq!(runs[0].probabilities, [Some(vec![0.2, 0.5, 0.3]), None]);
        assert_eq!((runs.len(), &runs[1].calls[..]), (2, &[None, None][..]));
    }
}
