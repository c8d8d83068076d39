//! Weighted sums of cached values in decoding: queries of one kv head against a run of values.

use crate::ops::cpu::simd::{L1, prefetch, vectorised};
use crate::ops::cpu::slice::Weight;
use crate::ops::linear::pack::Element;

vectorised! {
    /// `o[g] += Σ_j weights[g·n + j]·v[j]`, keys in order.
    pub(super) fn weigh(weights: &[f32], v: Weight<'_>, sizes: [usize; 3], o: &mut [f32]) {
        match v {
            Weight::F32(v) => weigh_by_width(weights, v, sizes, o),
            Weight::Bf16(v) => weigh_by_width(weights, v, sizes, o),
        }
    }
}

#[inline(always)]
fn weigh_by_width<T: Element>(weights: &[f32], v: &[T], sizes: [usize; 3], o: &mut [f32]) {
    match sizes[0] {
        32 => weigh_fixed::<T, 32, 4>(weights, v, sizes, o),
        64 => weigh_fixed::<T, 64, 4>(weights, v, sizes, o),
        128 => weigh_fixed::<T, 128, 2>(weights, v, sizes, o),
        _ => weigh_any(weights, v, sizes, o),
    }
}

/// A few values at a time pass all query heads while they are in L1; up to `G` heads at a time keep their sums in registers.
#[inline(always)]
fn weigh_fixed<T: Element, const D: usize, const G: usize>(weights: &[f32], v: &[T], [d, n, count]: [usize; 3], o: &mut [f32]) {
    for first in (0..count).step_by(FEW) {
        let few = FEW.min(count - first);
        let (v, sizes) = (&v[first * d..], [d, n, few]);
        if count - first > few {
            prefetch::<L1, _>(v[few * d..].as_ptr(), FEW.min(count - first - few) * d);
        }
        let mut g = 0;
        while g * D < o.len() {
            let (weights, o) = (&weights[g * n + first..], &mut o[g * D..]);
            g += match o.len() / D {
                4.. if G == 4 => weigh_heads::<T, D, 4>(weights, v, sizes, o),
                3 if G == 4 => weigh_heads::<T, D, 3>(weights, v, sizes, o),
                2.. => weigh_heads::<T, D, 2>(weights, v, sizes, o),
                _ => weigh_heads::<T, D, 1>(weights, v, sizes, o),
            };
        }
    }
}

/// Values that stay in L1 while the query heads pass.
const FEW: usize = 16;

/// The number of heads done.
#[inline(always)]
fn weigh_heads<T: Element, const D: usize, const G: usize>(weights: &[f32], v: &[T], [_, n, count]: [usize; 3], o: &mut [f32]) -> usize {
    // Loops: what `array::from_fn` and `map` call is not compiled for this CPU's vectors.
    let mut sums = [[0.0f32; D]; G];
    for (g, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&o[g * D..(g + 1) * D]);
    }
    for j in 0..count {
        let Some(value) = v[j * D..].first_chunk::<D>() else { return G };
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
fn weigh_any<T: Element>(weights: &[f32], v: &[T], [d, n, count]: [usize; 3], o: &mut [f32]) {
    for (g, o) in o.chunks_mut(d).enumerate() {
        for j in 0..count {
            let weight = weights[g * n + j];
            o.iter_mut().zip(&v[j * d..]).for_each(|(o, v)| *o = weight.mul_add(v.widen(), *o));
        }
    }
}
