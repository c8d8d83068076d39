//! Records that belong together: those of one group, and each record without a group by itself.

use std::collections::HashMap;

/// The cluster of every record, numbered from 0 in the order they are met.
#[derive(Debug, Clone, Default)]
pub struct Clusters {
    of: Vec<u32>,
    names: HashMap<String, u32>,
    count: u32,
}

impl Clusters {
    /// Adds a record of this group; without one it is a cluster of its own.
    pub fn push(&mut self, group: Option<&str>) {
        let next = self.count;
        let cluster = group.map_or(next, |name| *self.names.entry(name.to_owned()).or_insert(next));
        self.count += u32::from(cluster == next);
        self.of.push(cluster);
    }

    /// The cluster of each record.
    pub fn of(&self) -> &[u32] {
        &self.of
    }

    /// Number of clusters.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Number of clusters among the records that `keep` picks.
    pub fn among(&self, keep: impl Fn(usize) -> bool) -> usize {
        let mut seen = vec![false; self.count()];
        (0..self.of.len()).filter(|&i| keep(i)).for_each(|i| seen[self.of[i] as usize] = true);
        seen.into_iter().filter(|&seen| seen).count()
    }

    /// The records of each cluster, ascending.
    pub fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.count()];
        for (i, &cluster) in self.of.iter().enumerate() {
            members[cluster as usize].push(i as u32);
        }
        members
    }
}
