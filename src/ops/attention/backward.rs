//! Backward: scores are recomputed block by block from `q`, `k` and the saved log-sum-exp.
//!
//! ```text
//! δ = rowsum(out ⊙ dout)
//! for each block of keys, for each block of queries from the diagonal on:
//!     p = exp(scale·q·kᵀ − lse);  ds = scale·p ⊙ (dout·vᵀ − δ)
//!     dv += pᵀ·dout;  dk += dsᵀ·q;  dq += ds·k
//! ```
//!
//! Queries whose `dout` is 0 add nothing: blocks before the first other one are left out, which changes no bit. In
//! training's last layer those are the rows that no head reads, most of a sequence.
//!
//! A task is one query head of one sequence, so every sum runs in one order on one thread; the heads that share a kv
//! head are added afterwards, first head first.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::blocks::{BLOCK, Head, Packed, width};
use super::{Dims, Offsets};
use crate::ops::add::add_assign;
use crate::ops::cpu::par_for::ParFor;
use crate::ops::cpu::simd::{exp, isa, sum, vectorised};
use crate::ops::cpu::slice::init_with;

/// What forward read and wrote, and the gradient of its output: as the products take it, and in f32.
pub(crate) struct Saved<'a, T> {
    pub q: &'a [T],
    pub k: &'a [T],
    pub v: &'a [T],
    pub dout: &'a [T],
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub exact_dout: &'a [f32],
}

/// One kv head of one sequence, packed as the products read it.
struct KeyValues {
    keys: Packed,
    keys_t: Packed,
    values_t: Packed,
}

/// Gradients of one head of one sequence, `(rows, width)` each.
struct HeadGradients {
    dq: Packed,
    dk: Packed,
    dv: Packed,
}

/// `(dq, dk, dv)`.
pub(crate) fn backward<P: Arithmetic>(
    saved: &Saved<'_, P::Item>,
    dims: Dims,
    offsets: &Offsets,
    scale: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let pairs = |heads: usize| -> Vec<(usize, usize)> {
        (0..offsets.count()).flat_map(|s| (0..heads).map(move |h| (s, h))).collect()
    };
    let packed: Vec<KeyValues> = pairs(kv_heads).into_par_iter().par_map(|(s, h)| {
        let range = offsets.range(s);
        let head = |x| Head::new(x, [kv_heads, d], h, range.start, range.len());
        let keys = head(saved.k);
        let values = head(saved.v);
        KeyValues {
            keys: keys.packed::<P>(isa()),
            keys_t: keys.transposed::<P>(isa()),
            values_t: values.transposed::<P>(isa()),
        }
    });
    let gradients: Vec<HeadGradients> = pairs(heads).into_par_iter().with_max_len(1).par_map(|(s, h)| {
        let range = offsets.range(s);
        let head = |x| Head::new(x, [heads, d], h, range.start, range.len());
        let exact = |x| Head::new(x, [heads, d], h, range.start, range.len());
        let out = exact(saved.out);
        let dout = exact(saved.exact_dout);
        let delta: Vec<f32> = (0..range.len()).map(|i| dot(out.row(i), dout.row(i))).collect();
        let silent = (0..range.len()).take_while(|&i| dout.row(i).iter().all(|&d| d == 0.0)).count();
        let lse = &saved.lse[h * offsets.total()..][range.clone()];
        let packed = &packed[s * kv_heads + h / group];
        one_head::<P>([head(saved.q), head(saved.dout)], [lse, &delta], packed, scale, silent)
    });
    assemble(&gradients, dims, offsets)
}

