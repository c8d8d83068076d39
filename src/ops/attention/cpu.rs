//! Attention on slices, a row of scores at a time.

use super::{Dims, Offsets};
use rayon::prelude::*;

/// What backward reads.
pub(crate) struct Saved<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub dout: &'a [f32],
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `(sequence's keys, number of keys seen)` of every query row.
fn spans(q_offsets: &Offsets, kv_offsets: &Offsets) -> Vec<(usize, usize)> {
    q_offsets
        .ranges()
        .zip(kv_offsets.ranges())
        .flat_map(|(q, kv)| (0..q.len()).map(move |i| (kv.start, kv.len() - q.len() + i + 1)))
        .collect()
}

pub(crate) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dims: Dims,
    q_offsets: &Offsets,
    kv_offsets: &Offsets,
    scale: f32,
) -> (Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let (tq, group) = (q_offsets.total(), heads / kv_heads);
    let (mut out, mut lse) = (vec![0.0; tq * heads * d], vec![0.0; heads * tq]);
    let spans = spans(q_offsets, kv_offsets);
    let rows: Vec<Vec<f32>> = out
        .par_chunks_mut((heads * d).max(1))
        .enumerate()
        .map(|(i, out)| {
            let (start, seen) = spans[i];
            (0..heads)
                .map(|h| {
                    let at = |j: usize| ((start + j) * kv_heads + h / group) * d;
                    let q = &q[(i * heads + h) * d..][..d];
                    let scores: Vec<f32> = (0..seen).map(|j| scale * dot(q, &k[at(j)..][..d])).collect();
                    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f32 = scores.iter().map(|s| (s - max).exp()).sum();
                    let out = &mut out[h * d..(h + 1) * d];
                    for (j, s) in scores.iter().enumerate() {
                        let p = (s - max).exp() / sum;
                        out.iter_mut().zip(&v[at(j)..][..d]).for_each(|(o, v)| *o += p * v);
                    }
                    max + sum.ln()
                })
                .collect()
        })
        .collect();
    for (i, row) in rows.iter().enumerate() {
        for (h, value) in row.iter().enumerate() {
            lse[h * tq + i] = *value;
        }
    }
    (out, lse)
}

pub(crate) fn backward(saved: &Saved<'_>, dims: Dims, offsets: &Offsets, scale: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Dims { heads, kv_heads, d } = dims;
    let (t, group) = (offsets.total(), heads / kv_heads);
    let (mut dq, mut dk, mut dv) = (vec![0.0; t * heads * d], vec![0.0; t * kv_heads * d], vec![0.0; t * kv_heads * d]);
    for (i, (start, seen)) in spans(offsets, offsets).into_iter().enumerate() {
        for h in 0..heads {
            let row = (i * heads + h) * d..(i * heads + h + 1) * d;
            let (q, dout) = (&saved.q[row.clone()], &saved.dout[row.clone()]);
            let delta = dot(&saved.out[row.clone()], dout);
            for j in 0..seen {
                let at = ((start + j) * kv_heads + h / group) * d;
                let p = (scale * dot(q, &saved.k[at..][..d]) - saved.lse[h * t + i]).exp();
                let ds = scale * p * (dot(dout, &saved.v[at..][..d]) - delta);
                for c in 0..d {
                    dq[row.start + c] += ds * saved.k[at + c];
                    dk[at + c] += ds * q[c];
                    dv[at + c] += p * dout[c];
                }
            }
        }
    }
    (dq, dk, dv)
}

pub(crate) fn decode(q: &[f32], rows: &[Vec<(&[f32], &[f32], usize)>], dims: Dims, scale: f32) -> Vec<f32> {
    let Dims { heads, kv_heads, d } = dims;
    let group = heads / kv_heads;
    let mut out = vec![0.0; rows.len() * heads * d];
    out.par_chunks_mut(d.max(1)).enumerate().for_each(|(unit, out)| {
        let (row, h) = (&rows[unit / heads], unit % heads);
        let q = &q[unit * d..(unit + 1) * d];
        let at = |j: usize| (j * kv_heads + h / group) * d;
        let scores: Vec<f32> = row.iter().flat_map(|&(k, _, len)| (0..len).map(move |j| scale * dot(q, &k[at(j)..][..d]))).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|s| (s - max).exp()).sum();
        let values = row.iter().flat_map(|&(_, v, len)| (0..len).map(move |j| &v[at(j)..][..d]));
        for (s, v) in scores.iter().zip(values) {
            let p = (s - max).exp() / sum;
            out.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
        }
    });
    out
}
