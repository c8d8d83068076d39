//! What the ops' CPU side stands on: vector instructions, threads, slices of tensors, the allocator.

pub mod allocator;
pub(crate) mod horizontal_sum;
pub(crate) mod par_for;
pub(crate) mod simd;
pub(crate) mod slice;
pub(crate) mod thread_team;
