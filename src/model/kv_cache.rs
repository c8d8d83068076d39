//! The paged KV cache: the keys and values of each sequence's tokens in blocks of 64. Sequences with a common prefix
//! share its full blocks; a shared block is copied before it is written.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::{
    error::Result,
    ops::kv_store::{self, BLOCK, PagedSequence},
};

use super::LlamaConfig;

/// Allocates blocks and takes them back for reuse. When the last block in use comes back, all memory is freed, so that
/// nothing is held between runs.
#[derive(Debug)]
pub(super) struct BlockPool {
    /// `(layers, 2, kv_heads, 64, width)`.
    shape: [usize; 5],
    dtype: DType,
    device: Device,
    state: Mutex<BlockPoolState>,
}

#[derive(Debug, Default)]
struct BlockPoolState {
    free: Vec<Tensor>,
    in_use: usize,
}

impl BlockPool {
    /// For the sequences of a model whose matrices are `weights`.
    pub fn new(config: &LlamaConfig, weights: DType, device: &Device) -> Self {
        let width = kv_store::width(config.head_dim, device);
        let shape = [config.num_hidden_layers, 2, config.num_key_value_heads, BLOCK, width];
        Self { shape, dtype: kv_store::dtype(weights, device), device: device.clone(), state: Mutex::default() }
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size_in_bytes()
    }

    /// A block whose contents are unspecified, but for the padding behind head_dim, which is zeros.
    fn allocate(self: &Arc<Self>) -> Result<Block> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tensor = match state.free.pop() {
            Some(tensor) => tensor,
            None => Tensor::zeros(&self.shape, self.dtype, &self.device)?,
        };
        state.in_use += 1;
        Ok(Block { tensor, pool: self.clone() })
    }

    /// Number of blocks in use.
    #[cfg(test)]
    pub fn in_use(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).in_use
    }

    fn free_block(&self, tensor: Tensor) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_use -= 1;
        state.free.push(tensor);
        if state.in_use == 0 {
            state.free = Vec::new();
        }
    }
}

/// Keys and values of 64 tokens in every layer.
#[derive(Debug)]
struct Block {
    tensor: Tensor,
    pool: Arc<BlockPool>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.free_block(self.tensor.clone());
    }
}

/// The block table and length of one sequence. Clones share its blocks; one that grows copies the last, partly filled
/// block first (copy-on-write).
#[derive(Debug, Clone, Default)]
pub struct SequenceCache {
    blocks: Vec<Arc<Block>>,
    len: usize,
}

impl SequenceCache {
    /// Tokens seen: the position of the next one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has seen none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sequence of its first `len` tokens, sharing their blocks.
    pub fn prefix(&self, len: usize) -> Self {
        Self { blocks: self.blocks[..len.div_ceil(BLOCK)].to_vec(), len }
    }

    /// Allocates blocks for `new` more tokens, and copies a partly filled last block that is shared.
    pub(super) fn reserve(&mut self, new: usize, pool: &Arc<BlockPool>) -> Result<()> {
        for i in self.len / BLOCK..(self.len + new).div_ceil(BLOCK) {
            if i == self.blocks.len() {
                self.blocks.push(Arc::new(pool.allocate()?));
            } else if Arc::get_mut(&mut self.blocks[i]).is_none() {
                let own = pool.allocate()?;
                own.tensor.slice_set(&self.blocks[i].tensor, 0, 0)?;
                self.blocks[i] = Arc::new(own);
            }
        }
        Ok(())
    }

    /// Its block table for a step that adds `new` tokens, which are reserved.
    pub(super) fn paged(&self, new: usize) -> PagedSequence<'_> {
        PagedSequence { blocks: self.blocks.iter().map(|block| &block.tensor).collect(), len: self.len + new, new }
    }

    /// Counts `new` tokens, once every layer has stored them.
    pub(super) fn grow(&mut self, new: usize) {
        self.len += new;
    }
}

/// Bytes of keys and values a token, of a model whose weights have type `weights`.
pub fn bytes_per_token(config: &LlamaConfig, weights: DType, device: &Device) -> usize {
    BlockPool::new(config, weights, device).block_bytes() / BLOCK
}

/// `tokens` rounded up to whole blocks.
pub fn round_up_to_blocks(tokens: usize) -> usize {
    tokens.next_multiple_of(BLOCK)
}

