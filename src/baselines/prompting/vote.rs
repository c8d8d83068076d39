//! Self-consistency (Wang et al. 2022): many runs, one verdict.

use super::BaselineAnswer;
use crate::labels::{Class, Labels};

/// The verdict of a record's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    /// The majority; a tie is the lowest of its classes.
    pub label: Class,
    /// Parsable runs for each class.
    pub votes: Vec<usize>,
}

impl Vote {
    /// Share of a class among the parsable runs.
    pub fn share(&self, class: Class) -> f64 {
        self.votes.get(class.index()).map_or(0.0, |&votes| votes as f64 / self.votes.iter().sum::<usize>() as f64)
    }

    /// The vote as a run of its own: the shares are the scores that AUROC reads, of two classes class 1's.
    pub fn run(&self, labels: &Labels) -> BaselineAnswer {
        let verbalized_label = Some(self.label);
        if labels.are_two() {
            BaselineAnswer { probability: Some(self.share(Class::ONE)), verbalized_label, ..BaselineAnswer::default() }
        } else {
            let shares = labels.classes().map(|class| self.share(class)).collect();
            BaselineAnswer { probabilities: Some(shares), verbalized_label, ..BaselineAnswer::default() }
        }
    }
}

/// Counts the runs of one record. Unparsable ones are left out, record by record; with none left there is no verdict.
///
/// ```
/// use clsgen::{baselines::prompting::vote, labels::{Class, Labels}};
/// let (labels, one, zero) = (Labels::two("no", "yes"), Some(Class::ONE), Some(Class::ZERO));
/// let verdict = vote(&[one, None, one, zero], &labels).unwrap();
/// assert_eq!((verdict.label, verdict.votes), (Class::ONE, vec![1, 2]));
/// assert_eq!(vote(&[one, zero], &labels).unwrap().label, Class::ZERO);
/// assert_eq!(vote(&[None, None], &labels), None);
/// ```
pub fn vote(runs: &[Option<Class>], labels: &Labels) -> Option<Vote> {
    let count = |class: Class| runs.iter().filter(|run| **run == Some(class)).count();
    let votes: Vec<usize> = labels.classes().map(count).collect();
    let label = Class::of_largest(votes.iter().map(|&votes| votes as f64));
    (votes.iter().sum::<usize>() > 0).then_some(Vote { label, votes })
}
