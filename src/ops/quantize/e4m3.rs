//! e4m3, the FP8 format of weights and activations: a sign, 4 bits of exponent (bias 7), 3 of mantissa. Its largest
//! number is 448, its smallest 2⁻⁹; it has no infinity, and all ones is no number.

use std::sync::LazyLock;

/// The largest number.
pub const LARGEST: f32 = 448.0;
/// The smallest of a full mantissa is 2⁻⁶; below it numbers are multiples of 2⁻⁹.
const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
const PER_UNIT: f32 = 512.0;
/// Bits of an f32's mantissa that e4m3 has not.
const DROPPED: u32 = 20;
/// The difference of the exponents' biases, as the code's bits hold it.
const REBIAS: u32 = (127 - 7) << 3;

/// What each code stands for.
static VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|code| value(code as u32)));

fn value(code: u32) -> f32 {
    let size = code & 0x7f;
    let size = match size {
        0x7f => f32::NAN,
        0..8 => size as f32 / PER_UNIT,
        _ => f32::from_bits((size + REBIAS) << DROPPED),
    };
    if code > 0x7f { -size } else { size }
}

/// The number that a code stands for.
pub fn decode(code: u8) -> f32 {
    VALUES[usize::from(code)]
}

/// The code of the nearest number, of two the even one; beyond ±448 that of ±448. What is no number stays none.
pub fn encode(x: f32) -> u8 {
    let sign = ((x.to_bits() >> 24) & 0x80) as u8;
    let size = x.abs().min(LARGEST);
    let code = if x.is_nan() {
        0x7f
    } else if size < SMALLEST_NORMAL {
        // Up to 8, which is the code of 2⁻⁶.
        (size * PER_UNIT).round_ties_even() as u32
    } else {
        let bits = size.to_bits();
        let even = (bits >> DROPPED) & 1;
        ((bits + (1 << (DROPPED - 1)) - 1 + even) >> DROPPED) - REBIAS
    };
    sign | code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_own_code() {
        for code in 0..=255u8 {
            let x = decode(code);
            assert_eq!(x.is_nan(), code & 0x7f == 0x7f, "{code:#x}");
            assert_eq!(encode(x) & if x.is_nan() { 0x7f } else { 0xff }, code & if x.is_nan() { 0x7f } else { 0xff });
        }
        assert_eq!([0x7e, 0xfe, 1, 8, 0x38].map(decode), [448.0, -448.0, 0.001_953_125, 0.015_625, 1.0]);
    }

    #[test]
    fn what_is_too_large_becomes_the_largest() {
        for x in [448.1, 464.0, 480.0, 1e30, f32::INFINITY] {
            assert_eq!([encode(x), encode(-x)], [0x7e, 0xfe], "{x}");
        }
        assert_eq!([0.0, -0.0, 1e-40, f32::MIN_POSITIVE, 0.000_976_562_5].map(encode), [0, 0x80, 0, 0, 0]);
        assert_eq!([0.000_976_562_6, 1.0625, 1.187_5, 0.015_624].map(encode), [1, 0x38, 0x3a, 8]);
    }
}
