//! Block tables as decode's kernels read them.

use candle_core::Tensor;

use super::super::shared::Items;
use crate::error::Result;
use crate::ops::cuda::{DECODE, address, upload_u64};
use crate::ops::kv_store::{BLOCK, PagedBatch};

/// The tables of `decode.cuh` on the device, for all layers of a step.
#[derive(Debug)]
pub(crate) struct BlockTable {
    /// Each row's first block among `blocks`, and its length.
    pub(super) rows: Tensor,
    /// Addresses.
    pub(super) blocks: Tensor,
    /// Items, their rows and how many items there are, where rows that share keys have them read once.
    pub(super) shared: Option<(Tensor, Tensor, usize)>,
    pub(super) count: usize,
    /// Tokens of the longest row, or more.
    pub(super) longest: usize,
}

/// What a table holds of a step, in words of 64 bits.
pub(crate) struct Words {
    /// Of each row its first block among `blocks` and, in the upper half, its length.
    pub rows: Vec<u64>,
    /// Addresses, row by row.
    pub blocks: Vec<u64>,
}

impl BlockTable {
    /// Whether rows that share keys have them read once for all.
    pub fn is_shared() -> bool {
        DECODE.takes_first()
    }

    pub fn words(step: &PagedBatch<'_>) -> Result<Words> {
        let mut words = Words { rows: Vec::new(), blocks: Vec::new() };
        for row in step.rows() {
            words.rows.push(words.blocks.len() as u64 | (row.len as u64) << 32);
            for block in &row.blocks[..row.len.div_ceil(BLOCK)] {
                words.blocks.push(address(block)?);
            }
        }
        Ok(words)
    }

    /// A table whose [`BlockTable::words`] will be found at these places; no row will be longer than `longest` tokens.
    pub fn placed(rows: Tensor, blocks: Tensor, count: usize, longest: usize) -> Self {
        Self { rows, blocks, shared: None, count, longest }
    }

    pub fn new(step: &PagedBatch<'_>, heads: usize) -> Result<Self> {
        let Words { rows: mut words, blocks: addresses } = Self::words(step)?;
        let count = words.len();
        let longest = step.rows().iter().map(|row| row.len).max().unwrap_or(0);
        let mut plan = Items::default();
        if Self::is_shared() {
            let first = |word: u64| word as u32 as usize;
            let rows = step.rows().iter().zip(&words).map(|(row, word)| (&addresses[first(*word)..], row.len));
            plan = Items::new(&rows.collect::<Vec<_>>(), heads / step.layout().kv_heads);
        }
        let Items { items, members } = plan;
        words.extend(&addresses);
        let pair = |pair: &[u32]| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32;
        words.extend(items.iter().map(|item| pair(item)));
        words.extend(members.chunks(2).map(pair));
        // One copy to the device; the words there are of 32 bits.
        let table = upload_u64(step.device().as_cuda_device()?, &words)?;
        let part = |first: usize, words: usize| table.narrow(0, 2 * first, words);
        let rest = count + addresses.len();
        let shared = match items.len() {
            0 => None,
            n => Some((part(rest, 2 * n)?, part(rest + n, members.len())?, n - 1)),
        };
        Ok(Self { rows: part(0, 2 * count)?, blocks: part(count, 2 * addresses.len())?, shared, count, longest })
    }
}
