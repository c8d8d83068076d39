//! Answers that name a class or none, over runs: what a baseline says, and the model's own arg max.
//!
//! Over several runs each number is the mean over the runs in which it is defined; its interval resamples records
//! (clusters), the runs held fixed, as [`crate::metrics::methods`] has it.

use super::{
    Averages, ClassCalls, Confusion, MacroMeans, Sample,
    confusion::{ClassOutcome, of_class},
};
use crate::metrics::{
    Metric, Outcome,
    bootstrap::Statistic,
    classification,
    methods::{mean, note_left_out},
};

/// One run's calls: the class that it names of each record, in the records' order; `None`: unparsable.
pub type ClassAnswers = Vec<Option<u8>>;

/// A run's calls by gold class. An answer that names no class is wrong for accuracy and a miss for its gold class.
pub(super) fn table(sample: &Sample, answers: &[Option<u8>], weights: &[u32]) -> Confusion {
    let rows = sample.labels().iter().zip(answers).zip(weights);
    Confusion::count(sample.classes(), rows.map(|((&gold, &answer), &weight)| (gold, answer, weight)))
}

/// What each class has, one against the rest.
const OF_CLASS: [fn(&classification::Confusion) -> Outcome; 3] =
    [classification::Confusion::precision, classification::Confusion::recall, classification::Confusion::f1];

/// Statistics before those of the classes: accuracy, balanced accuracy, three macro means.
const AVERAGES: usize = 5;

/// Runs of answers and the records they are of.
#[derive(Clone, Copy)]
pub(super) struct Scored<'a> {
    pub(super) sample: &'a Sample,
    pub(super) runs: &'a [&'a ClassAnswers],
}

impl<'a> Scored<'a> {
    /// The statistics of one run: [`AVERAGES`], then [`OF_CLASS`] of each class; where a macro mean is undefined, for
    /// which class.
    fn of_run(&self, run: &[Option<u8>], weights: &[u32]) -> Vec<ClassOutcome> {
        let table = table(self.sample, run, weights);
        let whole = |k: usize, outcome: Outcome| outcome.map_err(|why| (k, why));
        let recall = table.macro_mean(classification::Confusion::recall);
        let precision = table.macro_mean(classification::Confusion::precision);
        let f1 = table.macro_mean(classification::Confusion::f1);
        let mut outcomes = vec![whole(0, table.accuracy()), recall, precision, recall, f1];
        for k in 0..self.sample.classes() {
            let class = table.one_vs_rest(k);
            outcomes.extend(OF_CLASS.map(|statistic| whole(k, statistic(&class))));
        }
        outcomes
    }

    /// Clusters in the denominators of the statistics that are proportions. Of several runs, the one that calls the
    /// fewest clusters of a class tells least.
    fn proportions(&self) -> Vec<Option<usize>> {
        let clusters = self.sample.grouping();
        let mut proportions = vec![None; AVERAGES];
        proportions[0] = Some(clusters.count());
        for class in 0..self.sample.classes() as u8 {
            let called = self.runs.iter().map(|run| clusters.among(|i| run[i] == Some(class)));
            let precision = called.filter(|&clusters| clusters > 0).min().unwrap_or(0);
            let recall = clusters.among(|i| self.sample.labels()[i] == class);
            proportions.extend([Some(precision), Some(recall), None]);
        }
        proportions
    }

    /// All of them, means over the runs.
    pub(super) fn statistic(self) -> Statistic<'a> {
        let count = AVERAGES + OF_CLASS.len() * self.sample.classes();
        let means = move |weights: &[u32]| {
            let runs: Vec<Vec<ClassOutcome>> = self.runs.iter().map(|run| self.of_run(run, weights)).collect();
            (0..count).map(|k| mean(runs.iter().map(|run| run[k].map_err(|(_, why)| why)))).collect()
        };
        Statistic::many(self.sample.len(), means).proportions_of(self.proportions())
    }

    /// The metrics of [`Scored::statistic`], from their values in its order.
    pub(super) fn take(
        &self,
        names: &[String],
        measured: &mut impl Iterator<Item = Metric>,
    ) -> (Averages, Vec<ClassCalls>) {
        let ones = vec![1; self.sample.len()];
        let runs: Vec<Vec<ClassOutcome>> = self.runs.iter().map(|run| self.of_run(run, &ones)).collect();
        let mut k = 0;
        let mut next = || {
            let undefined: Vec<(usize, &'static str)> = runs.iter().filter_map(|run| run[k].err()).collect();
            let averaged = (1..AVERAGES).contains(&k);
            k += 1;
            noted(measured.next().unwrap_or_default(), &undefined, runs.len(), averaged.then_some(names))
        };
        let accuracy = next();
        let balanced_accuracy = next();
        let macro_mean = MacroMeans { precision: next(), recall: next(), f1: next() };
        let counts = self.sample.class_counts();
        let class = |(label, n): (&String, usize)| ClassCalls {
            label: label.clone(),
            n,
            precision: next(),
            recall: next(),
            f1: next(),
        };
        let per_class = names.iter().zip(counts).map(class).collect();
        (Averages { accuracy, balanced_accuracy, macro_mean }, per_class)
    }
}

/// Says of a mean over `runs` runs in which of them it is undefined; with `names`, for which class.
pub(super) fn noted(
    mut metric: Metric,
    undefined: &[(usize, &'static str)],
    runs: usize,
    names: Option<&[String]>,
) -> Metric {
    let Some(&first) = undefined.first() else { return metric };
    let why = names.map_or_else(|| first.1.to_owned(), |names| of_class(first, names));
    if metric.value.is_some() {
        note_left_out(&mut metric, undefined.len(), runs, &why);
    } else {
        metric.reason = Some(why);
    }
    metric
}
