//! The operands of a product as they lie in memory, and the packing of the right one.

use std::ops::Range;

use super::kernel::NR;
use super::pack::Packing;
use super::rearrange::{copy_rows, transpose};
use crate::ops::cpu::simd::Isa;

/// How an operand lies in memory: `Plain` as the product names it, row-major; `Transposed` the other way.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a, T> {
    Plain(&'a [T]),
    Transposed(&'a [T]),
}

impl<T> Operand<'_, T> {
    /// The same elements as an operand on the other side of the transposed product.
    pub fn flipped(self) -> Self {
        match self {
            Self::Plain(x) => Self::Transposed(x),
            Self::Transposed(x) => Self::Plain(x),
        }
    }
}

/// Columns `columns` of the right operand, 32 at a time, as `(units, 32)`; units beyond the steps are 0.
pub(super) fn pack_right<B: Packing>(
    isa: Isa,
    b: Operand<'_, B::Item>,
    [k, n]: [usize; 2],
    columns: &Range<usize>,
    steps: [usize; 2],
    to: &mut [f32],
    units: usize,
) {
    let length = steps[1] - steps[0];
    if let Operand::Plain(b) = b {
        copy_rows::<B>(isa, &b[steps[0] * n + columns.start..], n, [length, columns.len()], to, NR, units * NR);
    }
    for (panel, to) in to.chunks_mut(units * NR).enumerate() {
        if let Operand::Transposed(b) = b {
            let first = columns.start + panel * NR;
            let width = NR.min(columns.end - first);
            transpose::<B>(isa, &b[first * k + steps[0]..], k, [width, length], to, NR);
        }
        to[length.div_ceil(B::PER) * NR..].fill(0.0);
    }
}
