//! One head's rows, rearranged for the products: rows padded to whole tiles, and blocks of 64 rows transposed.

use crate::ops::cpu::simd::Isa;
use crate::ops::linear::pack::{Line, Packing, floats, floats_mut};
use crate::ops::linear::rearrange::{copy_rows, transpose};

/// Rows of queries and of keys that meet at a time.
pub(crate) const BLOCK: usize = 64;

/// A head of a `(tokens, heads, d)` tensor: where its rows lie.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a, T> {
    /// Elements from the first row of the sequence and this head on.
    pub values: &'a [T],
    /// From a row to the next.
    pub stride: usize,
    /// Rows of the sequence.
    pub rows: usize,
    /// Channels.
    pub d: usize,
}

impl<'a, T: Copy> Head<'a, T> {
    /// Head `index` of `heads`, rows `start..start + rows`.
    pub fn new(values: &'a [T], [heads, d]: [usize; 2], index: usize, start: usize, rows: usize) -> Self {
        let stride = heads * d;
        let first = if rows == 0 { 0 } else { start * stride + index * d };
        Self { values: &values[first..], stride, rows, d }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [T] {
        &self.values[i * self.stride..][..self.d]
    }

    /// `(rows in units, width)`: the rows side by side, padded with 0 to a whole number of tiles.
    pub fn packed<P: Packing<Item = T>>(&self, isa: Isa) -> Packed {
        let width = width(self.d);
        let mut lines = vec![Line::default(); self.rows.div_ceil(P::PER) * width / 16];
        copy_rows::<P>(isa, self.values, self.stride, [self.rows, self.d], floats_mut(&mut lines), width, usize::MAX);
        Packed(lines)
    }

    /// `(blocks, d in units, 64)`: every 64 rows transposed, the last block padded with 0.
    pub fn transposed<P: Packing<Item = T>>(&self, isa: Isa) -> Packed {
        let size = BLOCK * self.d.div_ceil(P::PER);
        let mut lines = vec![Line::default(); self.rows.div_ceil(BLOCK) * size / 16];
        for (block, to) in floats_mut(&mut lines).chunks_mut(size).enumerate() {
            self.transpose_block::<P>(isa, block * BLOCK, to);
        }
        Packed(lines)
    }

    /// Rows `first..first + 64` as `(d in units, 64)`.
    pub fn transpose_block<P: Packing<Item = T>>(&self, isa: Isa, first: usize, to: &mut [f32]) {
        let rows = BLOCK.min(self.rows - first);
        transpose::<P>(isa, &self.values[first * self.stride..], self.stride, [rows, self.d], to, BLOCK);
    }
}

/// Aligned numbers.
pub(crate) struct Packed(Vec<Line>);

impl Packed {
    /// So many zeros (a multiple of 16).
    pub fn zeros(n: usize) -> Self {
        Self(vec![Line::default(); n.div_ceil(16)])
    }

    /// To read.
    pub fn get(&self) -> &[f32] {
        floats(&self.0)
    }

    /// To write.
    pub fn get_mut(&mut self) -> &mut [f32] {
        floats_mut(&mut self.0)
    }
}

/// Channels padded to whole tiles of 32.
pub(crate) fn width(d: usize) -> usize {
    d.next_multiple_of(32)
}
