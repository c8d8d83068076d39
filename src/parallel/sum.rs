//! The sum over ranks in rank order: reduce-scatter, then all-gather, over plain sends and receives.
//!
//! `MPI_Allreduce` promises no order of summation, so its bits may change with the library, the network and the
//! placement of ranks. Here each rank owns a segment of the numbers: it receives that segment of every other rank,
//! adds all of them up in rank order, x₀ + x₁ + … + x_{N−1}, and sends the sum to every other. A rank sends and
//! receives 2(N − 1)/N of the numbers, the least that any algorithm can.

use super::transport::Transport;

/// Numbers summed at a time: 8 MB, so that the parts of others are still in a cache when they are added up.
const BLOCK: usize = (8 << 20) / size_of::<f32>();

/// Adds up `values` over the ranks.
pub(super) fn in_rank_order(transport: &Transport, rank: usize, size: usize, values: &mut [f32]) {
    if size == 1 {
        return;
    }
    let mut parts = Vec::new();
    for block in values.chunks_mut(BLOCK) {
        sum_block(transport, rank, size, block, &mut parts);
    }
}

fn sum_block(transport: &Transport, rank: usize, size: usize, block: &mut [f32], parts: &mut Vec<f32>) {
    let longest = block.len().div_ceil(size);
    let segment = |of: usize| (of * longest).min(block.len())..((of + 1) * longest).min(block.len());
    let own = segment(rank);

    // Reduce-scatter. The parts of this rank's segment lie one after another, its own among them.
    parts.clear();
    parts.resize(size * own.len(), 0.0);
    let sends = (0..size).filter(|&to| to != rank).map(|to| (to, &block[segment(to)])).collect();
    let receives = parts.chunks_mut(own.len().max(1)).enumerate().filter(|(from, _)| *from != rank).collect();
    transport.exchange(sends, receives);
    parts[rank * own.len()..(rank + 1) * own.len()].copy_from_slice(&block[own.clone()]);
    let (sum, rest) = parts.split_at_mut(own.len());
    for part in rest.chunks(own.len().max(1)) {
        sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }

    // All-gather.
    let sum = &*sum;
    let sends = (0..size).filter(|&to| to != rank).map(|to| (to, sum)).collect();
    let receives = block.chunks_mut(longest.max(1)).enumerate().filter(|(from, _)| *from != rank).collect();
    transport.exchange(sends, receives);
    block[own].copy_from_slice(sum);
}
