//! Decoding: one query a row against cached keys and values, which are read once for all query heads of a kv head.
//!
//! The keys of a row are its segments laid end to end, cut into chunks of 512 whatever the segments. A task is a chunk
//! of one kv head of one row and yields a maximum, a sum and a weighted sum of values for each query head; chunks are
//! joined in order. So the bits depend neither on where the prefix ends, nor on other rows, nor on threads.

use rayon::prelude::*;

use super::Dims;
use super::score::score;
use crate::ops::linear::pack::Element;
use crate::ops::simd::{exp, max, sum, vectorised};
use crate::ops::slice::Weight;

/// Keys a task takes.
const CHUNK: usize = 512;

/// Keys, values and number of rows of a segment.
pub(crate) type Segment<'a> = (Weight<'a>, Weight<'a>, usize);

/// What a chunk says about one kv head's query heads.
struct Partial {
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

/// `(rows, heads, d)`.
pub(crate) fn decode(q: &[f32], rows: &[Vec<Segment<'_>>], dims: Dims, scale: f32) -> Vec<f32> {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let length = |row: usize| rows[row].iter().map(|segment| segment.2).sum::<usize>();
    // Kv heads outermost: rows that share a prefix then read the same keys one after another.
    let tasks: Vec<(usize, usize, usize)> = (0..kv_heads)
        .flat_map(|head| (0..rows.len()).map(move |row| (head, row)))
        .flat_map(|(head, row)| (0..length(row)).step_by(CHUNK).map(move |first| (head, row, first)))
        .collect();
    let partials: Vec<Partial> = tasks
        .par_iter()
        .map(|&(head, row, first)| {
            let q = &q[(row * heads + head * group) * d..][..group * d];
            partial(q, &rows[row], [kv_heads, d], head, [first, (first + CHUNK).min(length(row))], scale)
        })
        .collect();
    let mut out = vec![0.0; rows.len() * heads * d];
    let mut start = 0;
    while start < tasks.len() {
        let (head, row, _) = tasks[start];
        let end = start + tasks[start..].iter().take_while(|task| (task.0, task.1) == (head, row)).count();
        join(&partials[start..end], d, &mut out[(row * heads + head * group) * d..][..group * d]);
        start = end;
    }
    out
}

/// Keys `from..to` of one kv head against its group of queries `(group, d)`.
fn partial(q: &[f32], segments: &[Segment<'_>], [kv_heads, d]: [usize; 2], head: usize, [from, to]: [usize; 2], scale: f32) -> Partial {
    let (stride, group, n) = (kv_heads * d, q.len() / d, to - from);
    // The chunk's part of each segment: keys, values and their number.
    let mut pieces = Vec::new();
    let mut start = 0;
    for &(k, v, len) in segments {
        let (first, last) = (from.max(start), to.min(start + len));
        if first < last {
            let at = (first - start) * stride + head * d;
            pieces.push((k.from(at), v.from(at), last - first));
        }
        start += len;
    }
    let mut scores = vec![0.0; group * n];
    let mut done = 0;
    for &(k, _, count) in &pieces {
        score(q, k, [stride, d, n, count], scale, &mut scores[done..]);
        done += count;
    }
    let mut partial = Partial { m: vec![0.0; group], l: vec![0.0; group], o: vec![0.0; group * d] };
    for (g, scores) in scores.chunks_mut(n).enumerate() {
        (partial.m[g], partial.l[g]) = soften(scores);
    }
    done = 0;
    for &(_, v, count) in &pieces {
        weigh(&scores[done..], v, [stride, d, n, count], &mut partial.o);
        done += count;
    }
    partial
}

/// Joins the chunks of one kv head of one row: `Σ e^(m−M)·o / Σ e^(m−M)·l`.
fn join(chunks: &[Partial], d: usize, out: &mut [f32]) {
    for (g, out) in out.chunks_mut(d).enumerate() {
        let top = chunks.iter().map(|chunk| chunk.m[g]).fold(f32::NEG_INFINITY, f32::max);
        let mut l = 0.0;
        for chunk in chunks {
            let weight = exp(chunk.m[g] - top);
            l += weight * chunk.l[g];
            out.iter_mut().zip(&chunk.o[g * d..]).for_each(|(out, o)| *out += weight * o);
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

    /// `o[g] += Σ_j weights[g·n + j]·v[j]`, keys in order.
    fn weigh(weights: &[f32], v: Weight<'_>, sizes: [usize; 4], o: &mut [f32]) {
        match v {
            Weight::F32(v) => weigh_by_width(weights, v, sizes, o),
            Weight::Bf16(v) => weigh_by_width(weights, v, sizes, o),
        }
    }
}

#[inline(always)]
fn weigh_by_width<T: Element>(weights: &[f32], v: &[T], sizes: [usize; 4], o: &mut [f32]) {
    match sizes[1] {
        64 => weigh_fixed::<T, 64, 2>(weights, v, sizes, o),
        128 => weigh_fixed::<T, 128, 1>(weights, v, sizes, o),
        d => weigh_any(weights, v, sizes, o, d),
    }
}

/// A few values at a time pass all query heads while they are in L1; `G` heads at a time keep their sums in registers.
#[inline(always)]
fn weigh_fixed<T: Element, const D: usize, const G: usize>(weights: &[f32], v: &[T], [stride, d, n, count]: [usize; 4], o: &mut [f32]) {
    for first in (0..count).step_by(FEW) {
        let (v, sizes) = (&v[first * stride..], [stride, d, n, FEW.min(count - first)]);
        let mut g = 0;
        while (g + G) * D <= o.len() {
            weigh_heads::<T, D, G>(&weights[g * n + first..], v, sizes, &mut o[g * D..]);
            g += G;
        }
        while g * D < o.len() {
            weigh_heads::<T, D, 1>(&weights[g * n + first..], v, sizes, &mut o[g * D..]);
            g += 1;
        }
    }
}

/// Values that stay in L1 while the query heads pass.
const FEW: usize = 32;

#[inline(always)]
fn weigh_heads<T: Element, const D: usize, const G: usize>(weights: &[f32], v: &[T], [stride, _, n, count]: [usize; 4], o: &mut [f32]) {
    let mut sums: [[f32; D]; G] = std::array::from_fn(|g| std::array::from_fn(|c| o[g * D + c]));
    for j in 0..count {
        let Some(value) = v[j * stride..].first_chunk::<D>() else { return };
        for g in 0..G {
            let weight = weights[g * n + j];
            for c in 0..D {
                sums[g][c] = weight.mul_add(value[c].widen(), sums[g][c]);
            }
        }
    }
    for (g, sums) in sums.iter().enumerate() {
        o[g * D..(g + 1) * D].copy_from_slice(sums);
    }
}

#[inline(always)]
fn weigh_any<T: Element>(weights: &[f32], v: &[T], [stride, _, n, count]: [usize; 4], o: &mut [f32], d: usize) {
    for (g, o) in o.chunks_mut(d).enumerate() {
        for j in 0..count {
            let weight = weights[g * n + j];
            o.iter_mut().zip(&v[j * stride..]).for_each(|(o, v)| *o = weight.mul_add(v.widen(), *o));
        }
    }
}
