//! How the output of a product is split into tasks for threads. The split decides no bits: an element is the same sum
//! in any tile.

use std::ops::Range;

use super::kernel::NR;

/// Most columns of a tile: packed with KC steps of k they take 1 MB, which stays in a core's L2.
const NC: usize = 512;
/// Fewest rows of a tile for which packing its columns pays.
const MIN_ROWS: usize = 128;

/// A rectangle of the output: one task.
pub(super) struct OutputTile {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// Splits an `(m, n)` output into tiles whose heights are multiples of `row_multiple` (the kernel's rows).
///
/// Columns are split first, so that each is packed by one task only; rows are split too where there are fewer column
/// blocks than threads want. `all_columns` counts the columns of all outputs that are computed together.
pub(super) fn output_tiles(m: usize, n: usize, all_columns: usize, row_multiple: usize) -> Vec<OutputTile> {
    let threads = rayon::current_num_threads();
    let width = all_columns.div_ceil(4 * threads).next_multiple_of(NR).min(NC);
    let row_blocks = (2 * threads).div_ceil(all_columns.div_ceil(width)).min(m.div_ceil(MIN_ROWS)).max(1);
    let height = m.div_ceil(row_blocks).next_multiple_of(row_multiple);
    let column_blocks = |rows: Range<usize>| {
        (0..n).step_by(width).map(move |j| OutputTile { rows: rows.clone(), columns: j..(j + width).min(n) })
    };
    (0..m).step_by(height).flat_map(|i| column_blocks(i..(i + height).min(m))).collect()
}
