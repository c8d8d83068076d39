//! Table 7: how many records of each class were explained, and how many were not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Explained, Failure};
use crate::labels::{Class, Labels};

/// Records by class. In a file: `{"false": n, "true": n}` of two classes, as the paper's table has them, else a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct ByClass(Vec<usize>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Two {
        #[serde(rename = "false")]
        negative: usize,
        #[serde(rename = "true")]
        positive: usize,
    },
    Each(Vec<usize>),
}

impl From<Stored> for ByClass {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Two { negative, positive } => Self(vec![negative, positive]),
            Stored::Each(counts) => Self(counts),
        }
    }
}

impl From<ByClass> for Stored {
    fn from(by_class: ByClass) -> Self {
        match by_class.0[..] {
            [negative, positive] => Self::Two { negative, positive },
            _ => Self::Each(by_class.0),
        }
    }
}

impl ByClass {
    /// No record of any of these classes.
    pub fn new(labels: &Labels) -> Self {
        Self(vec![0; labels.count()])
    }

    fn add(&mut self, label: Class) {
        if let Some(count) = self.0.get_mut(label.index()) {
            *count += 1;
        }
    }

    /// The count of each class, in order.
    pub fn counts(&self) -> &[usize] {
        &self.0
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(count, more)| *count += more);
    }

    /// All classes.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Each class's share, `True / Total` among them; `None` without records.
    pub fn share(&self, class: Class) -> Option<f64> {
        let count = *self.0.get(class.index())?;
        (self.total() > 0).then(|| count as f64 / self.total() as f64)
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
    /// No record yet.
    pub fn new(labels: &Labels) -> Self {
        let none = ByClass::new(labels);
        Self { original: none.clone(), generated: none.clone(), failed: none, ..Self::default() }
    }

    /// Counts one record.
    pub fn add(&mut self, label: Class, explained: &Explained) {
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

    /// Counts the records of another part too.
    pub fn add_all(&mut self, other: &Self) {
        self.original.add_all(&other.original);
        self.generated.add_all(&other.generated);
        self.failed.add_all(&other.failed);
        for (trial, count) in &other.kept_at_trial {
            *self.kept_at_trial.entry(*trial).or_default() += count;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.generated_tokens += other.generated_tokens;
        self.truncated_records += other.truncated_records;
        self.truncated_tokens += other.truncated_tokens;
    }

    /// A sentence on the documents that did not fit; `None` where all did.
    pub fn truncation(&self) -> Option<String> {
        let cut = self.truncated_records;
        let of = self.original.total();
        let tokens = self.truncated_tokens;
        let told = format!(
            "{cut} of {of} documents are longer than the teacher's window and were cut, by {tokens} tokens in all"
        );
        (cut > 0).then_some(told)
    }

    /// The three rows of Table 7, as the paper prints them; of more than two classes a column each.
    pub fn table(&self, name: &str, labels: &Labels) -> String {
        let rows = [
            ("Original dataset", &self.original),
            ("Successfully generated", &self.generated),
            ("Failed to generate", &self.failed),
        ];
        let percent = |share: f64| format!("{:.1}%", (1000.0 * share).round() / 10.0);
        let line = |(status, row): (&str, &ByClass)| {
            let counts = row.counts().iter().map(|count| format!(" {count} |")).collect::<String>();
            let share = if labels.are_two() {
                format!(" {} |", row.share(Class::ONE).map_or("–".into(), percent))
            } else {
                String::new()
            };
            format!("| {name} | {status} |{counts}{share}\n")
        };
        let columns = if labels.are_two() {
            ["False", "True", "True / Total"].map(String::from).to_vec()
        } else {
            labels.iter().map(|label| label.replace('|', "\\|")).collect()
        };
        let rule = "|---".repeat(2 + columns.len());
        let columns = columns.join(" | ");
        format!("| Dataset | Status | {columns} |\n{rule}|\n{}", rows.map(line).concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::construct::AcceptedTrial;

    /// The CliniFact dev rows of the paper's Table 7.
    #[test]
    fn table_7_of_clinifact_dev() {
        let labels = Labels::two("FALSE", "TRUE");
        let mut statistics = Statistics::new(&labels);
        for (label, kept, count) in [(0, true, 219), (1, true, 65), (0, false, 14), (1, false, 18)] {
            let kept = kept.then(|| AcceptedTrial { trial: 1, explanation: "x".into() });
            let explained = Explained { kept, generated_tokens: 1, ..Explained::default() };
            let class = [Class::ZERO, Class::ONE][label];
            (0..count).for_each(|_| statistics.add(class, &explained));
        }
        let table = statistics.table("CliniFact (Dev)", &labels);
        assert!(table.contains("| Original dataset | 233 | 83 | 26.3% |"), "{table}");
        assert!(table.contains("| Successfully generated | 219 | 65 | 22.9% |"), "{table}");
        assert!(table.contains("| Failed to generate | 14 | 18 | 56.3% |"), "{table}");
    }

    #[test]
    fn documents_that_were_cut_are_counted_and_an_older_file_counts_none() {
        let labels = Labels::two("FALSE", "TRUE");
        let mut statistics = Statistics::new(&labels);
        for truncated_tokens in [0, 7, 5] {
            statistics.add(Class::ZERO, &Explained { truncated_tokens, ..Explained::default() });
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
        let labels = Labels::two("FALSE", "TRUE");
        assert_eq!(ByClass::new(&labels).share(Class::ONE), None);
        assert_eq!(serde_json::to_string(&ByClass::new(&labels)).unwrap(), r#"{"false":0,"true":0}"#);
    }
}
