//! Backward: scores are recomputed block by block from `q`, `k` and the saved log-sum-exp.
//!
//! ```text
//! δ = rowsum(out ⊙ dout)
//! for each block of keys, for each block of queries from the diagonal on:
//!     p = exp(scale·q·kᵀ − lse);  ds = scale·p ⊙ (dout·vᵀ − δ)
//!     dv += pᵀ·dout;  dk += dsᵀ·q;  dq += ds·k
//! ```
//!
//! A task is one query head of one sequence, so every sum runs in one order on one thread; the heads that share a kv
//! head are added afterwards, first head first.

use rayon::prelude::*;

use super::blocks::{BLOCK, Head, Packed, width};
use super::{Dims, Offsets};
use crate::ops::linear::kernel::product;
use crate::ops::simd::{Isa, exp, isa, sum, vectorised};

/// What forward read and wrote, and the gradient of its output.
pub(crate) struct Saved<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub dout: &'a [f32],
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
pub(crate) fn backward(saved: &Saved<'_>, dims: Dims, offsets: &Offsets, scale: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let pairs = |heads: usize| -> Vec<(usize, usize)> { (0..offsets.count()).flat_map(|s| (0..heads).map(move |h| (s, h))).collect() };
    let packed: Vec<KeyValues> = pairs(kv_heads)
        .into_par_iter()
        .map(|(s, h)| {
            let range = offsets.range(s);
            let head = |x| Head::new(x, [kv_heads, d], h, range.start, range.len());
            KeyValues { keys: head(saved.k).packed(), keys_t: head(saved.k).transposed(isa()), values_t: head(saved.v).transposed(isa()) }
        })
        .collect();
    let gradients: Vec<HeadGradients> = pairs(heads)
        .into_par_iter()
        .with_max_len(1)
        .map(|(s, h)| {
            let range = offsets.range(s);
            let head = |x| Head::new(x, [heads, d], h, range.start, range.len());
            let lse = &saved.lse[h * offsets.total()..][range.clone()];
            one_head([head(saved.q), head(saved.dout), head(saved.out)], lse, &packed[s * kv_heads + h / group], scale)
        })
        .collect();
    assemble(&gradients, dims, offsets)
}

/// Gradients of one head of one sequence.
fn one_head([q, dout, out]: [Head<'_>; 3], lse: &[f32], packed: &KeyValues, scale: f32) -> HeadGradients {
    let (isa, d, n, width) = (isa(), q.d, q.rows, width(q.d));
    let (rows_of_q, rows_of_dout) = (q.packed(), dout.packed());
    let (q_t, dout_t) = (q.transposed(isa), dout.transposed(isa));
    let delta: Vec<f32> = (0..n).map(|i| dot(out.row(i), dout.row(i))).collect();
    let mut gradients = HeadGradients { dq: Packed::zeros(n * width), dk: Packed::zeros(n * width), dv: Packed::zeros(n * width) };
    let (mut p, mut ds) = (Packed::zeros(BLOCK * BLOCK), Packed::zeros(BLOCK * BLOCK));
    for key in (0..n).step_by(BLOCK) {
        let keys = BLOCK.min(n - key);
        for first in (key..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - first);
            let scores = |a: &Packed, b: &Packed, to: &mut Packed| {
                let (a, b) = (&a.get()[first * d..], &b.get()[key * d..]);
                product::<1, BLOCK>(isa, [rows, d, BLOCK], a, b, BLOCK, to.get_mut(), BLOCK, false);
            };
            scores(&q_t, &packed.keys_t, &mut p);
            scores(&dout_t, &packed.values_t, &mut ds);
            let diagonal = if key == first { 1 } else { BLOCK };
            let (p_rows, ds_rows) = (&mut p.get_mut()[..rows * BLOCK], &mut ds.get_mut()[..rows * BLOCK]);
            differentiate(p_rows, ds_rows, &lse[first..], &delta[first..], diagonal, scale);
            let HeadGradients { dq, dk, dv } = &mut gradients;
            let by_keys = |a: &Packed, b: &Packed, to: &mut Packed| {
                let (b, to) = (&b.get()[first * width..], &mut to.get_mut()[key * width..]);
                product::<1, BLOCK>(isa, [keys, rows, width], a.get(), b, width, to, width, true);
            };
            by_keys(&p, &rows_of_dout, dv);
            by_keys(&ds, &rows_of_q, dk);
            accumulate_dq(isa, [rows, keys, width], &ds, &packed.keys.get()[key * width..], &mut dq.get_mut()[first * width..]);
        }
    }
    gradients
}

fn accumulate_dq(isa: Isa, sizes: [usize; 3], ds: &Packed, keys: &[f32], dq: &mut [f32]) {
    product::<BLOCK, 1>(isa, sizes, ds.get(), keys, sizes[2], dq, sizes[2], true);
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum([a, b], |[a, b]| a * b)
    }

    /// `p` holds `q·kᵀ` and becomes the probabilities, `ds` holds `dout·vᵀ` and becomes the scores' gradient. Row `r` sees
    /// the columns before `visible + r`.
    fn differentiate(p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32], visible: usize, scale: f32) {
        let rows = p.as_chunks_mut::<BLOCK>().0.iter_mut().zip(ds.as_chunks_mut::<BLOCK>().0);
        for (r, (p, ds)) in rows.enumerate() {
            let (lse, delta, limit) = (lse[r], delta[r], (visible + r) as i32);
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
    let (t, group, width) = (offsets.total(), heads / kv_heads, width(d));
    let (mut dq, mut dk, mut dv) = (vec![0.0; t * heads * d], vec![0.0; t * kv_heads * d], vec![0.0; t * kv_heads * d]);
    let places: Vec<(usize, usize)> = offsets.ranges().enumerate().flat_map(|(s, range)| (0..range.len()).map(move |i| (s, i))).collect();
    let rows =
        dq.par_chunks_mut((heads * d).max(1)).zip(dk.par_chunks_mut((kv_heads * d).max(1))).zip(dv.par_chunks_mut((kv_heads * d).max(1)));
    rows.zip(places).with_min_len(16).for_each(|(((dq, dk), dv), (s, i))| {
        for h in 0..heads {
            let head = &gradients[s * heads + h];
            dq[h * d..(h + 1) * d].copy_from_slice(&head.dq.get()[i * width..][..d]);
            let columns = h / group * d..(h / group + 1) * d;
            dk[columns.clone()].iter_mut().zip(&head.dk.get()[i * width..]).for_each(|(sum, x)| *sum += x);
            dv[columns].iter_mut().zip(&head.dv.get()[i * width..]).for_each(|(sum, x)| *sum += x);
        }
    });
    (dq, dk, dv)
}
