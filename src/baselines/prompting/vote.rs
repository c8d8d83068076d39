//! Self-consistency (Wang et al. 2022): many runs, one verdict.

/// The verdict of a record's runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// The majority; a tie is class 0 (SPEC §6).
    pub label: u8,
    /// Share of class 1 among the parsable runs: the score that AUROC reads.
    pub share: f64,
    /// Parsable runs for class 0 and class 1.
    pub votes: [usize; 2],
}

/// Counts the runs of one record. Unparsable ones are left out, record by record; with none left there is no verdict.
///
/// ```
/// use clsgen::baselines::prompting::vote;
/// let verdict = vote(&[Some(1), None, Some(1), Some(0)]).unwrap();
/// assert_eq!((verdict.label, verdict.votes), (1, [1, 2]));
/// assert_eq!(vote(&[Some(1), Some(0)]).unwrap().label, 0);
/// assert_eq!(vote(&[None, None]), None);
/// ```
pub fn vote(runs: &[Option<u8>]) -> Option<Vote> {
    let count = |class: u8| runs.iter().filter(|run| **run == Some(class)).count();
    let votes = [count(0), count(1)];
    let parsable = votes[0] + votes[1];
    (parsable > 0).then(|| Vote {
        label: u8::from(votes[1] > votes[0]),
        share: votes[1] as f64 / parsable as f64,
        votes,
    })
}