/// Tokens, in whole blocks, that a sequence allocates which shares a prefix of `shared` tokens and adds `new`: the
/// prefix's full blocks are not counted.
pub fn own_block_tokens(shared: usize, new: usize) -> usize {
    round_up_to_blocks(shared.saturating_add(new).min(usize::MAX - BLOCK)) - shared / BLOCK * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Llama, config::tests::tiny},
        ops::Offsets,
    };

    fn bits(x: &Tensor) -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    fn read(llama: &Llama, ids: &[u32], cache: &mut SequenceCache) -> Vec<u32> {
        bits(&llama.prefill(ids, &Offsets::from_lengths(&[ids.len()]), std::slice::from_mut(cache)).unwrap())
    }

    fn write(llama: &Llama, id: u32, cache: &mut SequenceCache) -> Vec<u32> {
        bits(&llama.decode(&[id], &mut [cache]).unwrap())
    }

    fn held(llama: &Llama) -> (usize, usize) {
        let state = llama.kv_pool.state.lock().unwrap();
        (state.in_use, state.free.len())
    }

    fn ids(n: usize, seed: u32) -> Vec<u32> {
        (0..n as u32).map(|i| (i * 7 + seed) % 11).collect()
    }

    /// Whatever samples share of a prompt, each has the bits of one that read it alone; and so has the rest of a prompt
    /// behind a part of it.
    #[test]
    fn samples_never_see_each_other() {
        for dtype in [DType::F32, DType::BF16] {
            let llama = Llama::random(tiny(), dtype, 5, &Device::Cpu).unwrap();
            for prompt in [1, 63, 64, 65, 130] {
                let prompt = ids(prompt, 3);
                let mut whole = SequenceCache::default();
                let last = read(&llama, &prompt, &mut whole);
                let mut parts = SequenceCache::default();
                read(&llama, &prompt[..prompt.len().div_ceil(2)], &mut parts);
                if prompt.len() > 1 {
                    assert_eq!(
                        read(&llama, &prompt[prompt.len().div_ceil(2)..], &mut parts),
                        last,
                        "{} in two parts",
                        prompt.len()
                    );
                }
                let mut samples = [whole.clone(), whole.clone(), parts.clone(), whole.clone()];
                let mut alone: Vec<SequenceCache> = samples.iter().map(|_| SequenceCache::default()).collect();
                alone.iter_mut().for_each(|cache| drop(read(&llama, &prompt, cache)));
                for step in 0..70 {
                    let tokens: Vec<u32> = (0..4).map(|i| (step * 5 + i * 3) % 11).collect();
                    let mut all: Vec<&mut SequenceCache> = samples.iter_mut().collect();
                    let together = bits(&llama.decode(&tokens, &mut all).unwrap());
                    let each: Vec<u32> =
                        alone.iter_mut().zip(&tokens).flat_map(|(cache, &token)| write(&llama, token, cache)).collect();
                    assert_eq!(together, each, "{dtype:?}, {} tokens, step {step}", prompt.len());
                }
                // What they share is as it was.
                let mut after = SequenceCache::default();
                read(&llama, &prompt, &mut after);
                assert_eq!(write(&llama, 4, &mut whole), write(&llama, 4, &mut after));
            }
        }
    }

    #[test]
    fn full_blocks_are_shared_and_a_block_with_room_is_copied_by_who_grows() {
        let llama = Llama::random(tiny(), DType::F32, 5, &Device::Cpu).unwrap();
        let mut first = SequenceCache::default();
        read(&llama, &ids(130, 1), &mut first);
        assert_eq!(held(&llama), (3, 0));
        let mut second = first.clone();
        let third = first.clone();
        assert_eq!(held(&llama), (3, 0));
        write(&llama, 1, &mut second);
        assert_eq!(held(&llama), (4, 0));
        for i in 0..3 {
            assert_eq!(Arc::ptr_eq(&first.blocks[i], &second.blocks[i]), i < 2);
        }
        write(&llama, 1, &mut first);
        drop(third);
        write(&llama, 1, &mut first);
        write(&llama, 1, &mut second);
        assert_eq!(held(&llama), (4, 1), "the block that nobody has any more waits");
        assert_eq!((first.len(), second.len()), (132, 132));
    }

    #[test]
    fn blocks_are_used_again_and_freed_with_the_last() {
        let llama = Llama::random(tiny(), DType::F32, 5, &Device::Cpu).unwrap();
        let mut one = SequenceCache::default();
        let mut two = SequenceCache::default();
        read(&llama, &ids(200, 1), &mut one);
        read(&llama, &ids(70, 2), &mut two);
        assert_eq!(held(&llama), (6, 0));
        let before: Vec<_> = one.blocks.iter().map(|block| block.tensor.id()).collect();
        drop(one);
        assert_eq!(held(&llama), (2, 4));
        let mut three = SequenceCache::default();
        let again = read(&llama, &ids(100, 3), &mut three);
        assert_eq!(held(&llama), (4, 2));
        assert!(three.blocks.iter().all(|block| before.contains(&block.tensor.id())));
        drop((two, three));
        assert_eq!(held(&llama), (0, 0));
        // What a block held before does not show.
        assert_eq!(read(&llama, &ids(100, 3), &mut SequenceCache::default()), again);
    }

    #[test]
    fn tokens_are_counted_in_whole_blocks() {
        assert_eq!([0, 1, 64, 65].map(round_up_to_blocks), [0, 64, 64, 128]);
        // A prompt of 130 tokens: two full blocks, which are shared; its third is copied.
        for (new, tokens) in [(1, 64), (62, 64), (63, 128), (200, 256)] {
            assert_eq!(own_block_tokens(130, new), tokens);
        }
        assert_eq!([own_block_tokens(128, 64), own_block_tokens(128, 65), own_block_tokens(0, 1)], [64, 128, 64]);
        assert!(own_block_tokens(130, usize::MAX) > 1 << 62);
        let llama = Llama::random(tiny(), DType::BF16, 5, &Device::Cpu).unwrap();
        let config = &llama.config;
        let numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
        assert_eq!(llama.kv_bytes_per_token(), 2 * numbers);
    }
}
