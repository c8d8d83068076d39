//! What the ops' CPU side stands on: vector instructions, threads, slices of tensors, the allocator and
//! threads that it holds to a limit.

pub mod allocator;
pub mod confined;
pub(crate) mod horizontal_sum;
pub(crate) mod par_for;
pub(crate) mod simd;
pub(crate) mod slice;
pub(crate) mod thread_team;
