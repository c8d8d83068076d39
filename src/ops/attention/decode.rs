//! Paged decoding attention: one query token a row against its cached keys and values (split-KV, as in Flash-Decoding).
//!
//! Keys and values are read once for all query heads of a kv head, and once for all neighbouring rows whose block
//! tables begin with the same blocks (a *prefix group*: samples of one prompt). The keys of a row are cut into *splits*
//! of 512. A task is one split, of one kv head, for the rows of one prefix group; it yields for each query the maximum
//! score, the sum of exponentials and the weighted sum of values. The splits of a row are then merged in order. No sum
//! runs over several queries, so the bits depend neither on what is shared, nor on the other rows, nor on threads.
//! Groups and splits are the same in every layer: [`KvSplitPlan`] is made once a step.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{Tensor, TensorId};

use super::Dims;
use super::pv::pv;
use super::score::{prefetch, score};
use crate::ops::cpu::simd::{LANES, exp, max, sum, vectorised};
use crate::ops::cpu::slice::Weight;
use crate::ops::cpu::thread_team;
use crate::ops::kv_store::{BLOCK, PagedSequence};

/// Keys of a split, a whole number of blocks.
const SPLIT: usize = 512;

/// Most rows of a prefix group: larger ones would leave threads without a task.
const MAX_GROUP_ROWS: usize = 8;

/// The splits of a decoding step's rows: for each of them one task a kv head and layer.
#[derive(Debug)]
pub(crate) struct KvSplitPlan<'a> {
    /// The distinct blocks of all rows.
    pub blocks: Vec<&'a Tensor>,
    splits: Vec<KvSplit>,
    /// For each row its splits in order, each with the row's index in [`KvSplit::rows`].
    of_row: Vec<Vec<(usize, usize)>>,
}

/// Up to 512 keys of the rows of a prefix group; rows that are too short to have keys here are left out.
#[derive(Debug)]
struct KvSplit {
    rows: Vec<usize>,
    /// Number of keys of each row in this split.
    lengths: Vec<usize>,
    /// Its blocks by ascending position.
    split_blocks: Vec<SplitBlock>,
}

/// Keys of one block within a split, for the neighbouring rows that share the block.
#[derive(Debug)]
struct SplitBlock {
    /// Indices into [`KvSplit::rows`].
    places: Range<usize>,
    block: usize,
    /// Index in the split of its first key.
    start: usize,
    count: usize,
}

impl<'a> KvSplitPlan<'a> {
    pub fn new(rows: &[PagedSequence<'a>]) -> Self {
        let mut blocks = Vec::new();
        let mut numbers = HashMap::<TensorId, usize>::new();
        let mut number = |block: &'a Tensor| {
            *numbers.entry(block.id()).or_insert_with(|| {
                blocks.push(block);
                blocks.len() - 1
            })
        };
        let numbered: Vec<Vec<usize>> = rows
            .iter()
            .map(|row| row.blocks.iter().take(row.len.div_ceil(BLOCK)).map(|block| number(block)).collect())
            .collect();
        let mut splits = Vec::new();
        let mut of_row = vec![Vec::new(); rows.len()];
        for group in prefix_groups(&numbered) {
            let longest = rows[group.clone()].iter().map(|row| row.len).max().unwrap_or(0);
            for first in (0..longest).step_by(SPLIT) {
                let here: Vec<usize> = group.clone().filter(|&row| rows[row].len > first).collect();
                here.iter().enumerate().for_each(|(place, &row)| of_row[row].push((splits.len(), place)));
                let lengths: Vec<usize> = here.iter().map(|&row| SPLIT.min(rows[row].len - first)).collect();
                let split_blocks = split_blocks(&numbered, &here, &lengths, first);
                splits.push(KvSplit { rows: here, lengths, split_blocks });
            }
        }
        Self { blocks, splits, of_row }
    }
}

