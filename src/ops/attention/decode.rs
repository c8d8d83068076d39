//! Decoding: one query a row against cached keys and values, which are read once for all query heads of a kv head and for
//! all neighbouring rows that share them.
//!
//! The keys of a row are its segments laid end to end, cut into chunks of 512 whatever the segments. A task is a chunk of one
//! kv head of a family of rows and yields a maximum, a sum and a weighted sum of values for each query; chunks are joined in
//! order. Queries never meet, so the bits depend neither on where the prefix ends, nor on other rows, nor on threads.

use std::ops::Range;

use super::Dims;
use super::score::score;
use super::weigh::weigh;
use crate::ops::simd::{exp, max, sum, vectorised};
use crate::ops::slice::Weight;
use crate::ops::team;

/// Keys a task takes.
const CHUNK: usize = 512;

/// Keys, values and number of rows of a segment.
pub(crate) type Segment<'a> = (Weight<'a>, Weight<'a>, usize);

/// Rows of a family, at most: more would leave threads without a task.
const FAMILY: usize = 8;

/// A chunk of one kv head, for the rows of a family that are long enough to have it.
struct Task {
    head: usize,
    rows: Vec<usize>,
    first: usize,
}

/// What a chunk says about one kv head's query heads, the group of one row after that of another.
struct Partial {
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

/// `(rows, heads, d)`.
pub(crate) fn decode(q: &[f32], rows: &[Vec<Segment<'_>>], dims: Dims, scale: f32) -> Vec<f32> {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let families = families(rows);
    let lengths: Vec<usize> = rows.iter().map(|row| row.iter().map(|segment| segment.2).sum()).collect();
    let chunks = |(head, family): (usize, Range<usize>)| {
        let longest = lengths[family.clone()].iter().copied().max().unwrap_or(0);
        let lengths = &lengths;
        (0..longest).step_by(CHUNK).map(move |first| Task {
            head,
            rows: family.clone().filter(|&row| lengths[row] > first).collect(),
            first,
        })
    };
    let heads_of_families = (0..kv_heads).flat_map(|head| families.iter().map(move |family| (head, family.clone())));
    let tasks: Vec<Task> = heads_of_families.flat_map(chunks).collect();
    let partials: Vec<Partial> = team::map(tasks.len(), |i| partial(q, rows, &tasks[i], dims, scale));
    let mut out = vec![0.0; rows.len() * heads * d];
    for (row, out) in out.chunks_mut(heads * d).enumerate() {
        for (head, out) in out.chunks_mut(group * d).enumerate() {
            let of_row = tasks.iter().zip(&partials).filter(|(task, _)| task.head == head);
            let chunks: Vec<(&Partial, usize)> =
                of_row.filter_map(|(task, partial)| Some((partial, group * task.rows.iter().position(|&r| r == row)?))).collect();
            join(&chunks, d, out);
        }
    }
    out
}

/// Neighbouring rows that begin with the same segment.
fn families(rows: &[Vec<Segment<'_>>]) -> Vec<Range<usize>> {
    let start = |row: usize| rows[row].first().map(|segment| segment.0.address());
    let mut families: Vec<Range<usize>> = Vec::new();
    for row in 0..rows.len() {
        match families.last_mut() {
            Some(family) if family.len() < FAMILY && start(family.start) == start(row) => family.end += 1,
            _ => families.push(row..row + 1),
        }
    }
    families
}

/// A chunk's part of a segment.
struct Piece<'a> {
    k: Weight<'a>,
    v: Weight<'a>,
    /// Its first key's place in the chunk.
    start: usize,
    count: usize,
}

impl Piece<'_> {
    fn is(&self, other: &Self) -> bool {
        (self.k.address(), self.start, self.count) == (other.k.address(), other.start, other.count)
    }
}

/// A row's part of the chunk that begins at key `from`, of one kv head.
fn pieces<'a>(segments: &[Segment<'a>], from: usize, head_at: usize, stride: usize) -> Vec<Piece<'a>> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    for &(k, v, len) in segments {
        let (first, last) = (from.max(start), (from + CHUNK).min(start + len));
        if first < last {
            let at = (first - start) * stride + head_at;
            pieces.push(Piece { k: k.from(at), v: v.from(at), start: first - from, count: last - first });
        }
        start += len;
    }
    pieces
}

/// A task's queries against its keys.
fn partial(q: &[f32], rows: &[Vec<Segment<'_>>], task: &Task, dims: Dims, scale: f32) -> Partial {
    let Dims { heads, kv_heads, d } = dims;
    let (stride, group) = (kv_heads * d, heads / kv_heads);
    let mine = |row: usize| &q[(row * heads + task.head * group) * d..][..group * d];
    let q: Vec<f32> = task.rows.iter().flat_map(|&row| mine(row)).copied().collect();
    let pieces: Vec<Vec<Piece<'_>>> = task.rows.iter().map(|&row| pieces(&rows[row], task.first, task.head * d, stride)).collect();
    // Rows (places in the task) that share a piece, piece after piece.
    let mut shared: Vec<(Range<usize>, &Piece<'_>)> = Vec::new();
    for p in 0..pieces.iter().map(Vec::len).max().unwrap_or(0) {
        let from = shared.len();
        for (i, piece) in pieces.iter().enumerate().filter_map(|(i, pieces)| Some((i, pieces.get(p)?))) {
            match shared[from..].last_mut() {
                Some((range, held)) if range.end == i && held.is(piece) => range.end += 1,
                _ => shared.push((i..i + 1, piece)),
            }
        }
    }
    let lengths: Vec<usize> = pieces.iter().map(|pieces| pieces.iter().map(|piece| piece.count).sum()).collect();
    let n = lengths.iter().copied().max().unwrap_or(0);
    let mut scores = vec![0.0; task.rows.len() * group * n];
    for (range, Piece { k, start, count, .. }) in &shared {
        let (q, at) = (&q[range.start * group * d..range.end * group * d], range.start * group * n + start);
        score(q, *k, [stride, d, n, *count], scale, &mut scores[at..]);
    }
    let queries = task.rows.len() * group;
    let mut partial = Partial { m: vec![0.0; queries], l: vec![0.0; queries], o: vec![0.0; queries * d] };
    for (g, scores) in scores.chunks_mut(n).enumerate() {
        (partial.m[g], partial.l[g]) = soften(&mut scores[..lengths[g / group]]);
    }
    for (range, Piece { v, start, count, .. }) in &shared {
        let o = &mut partial.o[range.start * group * d..range.end * group * d];
        weigh(&scores[range.start * group * n + start..], *v, [stride, d, n, *count], o);
    }
    partial
}

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

vectorised! {
    /// Scores become weights relative to their maximum; returns the maximum and the weights' sum.
    fn soften(scores: &mut [f32]) -> (f32, f32) {
        let m = max(scores);
        scores.iter_mut().for_each(|s| *s = exp(*s - m));
        (m, sum([scores], |[s]| s))
    }
}
