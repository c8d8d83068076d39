//! What two splits share that they should not: groups, ids and identical texts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

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

impl PairLeakage {
    /// Whether the two splits share nothing.
    pub fn is_clean(&self) -> bool {
        self.shared_groups == 0 && self.shared_ids == 0 && self.identical_texts.values().all(|&count| count == 0)
    }
}

impl LeakageReport {
    /// Whether no pair of splits shares anything.
    pub fn is_clean(&self) -> bool {
        self.pairs.iter().all(PairLeakage::is_clean)
    }
}

/// One line a pair that shares something: `train and test share 150 groups, 91 identical texts in abstract`.
impl fmt::Display for LeakageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.pairs.iter().filter(|pair| !pair.is_clean()).map(|pair| {
            let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let texts = pair
                .identical_texts
                .iter()
                .map(|(field, &count)| (count, format!("{} in {field}", plural(count, "identical text"))));
            let counts = [
                (pair.shared_groups, plural(pair.shared_groups, "group")),
                (pair.shared_ids, plural(pair.shared_ids, "id")),
            ];
            let parts: Vec<String> =
                counts.into_iter().chain(texts).filter(|(count, _)| *count > 0).map(|(_, part)| part).collect();
            format!("{} and {} share {}", pair.a, pair.b, parts.join(", "))
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// What is compared of one split.
struct Fingerprint<'a> {
    name: &'a str,
    groups: HashSet<&'a str>,
    ids: HashSet<&'a str>,
    texts: BTreeMap<&'a str, HashSet<blake3::Hash>>,
}

impl<'a> Fingerprint<'a> {
    fn of(name: &'a str, records: &'a [Record]) -> Self {
        let mut texts: BTreeMap<&str, HashSet<blake3::Hash>> = BTreeMap::new();
        for (field, text) in records.iter().flat_map(|record| &record.fields) {
            texts.entry(field).or_default().insert(blake3::hash(text.trim().as_bytes()));
        }
        let groups = records.iter().filter_map(|record| record.group.as_deref()).collect();
        Self { name, groups, ids: records.iter().map(|record| record.id.as_str()).collect(), texts }
    }

    fn shared_with(&self, other: &Self) -> PairLeakage {
        let none = HashSet::new();
        let fields: BTreeSet<&str> = self.texts.keys().chain(other.texts.keys()).copied().collect();
        let identical = |field: &str| {
            let ours = self.texts.get(field).unwrap_or(&none);
            let theirs = other.texts.get(field).unwrap_or(&none);
            (field.to_owned(), ours.intersection(theirs).count())
        };
        PairLeakage {
            a: self.name.into(),
            b: other.name.into(),
            shared_groups: self.groups.intersection(&other.groups).count(),
            shared_ids: self.ids.intersection(&other.ids).count(),
            identical_texts: fields.into_iter().map(identical).collect(),
        }
    }
}

/// Compares every pair of splits.
pub fn leakage(splits: &[(&str, &[Record])]) -> LeakageReport {
    let prints: Vec<Fingerprint> = splits.iter().map(|(name, records)| Fingerprint::of(name, records)).collect();
    let pairs = prints.iter().enumerate().flat_map(|(i, a)| prints[i + 1..].iter().map(|b| a.shared_with(b))).collect();
    LeakageReport { pairs }
}