/// Ranges of neighbouring rows whose block tables begin with the same block.
fn prefix_groups(rows: &[Vec<usize>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for row in 0..rows.len() {
        match groups.last_mut() {
            Some(group) if group.len() < MAX_GROUP_ROWS && rows[group.start].first() == rows[row].first() => {
                group.end += 1
            }
            _ => groups.push(row..row + 1),
        }
    }
    groups
}

/// The blocks of the split that begins at key `first` of the rows `here`, which have `lengths` keys in it.
fn split_blocks(blocks: &[Vec<usize>], here: &[usize], lengths: &[usize], first: usize) -> Vec<SplitBlock> {
    let mut split_blocks: Vec<SplitBlock> = Vec::new();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    for start in (0..longest).step_by(BLOCK) {
        let from = split_blocks.len();
        for (place, (&row, length)) in here.iter().zip(lengths).enumerate().filter(|(_, (_, length))| **length > start)
        {
            let block = blocks[row][(first + start) / BLOCK];
            let count = BLOCK.min(length - start);
            match split_blocks[from..].last_mut() {
                Some(split_block)
                    if split_block.places.end == place && (split_block.block, split_block.count) == (block, count) =>
                {
                    split_block.places.end += 1
                }
                _ => split_blocks.push(SplitBlock { places: place..place + 1, block, start, count }),
            }
        }
    }
    split_blocks
}

/// Partial softmax of one split and kv head for all of its queries, row by row: maximum `m`, sum `l`, weighted values
/// `o (queries, d)`.
struct Partial {
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

/// `q (rows, heads, d)` → `(rows, heads, d)`. `keys` has the keys and the values, `(kv_heads, 64, d)` each, of each
/// block in [`KvSplitPlan::blocks`].
pub(crate) fn decode(q: &[f32], keys: &[[Weight<'_>; 2]], plan: &KvSplitPlan<'_>, dims: Dims, scale: f32) -> Vec<f32> {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let n = plan.splits.len();
    let partials: Vec<Partial> =
        thread_team::map(kv_heads * n, |i| partial(q, keys, &plan.splits[i % n], i / n, dims, scale));
    let mut out = vec![0.0; plan.of_row.len() * heads * d];
    for (splits, out) in plan.of_row.iter().zip(out.chunks_mut(heads * d)) {
        for (head, out) in out.chunks_mut(group * d).enumerate() {
            let splits: Vec<_> =
                splits.iter().map(|&(split, place)| (&partials[head * n + split], group * place)).collect();
            merge(&splits, d, out);
        }
    }
    out
}

/// Attention of a split's queries to its keys, for one kv head.
fn partial(q: &[f32], keys: &[[Weight<'_>; 2]], split: &KvSplit, head: usize, dims: Dims, scale: f32) -> Partial {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let at = head * BLOCK * d;
    let mine = |row: usize| &q[(row * heads + head * group) * d..][..group * d];
    let q = split.rows.iter().map(|&row| mine(row)).collect::<Vec<_>>().concat();
    let n = split.lengths.iter().copied().max().unwrap_or(0);
    let queries = split.rows.len() * group;
    let mut scores = vec![0.0; queries * n];
    for (i, SplitBlock { places, block, start, count }) in split.split_blocks.iter().enumerate() {
        let q = &q[places.start * group * d..places.end * group * d];
        let to = places.start * group * n + start;
        let next = split.split_blocks.get(i + 1).map(|next| keys[next.block][0]);
        for first in (0..*count).step_by(LANES) {
            // A head's part of a block is too short for the hardware to foresee what is read next.
            let here = at + first * d;
            let few = LANES.min(count - first);
            prefetch(keys[*block][1].from(here), few * d);
            next.inspect(|next| prefetch(next.from(here), few * d));
            score(q, keys[*block][0].from(here), [d, n, few], scale, &mut scores[to + first..]);
        }
    }
    let mut partial = Partial { m: vec![0.0; queries], l: vec![0.0; queries], o: vec![0.0; queries * d] };
    for (g, scores) in scores.chunks_mut(n).enumerate() {
        (partial.m[g], partial.l[g]) = softmax_unnormalized(&mut scores[..split.lengths[g / group]]);
    }
    for SplitBlock { places, block, start, count } in &split.split_blocks {
        let o = &mut partial.o[places.start * group * d..places.end * group * d];
        pv(&scores[places.start * group * n + start..], keys[*block][1].from(at), [d, n, *count], o);
    }
    partial
}

vectorised! {
    /// Merges the splits of one row and kv head, `Σ e^(m−M)·o / Σ e^(m−M)·l` with `M` the largest `m`. Each
    /// split comes with the index of the row's first query in it.
    fn merge(splits: &[(&Partial, usize)], d: usize, out: &mut [f32]) {
        for (g, out) in out.chunks_mut(d).enumerate() {
            let top = splits.iter().map(|(split, at)| split.m[at + g]).fold(f32::NEG_INFINITY, f32::max);
            let mut l = 0.0;
            for (split, at) in splits {
                let weight = exp(split.m[at + g] - top);
                l += weight * split.l[at + g];
                out.iter_mut().zip(&split.o[(at + g) * d..]).for_each(|(out, o)| *out += weight * o);
            }
            out.iter_mut().for_each(|out| *out /= l);
        }
    }

    /// Replaces scores by `e^(score − maximum)`; returns the maximum and the sum.
    fn softmax_unnormalized(scores: &mut [f32]) -> (f32, f32) {
        let m = max(scores);
        scores.iter_mut().for_each(|s| *s = exp(*s - m));
        (m, sum([scores], |[s]| s))
    }
}
