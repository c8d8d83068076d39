//! Weights of tokens as integers, whose sums are the same in any order: what lets a GPU choose the CPU's token.

use crate::ops::cpu::simd::vectorised;

/// A weight of 1: the best token's.
pub(super) const ONE: u64 = 1 << 40;

/// `e^x` in units of 2⁻⁴⁰ for `x = (logit − best) / temperature`, at most 0; NaN weighs nothing. Within a unit;
/// `kernels.cu` has the same operations in the same order, so both give the same integer.
#[inline(always)]
fn weight(logit: f32, best: f32, temperature: f64) -> u64 {
    // Adding 1.5·2⁵² rounds x/ln 2 to an integer and leaves that integer in the low mantissa bits; adding 2⁵²
    // rounds the result.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let x = f64::from(logit - best) / temperature;
    let shifted = x.mul_add(std::f64::consts::LOG2_E, MAGIC);
    let r = (shifted - MAGIC).mul_add(-std::f64::consts::LN_2, x);
    // 1/k!, for |r| ≤ ln 2 / 2: the twelfth term is below 10⁻¹⁴.
    let mut y = 1.0 / 39_916_800.0;
    for factorial in [3_628_800.0, 362_880.0, 40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        y = f64::mul_add(y, r, 1.0 / factorial);
    }
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1063 << 52));
    let units = y.mul_add(scale, TWO_52).to_bits() & ((1 << 52) - 1);
    // e^−28.5 is less than half a unit.
    if x >= -28.5 { units } else { 0 }
}

vectorised! {
    /// The weight of each logit; `best` is the greatest, finite, and `temperature` above 0. Fewer than 2²⁴ of them
    /// add up in 64 bits.
    pub(super) fn softmax_weights(logits: &[f32], best: f32, temperature: f64, weights: &mut [u64]) {
        weights.iter_mut().zip(logits).for_each(|(w, &logit)| *w = weight(logit, best, temperature));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;

    fn weights(logits: &[f32], best: f32, temperature: f64) -> Vec<u64> {
        same_on_every_isa(|| {
            let mut weights = vec![0; logits.len()];
            softmax_weights(logits, best, temperature, &mut weights);
            weights
        })
    }

    #[test]
    fn a_weight_is_the_exponential_to_one_unit() {
        let logits: Vec<f32> = (0..40_000).map(|i| 3.0 - i as f32 * 1e-3).collect();
        for temperature in [0.3, 1.0, 1.7] {
            for (&logit, weight) in logits.iter().zip(weights(&logits, 3.0, temperature)) {
                let exact = (f64::from(logit - 3.0) / temperature).exp() * ONE as f64;
                assert!((weight as f64 - exact).abs() < 0.52, "{logit}: {weight}, not {exact}");
            }
        }
        assert_eq!(weights(&[2.0, f32::NAN, f32::NEG_INFINITY, -1e30], 2.0, 1e-300), [ONE, 0, 0, 0]);
    }

    /// The same number is asked of `kernels.cu` in `tests/emulation/sample.cpp`.
    #[test]
    fn weights_are_the_gpus() {
        let logits: Vec<f32> = (0..1100).map(|i| -(i as f32) / 37.0).collect();
        let mixed =
            (1u64..).zip(weights(&logits, 0.0, 0.7)).fold(0u64, |sum, (i, w)| sum.wrapping_mul(31).wrapping_add(i ^ w));
        assert_eq!(mixed, 7_922_635_230_830_503_934);
    }
}
