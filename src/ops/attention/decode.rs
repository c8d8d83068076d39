//! Decoding: one query a row against cached keys and values, which are read once for all query heads of a kv head and for
//! all neighbouring rows that share their blocks.
//!
//! The keys of a row are its blocks' laid end to end, cut into chunks of 512. A task is a chunk of one kv head of a family of rows
//! and yields a maximum, a sum and a weighted sum of values for each query; chunks are joined in order. Queries never meet, so the
//! bits depend neither on what is shared, nor on other rows, nor on threads. How rows fall into families and chunks is the same in
//! every layer: a [`Plan`] is made once a step.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{Tensor, TensorId};

use super::Dims;
use super::score::{prefetch, score};
use super::weigh::weigh;
use crate::ops::cpu::simd::{LANES, exp, max, sum, vectorised};
use crate::ops::cpu::slice::Weight;
use crate::ops::cpu::thread_team;
use crate::ops::kv_store::{BLOCK, KvRow};

/// Keys a task takes: a number of whole blocks.
const CHUNK: usize = 512;

/// Rows of a family, at most: more would leave threads without a task.
const FAMILY: usize = 8;

/// How the rows of a step are cut into tasks, for each kv head of each layer.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Every block once.
    pub blocks: Vec<&'a Tensor>,
    chunks: Vec<Chunk>,
    /// For each row, its chunks in order and its place among the rows of each.
    of_row: Vec<Vec<(usize, usize)>>,
}

/// A chunk, for the rows of a family that are long enough to have it.
#[derive(Debug)]
struct Chunk {
    rows: Vec<usize>,
    /// Keys that each of the rows has in it.
    lengths: Vec<usize>,
    /// Its parts, first keys first.
    pieces: Vec<Piece>,
}

/// A block's keys in a chunk, for neighbouring rows of it that share them.
#[derive(Debug)]
struct Piece {
    /// Places of the rows in the chunk.
    places: Range<usize>,
    block: usize,
    /// Its first key's place in the chunk.
    start: usize,
    count: usize,
}

impl<'a> Plan<'a> {
    pub fn new(rows: &[KvRow<'a>]) -> Self {
        let (mut blocks, mut numbers) = (Vec::new(), HashMap::<TensorId, usize>::new());
        let mut number = |block: &'a Tensor| {
            *numbers.entry(block.id()).or_insert_with(|| {
                blocks.push(block);
                blocks.len() - 1
            })
        };
        let numbered: Vec<Vec<usize>> =
            rows.iter().map(|row| row.blocks.iter().take(row.len.div_ceil(BLOCK)).map(|block| number(block)).collect()).collect();
        let (mut chunks, mut of_row) = (Vec::new(), vec![Vec::new(); rows.len()]);
        for family in families(&numbered) {
            let longest = rows[family.clone()].iter().map(|row| row.len).max().unwrap_or(0);
            for first in (0..longest).step_by(CHUNK) {
                let here: Vec<usize> = family.clone().filter(|&row| rows[row].len > first).collect();
                here.iter().enumerate().for_each(|(place, &row)| of_row[row].push((chunks.len(), place)));
                let lengths: Vec<usize> = here.iter().map(|&row| CHUNK.min(rows[row].len - first)).collect();
                let pieces = pieces(&numbered, &here, &lengths, first);
                chunks.push(Chunk { rows: here, lengths, pieces });
            }
        }
        Self { blocks, chunks, of_row }
    }
}

/// Neighbouring rows that begin with the same block.
fn families(rows: &[Vec<usize>]) -> Vec<Range<usize>> {
    let mut families: Vec<Range<usize>> = Vec::new();
    for row in 0..rows.len() {
        match families.last_mut() {
            Some(family) if family.len() < FAMILY && rows[family.start].first() == rows[row].first() => family.end += 1,
            _ => families.push(row..row + 1),
        }
    }
    families
}

/// The pieces of the chunk that begins at key `first` of the rows `here`, which have `lengths` keys in it.
fn pieces(blocks: &[Vec<usize>], here: &[usize], lengths: &[usize], first: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    for start in (0..longest).step_by(BLOCK) {
        let from = pieces.len();
        for (place, (&row, length)) in here.iter().zip(lengths).enumerate().filter(|(_, (_, length))| **length > start) {
            let (block, count) = (blocks[row][(first + start) / BLOCK], BLOCK.min(length - start));
            match pieces[from..].last_mut() {
                Some(piece) if piece.places.end == place && (piece.block, piece.count) == (block, count) => piece.places.end += 1,
                _ => pieces.push(Piece { places: place..place + 1, block, start, count }),
            }
        }
    }
    pieces
}

