//! Which rows read the same keys in a decoding step: the work items of `decode.cu`'s shared kernel.
//!
//! Each row's keys are cut into chunks of [`CHUNK`], from its first. Rows that have the same blocks in a chunk, and as
//! many keys in them, need those keys read once: they form an item, of at most [`QUERIES`] queries. Samples of one
//! prompt share all of its whole chunks, wherever they stand in the batch. Items are the same in every layer: planned
//! once a step.

use std::collections::HashMap;

use crate::ops::kv_store::BLOCK;

/// Keys of a chunk: those of a thread block of `decode.cu`.
pub(crate) const CHUNK: usize = 256;

/// Most queries of an item: the rows of two mma.
pub(super) const QUERIES: usize = 32;

/// Items in the order of their chunks, so that those that read the same keys run at the same time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Items {
    /// Each item's chunk, and the index of its first row among `members`; then one more, for where the last one ends.
    pub items: Vec<[u32; 2]>,
    /// Rows, item by item.
    pub members: Vec<u32>,
}

impl Items {
    /// The items of rows with these blocks (their addresses) and numbers of keys, for `group` query heads a kv head.
    pub fn new(rows: &[(&[u64], usize)], group: usize) -> Self {
        let most = (QUERIES / group.max(1)).max(1);
        let longest = rows.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let mut plan = Self::default();
        for (chunk, first) in (0..longest).step_by(CHUNK).enumerate() {
            let mut groups: Vec<Vec<u32>> = Vec::new();
            // The last group by blocks and number of keys; it may be full.
            let mut open = HashMap::new();
            for (row, (blocks, len)) in (0..).zip(rows).filter(|(_, (_, len))| *len > first) {
                let end = (*len).min(first + CHUNK);
                let last = open.entry((&blocks[first / BLOCK..end.div_ceil(BLOCK)], end)).or_insert(groups.len());
                if groups.get(*last).is_none_or(|members| members.len() == most) {
                    *last = groups.len();
                    groups.push(Vec::new());
                }
                groups[*last].push(row);
            }
            for members in groups {
                plan.items.push([chunk as u32, plan.members.len() as u32]);
                plan.members.extend(members);
            }
        }
        plan.items.push([0, plan.members.len() as u32]);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each item's chunk and rows.
    fn listed(plan: &Items) -> Vec<(u32, &[u32])> {
        plan.items.windows(2).map(|w| (w[0][0], &plan.members[w[0][1] as usize..w[1][1] as usize])).collect()
    }

    fn own(row: u64, count: usize) -> Vec<u64> {
        (0..count as u64).map(|i| 1000 * (row + 1) + i).collect()
    }

    #[test]
    fn rows_are_together_where_their_keys_are_the_same() {
        let prompt: Vec<u64> = (0..10).collect();
        let behind = |row, blocks: usize| [&prompt, own(row, blocks).as_slice()].concat();
        // Ten blocks of a prompt: two chunks and a half. Of row 2 nothing is shared; row 4 ends with the second chunk,
        // row 5 within it, and row 6 is row 0's copy.
        let blocks =
            [behind(0, 1), behind(1, 2), own(2, 5), behind(3, 1), prompt.clone(), prompt.clone(), behind(0, 1)];
        let lens = [641, 700, 257, 650, 512, 400, 641];
        let rows: Vec<_> = blocks.iter().map(Vec::as_slice).zip(lens).collect();
        let plan = Items::new(&rows, 4);
        let expected: Vec<(u32, &[u32])> = vec![
            (0, &[0, 1, 3, 4, 5, 6]),
            (0, &[2]),
            (1, &[0, 1, 3, 4, 6]),
            (1, &[2]),
            (1, &[5]),
            (2, &[0, 6]),
            (2, &[1]),
            (2, &[3]),
        ];
        assert_eq!(listed(&plan), expected);
        // Ten heads a kv head leave room for three rows.
        let plan = Items::new(&rows, 10);
        let expected: [(u32, &[u32]); 3] = [(0, &[0, 1, 3]), (0, &[2]), (0, &[4, 5, 6])];
        assert_eq!(listed(&plan)[..3], expected);
    }

    #[test]
    fn every_chunk_of_a_row_is_in_one_item() {
        let prompt: Vec<u64> = (0..110).collect();
        for (count, group) in [(1, 4), (32, 4), (33, 3), (33, 9), (33, 10), (33, 16), (40, 1)] {
            let blocks: Vec<_> = (0..count).map(|row| [&prompt, own(row, 1).as_slice()].concat()).collect();
            let rows: Vec<_> = blocks.iter().map(|blocks| (blocks.as_slice(), 7041)).collect();
            let plan = Items::new(&rows, group);
            let rows_of = |chunk| {
                let mut rows: Vec<u32> =
                    listed(&plan).iter().filter(|item| item.0 == chunk).flat_map(|item| item.1).copied().collect();
                rows.sort_unstable();
                rows
            };
            let all: Vec<u32> = (0..count as u32).collect();
            assert!((0..28).all(|chunk| rows_of(chunk) == all) && rows_of(28).is_empty(), "{count} rows");
            assert!(listed(&plan).iter().all(|item| item.1.len() * group <= QUERIES.max(group)));
            // As few as can be: the last chunk is each row's own.
            let each = (count as usize).div_ceil(QUERIES / group);
            assert_eq!(listed(&plan).len(), 27 * each + count as usize);
        }
        assert_eq!(Items::new(&[], 4).items, [[0, 0]]);
    }
}
