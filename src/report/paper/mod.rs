//! The paper's tables beside ours: paper, ours, delta.
//!
//! The paper's numbers are data, in `tables.toml`, read only to be compared with: no metric is ever computed from them.

mod ours;
mod tables;

pub use ours::{Measured, Ours, Runs, SplitCounts, Summary};
pub use tables::{PaperTable, paper_table};

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A task of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// LCD benchmark, 30 days.
    Lcd30,
    /// LCD benchmark, 90 days.
    Lcd90,
    /// CliniFact.
    Clinifact,
}

/// Records and positives of the paper's test splits.
const TEST_SPLITS: [(usize, usize, Task); 3] =
    [(7568, 261, Task::Lcd30), (7568, 596, Task::Lcd90), (394, 113, Task::Clinifact)];

impl Task {
    /// The task that a run is about: by its name, else by records and positives of its test split.
    pub fn guess(name: &str, n: usize, positives: usize) -> Option<Self> {
        let name: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        match name.as_str() {
            name if name.starts_with("clinifact") => Some(Self::Clinifact),
            name if name.starts_with("lcd") && name.contains("30") => Some(Self::Lcd30),
            name if name.starts_with("lcd") && name.contains("90") => Some(Self::Lcd90),
            _ => TEST_SPLITS
                .into_iter()
                .find(|&(records, of_1, _)| (records, of_1) == (n, positives))
                .map(|(.., task)| task),
        }
    }

    /// Whether a test split of the paper's has so many records.
    pub fn has_split_of(records: usize) -> bool {
        TEST_SPLITS.iter().any(|(of_paper, ..)| *of_paper == records)
    }

    /// Its key in `tables.toml`.
    fn key(self) -> &'static str {
        match self {
            Self::Lcd30 => "lcd30",
            Self::Lcd90 => "lcd90",
            Self::Clinifact => "clinifact",
        }
    }

    /// Its name in the paper.
    pub fn title(self) -> &'static str {
        match self {
            Self::Lcd30 => "LCD benchmark 30 days",
            Self::Lcd90 => "LCD benchmark 90 days",
            Self::Clinifact => "CliniFact",
        }
    }
}

/// One row of a table: values by column name.
type Row = BTreeMap<String, f64>;

/// The numbers of `tables.toml` that belong to one task.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    /// Table 1: records of each split.
    table1: Row,
    /// Table 2, classification: metric → method → value.
    table2: BTreeMap<String, Row>,
    /// Table 3, consistency of CLSGen's probability and text: metric → value.
    table3: Row,
    /// Table 4: metric → method → standard deviation over runs.
    table4: BTreeMap<String, Row>,
    /// Table 7, constructed explanations: status (original, generated, failed) → records of class 0 and 1.
    table7: BTreeMap<String, Row>,
    /// Caveats about the published numbers.
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

impl Paper {
    fn of(task: Task) -> Result<Self> {
        let mut all: BTreeMap<String, Self> = toml::from_str(include_str!("tables.toml"))
            .map_err(|e| Error::run(format!("the built-in paper tables do not parse: {}", e.message())))?;
        all.remove(task.key())
            .ok_or_else(|| Error::run(format!("the built-in paper tables have no entry for {}", task.key())))
    }
}