/// What a chunk says about one kv head's query heads, the group of one row after that of another.
struct Partial {
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

/// `(rows, heads, d)`; `keys` are the keys and values of each of the plan's blocks, `(kv_heads, 64, d)` each.
pub(crate) fn decode(q: &[f32], keys: &[[Weight<'_>; 2]], plan: &Plan<'_>, dims: Dims, scale: f32) -> Vec<f32> {
    let Dims { heads, kv_heads, d } = dims;
    let (group, n) = (heads / kv_heads, plan.chunks.len());
    let partials: Vec<Partial> = thread_team::map(kv_heads * n, |i| partial(q, keys, &plan.chunks[i % n], i / n, dims, scale));
    let mut out = vec![0.0; plan.of_row.len() * heads * d];
    for (chunks, out) in plan.of_row.iter().zip(out.chunks_mut(heads * d)) {
        for (head, out) in out.chunks_mut(group * d).enumerate() {
            let chunks: Vec<_> = chunks.iter().map(|&(chunk, place)| (&partials[head * n + chunk], group * place)).collect();
            join(&chunks, d, out);
        }
    }
    out
}

/// A chunk's queries against its keys, of one kv head.
fn partial(q: &[f32], keys: &[[Weight<'_>; 2]], chunk: &Chunk, head: usize, dims: Dims, scale: f32) -> Partial {
    let Dims { heads, kv_heads, d } = dims;
    let (group, at) = (heads / kv_heads, head * BLOCK * d);
    let mine = |row: usize| &q[(row * heads + head * group) * d..][..group * d];
    let q = chunk.rows.iter().map(|&row| mine(row)).collect::<Vec<_>>().concat();
    let n = chunk.lengths.iter().copied().max().unwrap_or(0);
    let queries = chunk.rows.len() * group;
    let mut scores = vec![0.0; queries * n];
    for (i, Piece { places, block, start, count }) in chunk.pieces.iter().enumerate() {
        let (q, to) = (&q[places.start * group * d..places.end * group * d], places.start * group * n + start);
        let next = chunk.pieces.get(i + 1).map(|next| keys[next.block][0]);
        for first in (0..*count).step_by(LANES) {
            // A head's part of a block is too short for the hardware to foresee what is read next.
            let (here, few) = (at + first * d, LANES.min(count - first));
            prefetch(keys[*block][1].from(here), few * d);
            next.inspect(|next| prefetch(next.from(here), few * d));
            score(q, keys[*block][0].from(here), [d, n, few], scale, &mut scores[to + first..]);
        }
    }
    let mut partial = Partial { m: vec![0.0; queries], l: vec![0.0; queries], o: vec![0.0; queries * d] };
    for (g, scores) in scores.chunks_mut(n).enumerate() {
        (partial.m[g], partial.l[g]) = soften(&mut scores[..chunk.lengths[g / group]]);
    }
    for Piece { places, block, start, count } in &chunk.pieces {
        let o = &mut partial.o[places.start * group * d..places.end * group * d];
        weigh(&scores[places.start * group * n + start..], keys[*block][1].from(at), [d, n, *count], o);
    }
    partial
}

vectorised! {
    /// Joins the chunks of one kv head of one row, whose first query each chunk has at a place of its own:
    /// `Σ e^(m−M)·o / Σ e^(m−M)·l`.
    fn join(chunks: &[(&Partial, usize)], d: usize, out: &mut [f32]) {
        for (g, out) in out.chunks_mut(d).enumerate() {
            let top = chunks.iter().map(|(chunk, at)| chunk.m[at + g]).fold(f32::NEG_INFINITY, f32::max);
            let mut l = 0.0;
            for (chunk, at) in chunks {
                let weight = exp(chunk.m[at + g] - top);
                l += weight * chunk.l[at + g];
                out.iter_mut().zip(&chunk.o[(at + g) * d..]).for_each(|(out, o)| *out += weight * o);
            }
            out.iter_mut().for_each(|out| *out /= l);
        }
    }

    /// Scores become weights relative to their maximum; returns the maximum and the weights' sum.
    fn soften(scores: &mut [f32]) -> (f32, f32) {
        let m = max(scores);
        scores.iter_mut().for_each(|s| *s = exp(*s - m));
        (m, sum([scores], |[s]| s))
    }
}
