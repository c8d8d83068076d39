//! How a product's output is shared out to threads. It decides no bits: an element is one sum wherever it lies.

use std::ops::Range;

use super::kernel::NR;

/// Columns a chunk packs at most: with KC steps, 1 MB that stays in a core's L2.
const NC: usize = 512;
/// Rows below which a chunk is not worth packing its columns for.
const HEIGHT: usize = 128;

/// A rectangle of the output.
pub(super) struct OutputTile {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// Chunks of an `(m, n)` output made of tiles of `tile` rows: of columns, so that each column is packed once; of rows too
/// where there are not enough columns to go round. `all`: columns of all outputs that are shared out together.
pub(super) fn output_tiles(m: usize, n: usize, all: usize, tile: usize) -> Vec<OutputTile> {
    let threads = rayon::current_num_threads();
    let width = all.div_ceil(4 * threads).next_multiple_of(NR).min(NC);
    let down = (2 * threads).div_ceil(all.div_ceil(width)).min(m.div_ceil(HEIGHT)).max(1);
    let height = m.div_ceil(down).next_multiple_of(tile);
    let across = |rows: Range<usize>| (0..n).step_by(width).map(move |j| OutputTile { rows: rows.clone(), columns: j..(j + width).min(n) });
    (0..m).step_by(height).flat_map(|i| across(i..(i + height).min(m))).collect()
}
