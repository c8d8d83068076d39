//! What two splits share that they should not: groups, ids and identical texts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Record;

/// Shared material between every pair of splits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LeakageReport {
    /// One entry a pair of splits, in the order given.
    pub pairs: Vec<PairLeakage>,
}

/// What one pair of splits shares. Counts are of distinct values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PairLeakage {
    /// The first split's name.
    pub a: String,
    /// The second split's name.
    pub b: String,
    /// Groups (patients, trials) found in both.
    pub shared_groups: usize,
    /// Ids found in both.
    pub shared_ids: usize,
    /// Text field → texts found in both, compared by BLAKE3 of the trimmed text.
    pub identical_texts: BTreeMap<String, usize>,
}

/// Compares every pair of splits.
pub fn leakage(splits: &[(&str, &[Record])]) -> LeakageReport {
    let _ = splits;
    todo!()
}
