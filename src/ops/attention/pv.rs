//! The product P·V of decoding attention: softmax weights of the queries of one kv head times a run of cached values.

use crate::ops::cpu::simd::{L1, prefetch, vectorised};
use crate::ops::cpu::slice::Weight;
use crate::ops::linear::pack::Element;

vectorised! {
    /// `o (heads, d) += weights (heads, count) · v (count, d)`, keys in order:
    /// `o[g][c] += Σ_j weights[g·n + j]·v[j·d + c]`.
    /// `sizes` is `[d, n, count]`: the head dimension, how far apart the rows of `weights` are, the keys of this run.
    pub(super) fn pv(weights: &[f32], v: Weight<'_>, sizes: [usize; 3], o: &mut [f32]) {
        match v {
            Weight::F32(v) => pv_by_width(weights, v, sizes, o),
            Weight::Bf16(v) => pv_by_width(weights, v, sizes, o),
        }
    }
}

#[inline(always)]
fn pv_by_width<T: Element>(weights: &[f32], v: &[T], sizes: [usize; 3], o: &mut [f32]) {
    match sizes[0] {
        32 => pv_fixed::<T, 32, 4>(weights, v, sizes, o),
        64 => pv_fixed::<T, 64, 4>(weights, v, sizes, o),
        128 => pv_fixed::<T, 128, 2>(weights, v, sizes, o),
        _ => pv_any(weights, v, sizes, o),
    }
}

/// Head dimensions known at compile time: [`KEYS_IN_L1`] rows of V are used by all query heads while they are in L1,
/// and the sums of up to `G` heads stay in registers.
#[inline(always)]
fn pv_fixed<T: Element, const D: usize, const G: usize>(
    weights: &[f32],
    v: &[T],
    [d, n, count]: [usize; 3],
    o: &mut [f32],
) {
    for first in (0..count).step_by(KEYS_IN_L1) {
        let keys = KEYS_IN_L1.min(count - first);
        let v = &v[first * d..];
        let sizes = [d, n, keys];
        if count - first > keys {
            prefetch::<L1, _>(v[keys * d..].as_ptr(), KEYS_IN_L1.min(count - first - keys) * d);
        }
        let mut g = 0;
        while g * D < o.len() {
            let weights = &weights[g * n + first..];
            let o = &mut o[g * D..];
            g += match o.len() / D {
                4.. if G == 4 => pv_heads::<T, D, 4>(weights, v, sizes, o),
                3 if G == 4 => pv_heads::<T, D, 3>(weights, v, sizes, o),
                2.. => pv_heads::<T, D, 2>(weights, v, sizes, o),
                _ => pv_heads::<T, D, 1>(weights, v, sizes, o),
            };
        }
    }
}

/// Rows of V that are processed together, so that they stay in L1 while all query heads use them.
const KEYS_IN_L1: usize = 16;

/// The first `G` heads of `o`; returns `G`.
#[inline(always)]
fn pv_heads<T: Element, const D: usize, const G: usize>(
    weights: &[f32],
    v: &[T],
    [_, n, count]: [usize; 3],
    o: &mut [f32],
) -> usize {
    // Loops, no `array::from_fn` or `map`: a closure called by the standard library is compiled without this CPU's
    // vector instructions.
    let mut sums = [[0.0f32; D]; G];
    for (g, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&o[g * D..(g + 1) * D]);
    }
    let (rows, _) = v[..count * D].as_chunks::<D>();
    for j in 0..count {
        let value = &rows[j];
        let mut wide = [0.0f32; D];
        for c in 0..D {
            wide[c] = value[c].widen();
        }
        for g in 0..G {
            let weight = weights[g * n + j];
            for c in 0..D {
                sums[g][c] = weight.mul_add(wide[c], sums[g][c]);
            }
        }
    }
    for (g, sums) in sums.iter().enumerate() {
        o[g * D..(g + 1) * D].copy_from_slice(sums);
    }
    G
}

#[inline(always)]
fn pv_any<T: Element>(weights: &[f32], v: &[T], [d, n, count]: [usize; 3], o: &mut [f32]) {
    for (g, o) in o.chunks_mut(d).enumerate() {
        for j in 0..count {
            let weight = weights[g * n + j];
            o.iter_mut().zip(&v[j * d..]).for_each(|(o, v)| *o = weight.mul_add(v.widen(), *o));
        }
    }
}
