//! Table 7: how many records of each class were explained, and how many were not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Explained, Failure};

/// Records by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByClass {
    /// Records of class 0 (the table's `False`).
    #[serde(rename = "false")]
    pub negative: usize,
    /// Records of class 1 (the table's `True`).
    #[serde(rename = "true")]
    pub positive: usize,
}

impl ByClass {
    fn add(&mut self, label: u8) {
        *(if label == 1 { &mut self.positive } else { &mut self.negative }) += 1;
    }

    /// Both classes.
    pub fn total(&self) -> usize {
        self.negative + self.positive
    }

    /// `True / Total`, or `None` without records.
    pub fn true_share(&self) -> Option<f64> {
        (self.total() > 0).then(|| self.positive as f64 / self.total() as f64)
    }
}

/// One split's rows of Table 7, and what the trials cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// The split as it was read.
    pub original: ByClass,
    /// Records with a kept trial.
    pub generated: ByClass,
    /// Records without one.
    pub failed: ByClass,
    /// Kept records by the trial (from 1) that was kept; trial K + 1 is the rationalization.
    pub kept_at_trial: BTreeMap<usize, usize>,
    /// Failed trials by reason.
    pub failures: BTreeMap<Failure, usize>,
    /// Tokens the teacher wrote.
    pub generated_tokens: usize,
    /// Records whose document was longer than the teacher's window, so that it read a part; 0 in an older file, which
    /// did not count.
    #[serde(default)]
    pub truncated_records: usize,
    /// Tokens that they were cut by.
    #[serde(default)]
    pub truncated_tokens: usize,
}

impl Statistics {
    /// Counts one record.
    pub fn add(&mut self, label: u8, explained: &Explained) {
        self.original.add(label);
        match &explained.kept {
            Some(kept) => {
                self.generated.add(label);
                *self.kept_at_trial.entry(kept.trial).or_default() += 1;
            }
            None => self.failed.add(label),
        }
        for failure in &explained.failures {
            *self.failures.entry(*failure).or_default() += 1;
        }
        self.generated_tokens += explained.generated_tokens;
        self.truncated_records += usize::from(explained.truncated_tokens > 0);
        self.truncated_tokens += explained.truncated_tokens;
    }

    /// A sentence on the documents that did not fit; `None` where all did.
    pub fn truncation(&self) -> Option<String> {
        let (cut, of, tokens) = (self.truncated_records, self.original.total(), self.truncated_tokens);
        let told = format!(
            "{cut} of {of} documents are longer than the teacher's window and were cut, by {tokens} tokens in all"
        );
        (cut > 0).then_some(told)
    }

    /// The three rows of Table 7, as the paper prints them.
    pub fn table(&self, name: &str) -> String {
        let rows = [
            ("Original dataset", self.original),
            ("Successfully generated", self.generated),
            ("Failed to generate", self.failed),
        ];
        let line = |(status, row): (&str, ByClass)| {
            let share =
                row.true_share().map_or("–".into(), |share| format!("{:.1}%", (1000.0 * share).round() / 10.0));
            format!("| {name} | {status} | {} | {} | {share} |\n", row.negative, row.positive)
        };
        format!(
            "| Dataset | Status | False | True | True / Total |\n|---|---|---|---|---|\n{}",
            rows.map(line).concat()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::construct::Kept;

    /// The CliniFact dev rows of the paper's Table 7.
    #[test]
    fn table_7_of_clinifact_dev() {
        let mut statistics = Statistics::default();
        for (label, kept, count) in [(0, true, 219), (1, true, 65), (0, false, 14), (1, false, 18)] {
            let kept = kept.then(|| Kept { trial: 1, explanation: "x".into() });
            let explained = Explained { kept, generated_tokens: 1, ..Explained::default() };
            (0..count).for_each(|_| statistics.add(label, &explained));
        }
        let table = statistics.table("CliniFact (Dev)");
        assert!(table.contains("| Original dataset | 233 | 83 | 26.3% |"), "{table}");
        assert!(table.contains("| Successfully generated | 219 | 65 | 22.9% |"), "{table}");
        assert!(table.contains("| Failed to generate | 14 | 18 | 56.3% |"), "{table}");
    }

    #[test]
    fn documents_that_were_cut_are_counted_and_an_older_file_counts_none() {
        let mut statistics = Statistics::default();
        for truncated_tokens in [0, 7, 5] {
            statistics.add(0, &Explained { truncated_tokens, ..Explained::default() });
        }
        assert_eq!((statistics.truncated_records, statistics.truncated_tokens), (2, 12));
        let told = "2 of 3 documents are longer than the teacher's window and were cut, by 12 tokens in all";
        assert_eq!(statistics.truncation().as_deref(), Some(told));
        let mut older = serde_json::to_value(&statistics).unwrap();
        older.as_object_mut().unwrap().retain(|key, _| !key.starts_with("truncated"));
        assert_eq!(serde_json::from_value::<Statistics>(older).unwrap().truncation(), None);
    }

    #[test]
    fn an_empty_split_has_no_share() {
        assert_eq!(ByClass::default().true_share(), None);
    }
}
