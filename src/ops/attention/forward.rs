//! Forward: blocks of 64 queries walk over blocks of 64 keys with an online softmax.
//!
//! ```text
//! for each block of keys up to the diagonal:
//!     s = scale·q·kᵀ, masked;  m′ = max(m, rowmax s);  p = exp(s − m′);  α = exp(m − m′)
//!     l = α·l + rowsum p;  o = α·o + p·v;  m = m′
//! out = o / l,  lse = m + ln l
//! ```
//!
//! Blocks of keys are counted from the sequence's first key and a masked score adds an exact 0, so a query's bits
//! depend on its own keys alone, not on which queries share its block.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::blocks::{BLOCK, Head, Packed, width};
use super::{Dims, Offsets};
use crate::ops::cpu::par_for::ParFor;
use crate::ops::cpu::simd::{LANES, exp, isa, max, sum_lanes, vectorised};
use crate::ops::cpu::slice::init_with;
use crate::ops::linear::Output;

/// A block of queries of one head of one sequence.
struct Task {
    sequence: usize,
    head: usize,
    first: usize,
}

/// One kv head of one sequence, packed.
struct KeyValues {
    /// `(blocks, d in units, 64)`.
    keys: Packed,
    /// `(rows in units, width)`.
    values: Packed,
}

/// `(out (tq, heads, d), lse (heads, tq))`.
pub(crate) fn forward<P: Arithmetic>(
    q: &[P::Item],
    k: &[P::Item],
    v: &[P::Item],
    dims: Dims,
    q_offsets: &Offsets,
    kv_offsets: &Offsets,
    scale: f32,
) -> (Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let tq = q_offsets.total();
    let group = heads / kv_heads;
    let pairs: Vec<(usize, usize)> = (0..kv_offsets.count()).flat_map(|s| (0..kv_heads).map(move |h| (s, h))).collect();
    let packed: Vec<KeyValues> = pairs.into_par_iter().par_map(|(s, h)| {
        let range = kv_offsets.range(s);
        let head = |x| Head::new(x, [kv_heads, d], h, range.start, range.len());
        KeyValues { keys: head(k).transposed::<P>(isa()), values: head(v).packed::<P>(isa()) }
    });
    let tasks: Vec<Task> = (0..q_offsets.count())
        .flat_map(|sequence| (0..heads).map(move |head| (sequence, head)))
        .flat_map(|(sequence, head)| {
            (0..q_offsets.range(sequence).len()).step_by(BLOCK).map(move |first| Task { sequence, head, first })
        })
        .collect();
    let write = |[out, lse]: [&mut [MaybeUninit<f32>]; 2]| {
        let out = Output::uninit(out).share();
        let lse = Output::uninit(lse).share();
        tasks.par_iter().with_max_len(1).par_for_each(|task| {
            let q_range = q_offsets.range(task.sequence);
            let kv_range = kv_offsets.range(task.sequence);
            let queries = Head::new(q, [heads, d], task.head, q_range.start, q_range.len());
            let packed = &packed[task.sequence * kv_heads + task.head / group];
            let state = block::<P>(queries, packed, task.first, kv_range.len(), scale);
            let start = q_range.start + task.first;
            for (i, (m, l)) in state.m.iter().zip(&state.l).enumerate().take(BLOCK.min(q_range.len() - task.first)) {
                let o = &state.o.get()[i * width(d)..][..d];
                // SAFETY: the row and head of a query, which is in one task's block.
                unsafe {
                    lse.at(task.head * tq + start + i).write(m + l.ln());
                    let out = out.at(((start + i) * heads + task.head) * d);
                    o.iter().enumerate().for_each(|(c, o)| out.add(c).write(o / l));
                }
            }
        });
    };
    // SAFETY: every row and head of a sequence is in a task's block.
    let [out, lse] = unsafe { init_with([tq * heads * d, heads * tq], write) };
    (out, lse)
}

/// Running state of a block's online softmax.
struct State {
    /// Row maxima.
    m: [f32; BLOCK],
    /// Row sums.
    l: [f32; BLOCK],
    /// `(64, width)`, not yet divided by `l`.
    o: Packed,
}

/// What the keys say about the queries from `first` on.
fn block<P: Arithmetic>(
    queries: Head<'_, P::Item>,
    packed: &KeyValues,
    first: usize,
    kv_len: usize,
    scale: f32,
) -> State {
    let isa = isa();
    let d = queries.d;
    let rows = BLOCK.min(queries.rows - first);
    let width = width(d);
    let depth = d.div_ceil(P::PER);
    let mut q = Packed::zeros(depth * BLOCK);
    queries.transpose_block::<P>(isa, first, q.get_mut());
    let mut state = State { m: [f32::NEG_INFINITY; BLOCK], l: [0.0; BLOCK], o: Packed::zeros(BLOCK * width) };
    let mut scores = Packed::zeros(BLOCK * BLOCK);
    let mut buffer = Packed::zeros(BLOCK * BLOCK / P::PER);
    // Query `first + r` sees the keys before `seen + r`.
    let seen = kv_len - queries.rows + first + 1;
    for key in (0..seen + rows - 1).step_by(BLOCK) {
        let keys = BLOCK.min(seen + rows - 1 - key);
        let k = &packed.keys.get()[key * depth..][..BLOCK * depth];
        let v = &packed.values.get()[key / P::PER * width..];
        P::by_columns(isa, [rows, depth, BLOCK], q.get(), k, scores.get_mut(), false);
        online_softmax_step(
            &mut scores.get_mut()[..rows * BLOCK],
            seen as isize - key as isize,
            scale,
            &mut state,
            width,
        );
        let sizes = [rows, keys.div_ceil(P::PER), width];
        P::by_rows(isa, sizes, P::rows(&scores, &mut buffer), v, state.o.get_mut(), true);
    }
    state
}

vectorised! {
    /// Turns a block of scores into probabilities relative to the new row maxima, and rescales the state to them.
    /// Row `r` keeps its scores before column `visible + r`.
    fn online_softmax_step(scores: &mut [f32], visible: isize, scale: f32, state: &mut State, width: usize) {
        for (r, row) in scores.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let limit = visible + r as isize;
            for (c, s) in row.iter_mut().enumerate() {
                *s = if (c as i32) < limit as i32 { *s * scale } else { f32::NEG_INFINITY };
            }
            let before = state.m[r];
            let top = max(row);
            let m = if top > before { top } else { before };
            let mut lanes = [0.0f32; LANES];
            for chunk in row.as_chunks_mut::<LANES>().0 {
                for (lane, s) in lanes.iter_mut().zip(chunk) {
                    *s = exp(*s - m);
                    *lane += *s;
                }
            }
            let alpha = exp(before - m);
            state.m[r] = m;
            state.l[r] = state.l[r] * alpha + sum_lanes(lanes);
            if alpha != 1.0 {
                state.o.get_mut()[r * width..][..width].iter_mut().for_each(|o| *o *= alpha);
            }
        }
    }
}
