//! What attention's products are made of: f32, or pairs of bf16 with sums in f32.
//!
//! Operands that are fixed for a head are packed as [`Packing`] says; the 64 × 64 blocks of probabilities and of their
//! gradients come out of a product in f32 and are the left operand of the next.

use super::blocks::{BLOCK, Packed};
use crate::ops::cast::bf16_bits;
use crate::ops::cpu::simd::{Isa, vectorised};
use crate::ops::linear::{
    kernel::product,
    pack::{AsF32, Bf16x2, Packing},
};

/// Units in a row of a block of pairs.
const HALF: usize = BLOCK / 2;

/// The two ways to multiply.
pub(crate) trait Arithmetic: Packing {
    /// `c (m, n) (+)= aᵀ·b`, `a (k units, 64)`, `b (k units, n)`.
    fn by_columns(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool);

    /// `c (m, n) (+)= a·b`, `a (64, 64/PER units)`, `b (k units, n)`.
    fn by_rows(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool);

    /// A block `(64, 64)` for [`Arithmetic::by_rows`], in `buffer` if it has to be rearranged.
    fn rows<'a>(block: &'a Packed, buffer: &'a mut Packed) -> &'a [f32];

    /// The first `rows` of a block for [`Arithmetic::by_columns`].
    fn columns<'a>(block: &'a Packed, rows: usize, buffer: &'a mut Packed) -> &'a [f32];
}

impl Arithmetic for AsF32<f32> {
    fn by_columns(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        product::<false, 1, BLOCK>(isa, sizes, a, b, sizes[2], c, sizes[2], add);
    }

    fn by_rows(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        product::<false, BLOCK, 1>(isa, sizes, a, b, sizes[2], c, sizes[2], add);
    }

    fn rows<'a>(block: &'a Packed, _: &'a mut Packed) -> &'a [f32] {
        block.get()
    }

    fn columns<'a>(block: &'a Packed, _: usize, _: &'a mut Packed) -> &'a [f32] {
        block.get()
    }
}

impl Arithmetic for Bf16x2 {
    fn by_columns(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        product::<true, 1, BLOCK>(isa, sizes, a, b, sizes[2], c, sizes[2], add);
    }

    fn by_rows(isa: Isa, sizes: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        product::<true, HALF, 1>(isa, sizes, a, b, sizes[2], c, sizes[2], add);
    }

    fn rows<'a>(block: &'a Packed, buffer: &'a mut Packed) -> &'a [f32] {
        pair_columns(block.get(), buffer.get_mut());
        buffer.get()
    }

    fn columns<'a>(block: &'a Packed, rows: usize, buffer: &'a mut Packed) -> &'a [f32] {
        pair_rows(block.get(), rows, buffer.get_mut());
        buffer.get()
    }
}

vectorised! {
    /// `(64, 64)` → `(64, 32)`: neighbours in a row.
    fn pair_columns(block: &[f32], to: &mut [f32]) {
        for (to, pair) in to.iter_mut().zip(block.as_chunks::<2>().0) {
            *to = f32::from_bits(bf16_bits(pair[0]) | bf16_bits(pair[1]) << 16);
        }
    }

    /// `(rows, 64)` → `(rows / 2, 64)`: neighbours in a column, the last with 0 if it has none.
    fn pair_rows(block: &[f32], rows: usize, to: &mut [f32]) {
        let block = block.as_chunks::<BLOCK>().0;
        let to = to.as_chunks_mut::<BLOCK>().0;
        for (u, to) in to.iter_mut().enumerate().take(rows.div_ceil(2)) {
            let low = &block[2 * u];
            let high = if 2 * u + 1 < rows { block[2 * u + 1] } else { [0.0; BLOCK] };
            for c in 0..BLOCK {
                to[c] = f32::from_bits(bf16_bits(low[c]) | bf16_bits(high[c]) << 16);
            }
        }
    }
}