/// Gradients of one head of one sequence, whose first `silent` rows have a `dout` of 0.
fn one_head<P: Arithmetic>(
    [q, dout]: [Head<'_, P::Item>; 2],
    [lse, delta]: [&[f32]; 2],
    packed: &KeyValues,
    scale: f32,
    silent: usize,
) -> HeadGradients {
    let isa = isa();
    let n = q.rows;
    let width = width(q.d);
    let depth = q.d.div_ceil(P::PER);
    let rows_of_q = q.packed::<P>(isa);
    let rows_of_dout = dout.packed::<P>(isa);
    let q_t = q.transposed::<P>(isa);
    let dout_t = dout.transposed::<P>(isa);
    let mut gradients =
        HeadGradients { dq: Packed::zeros(n * width), dk: Packed::zeros(n * width), dv: Packed::zeros(n * width) };
    let mut p = Packed::zeros(BLOCK * BLOCK);
    let mut ds = Packed::zeros(BLOCK * BLOCK);
    let mut buffer = Packed::zeros(BLOCK * BLOCK / P::PER);
    for key in (0..n).step_by(BLOCK) {
        let keys = BLOCK.min(n - key);
        for first in (key.max(silent / BLOCK * BLOCK)..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - first);
            let scores = |a: &Packed, b: &Packed, to: &mut Packed| {
                let a = &a.get()[first * depth..];
                let b = &b.get()[key * depth..];
                P::by_columns(isa, [rows, depth, BLOCK], a, b, to.get_mut(), false);
            };
            scores(&q_t, &packed.keys_t, &mut p);
            scores(&dout_t, &packed.values_t, &mut ds);
            let diagonal = if key == first { 1 } else { BLOCK };
            let p_rows = &mut p.get_mut()[..rows * BLOCK];
            let ds_rows = &mut ds.get_mut()[..rows * BLOCK];
            differentiate(p_rows, ds_rows, &lse[first..], &delta[first..], diagonal, scale);
            let mut by_keys = |a: &Packed, b: &Packed, to: &mut Packed| {
                let b = &b.get()[first / P::PER * width..];
                let to = &mut to.get_mut()[key * width..];
                P::by_columns(isa, [keys, rows.div_ceil(P::PER), width], P::columns(a, rows, &mut buffer), b, to, true);
            };
            by_keys(&p, &rows_of_dout, &mut gradients.dv);
            by_keys(&ds, &rows_of_q, &mut gradients.dk);
            let keys_here = &packed.keys.get()[key / P::PER * width..];
            let dq = &mut gradients.dq.get_mut()[first * width..];
            P::by_rows(isa, [rows, keys.div_ceil(P::PER), width], P::rows(&ds, &mut buffer), keys_here, dq, true);
        }
    }
    gradients
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum([a, b], |[a, b]| a * b)
    }

    /// `p` holds `q·kᵀ` and becomes the probabilities, `ds` holds `dout·vᵀ` and becomes the scores' gradient. Row
    /// `r` sees the columns before `visible + r`.
    fn differentiate(p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32], visible: usize, scale: f32) {
        let rows = p.as_chunks_mut::<BLOCK>().0.iter_mut().zip(ds.as_chunks_mut::<BLOCK>().0);
        for (r, (p, ds)) in rows.enumerate() {
            let lse = lse[r];
            let delta = delta[r];
            let limit = (visible + r) as i32;
            for (c, (p, ds)) in p.iter_mut().zip(ds.iter_mut()).enumerate() {
                let probability = exp(*p * scale - lse);
                let probability = if (c as i32) < limit { probability } else { 0.0 };
                *p = probability;
                *ds = probability * (*ds - delta) * scale;
            }
        }
    }
}

/// Sets the heads' gradients in place, adding up those that share a kv head.
fn assemble(gradients: &[HeadGradients], dims: Dims, offsets: &Offsets) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let t = offsets.total();
    let group = heads / kv_heads;
    let width = width(d);
    let places: Vec<(usize, usize)> =
        offsets.ranges().enumerate().flat_map(|(s, range)| (0..range.len()).map(move |i| (s, i))).collect();
    let write = |[dq, dk, dv]: [&mut [MaybeUninit<f32>]; 3]| {
        let keys = dk.par_chunks_mut((kv_heads * d).max(1)).zip(dv.par_chunks_mut((kv_heads * d).max(1)));
        let rows = dq.par_chunks_mut((heads * d).max(1)).zip(keys).zip(places);
        rows.with_min_len(16).par_for_each(|((dq, (dk, dv)), (s, i))| {
            let of = |x: fn(&HeadGradients) -> &Packed, h: usize| &x(&gradients[s * heads + h]).get()[i * width..][..d];
            for (h, dq) in dq.chunks_exact_mut(d).enumerate() {
                add_up([of(|head| &head.dq, h)].into_iter(), dq);
            }
            for (h, (dk, dv)) in dk.chunks_exact_mut(d).zip(dv.chunks_exact_mut(d)).enumerate() {
                let group = h * group..(h + 1) * group;
                add_up(group.clone().map(|h| of(|head| &head.dk, h)), dk);
                add_up(group.map(|h| of(|head| &head.dv, h)), dv);
            }
        });
    };
    // SAFETY: a row is of whole heads, and `add_up` writes each.
    let [dq, dk, dv] = unsafe { init_with([t * heads * d, t * kv_heads * d, t * kv_heads * d], write) };
    (dq, dk, dv)
}

/// The sum of one or more heads, the first first.
fn add_up<'a>(mut heads: impl Iterator<Item = &'a [f32]>, to: &mut [MaybeUninit<f32>]) {
    let Some(first) = heads.next() else { return to.fill(MaybeUninit::new(0.0)) };
    let sum = to.write_copy_of_slice(first);
    heads.for_each(|head| add_assign(sum, head));
}
