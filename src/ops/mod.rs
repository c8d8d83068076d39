//! One folder an op: its equation, its forward and its hand-written backward, CPU and CUDA side by side. Layer 2.

pub mod activation;
pub mod adamw;
mod add;
pub mod attention;
pub mod cast;
pub mod cpu;
pub mod cross_entropy;
pub mod cuda;
pub mod decode_step;
pub mod dropout;
pub mod embedding;
mod indices;
pub mod kv_store;
pub mod linear;
pub mod lora;
pub mod quantize;
pub mod random;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

pub use adamw::grad_norm;
pub use add::add;
pub(crate) use cpu::par_for::ParFor;
pub use cpu::thread_team::{DECODE_THREADS, with_spinning_workers};
pub use indices::Indices;

/// Where each sequence of a concatenated batch begins: sequence `i` owns rows `range(i)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets(Vec<usize>);

impl Offsets {
    /// Offsets of sequences with these lengths.
    pub fn from_lengths(lengths: &[usize]) -> Self {
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        starts.push(0);
        for length in lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        Self(starts)
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.0.len() - 1
    }

    /// Rows of sequence `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.0[i]..self.0[i + 1]
    }

    /// Rows in all.
    pub fn total(&self) -> usize {
        self.0[self.0.len() - 1]
    }

    /// Rows of each sequence in turn.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.count()).map(|i| self.range(i))
    }

    /// First row of each sequence, then the number of rows in all: what kernels read.
    pub fn starts(&self) -> Vec<u32> {
        self.0.iter().map(|&start| start as u32).collect()
    }

    /// Position of every row within its own sequence, counted from 0.
    pub fn positions(&self) -> Vec<u32> {
        self.ranges().flat_map(|range| 0..range.len() as u32).collect()
    }
}
