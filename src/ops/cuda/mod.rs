//! The CUDA side of the ops: opening a device, and launching our kernels on its one stream.
//!
//! Kernels are `.cu` files beside the op they belong to; `build.rs` compiles them (feature `cuda`) and embeds one fat
//! binary a file. An op's public function looks at its tensor's device and goes to its own `cuda.rs`, which checks
//! shapes, makes the outputs and launches. Conventions of all kernels:
//!
//! - tensors are contiguous, activations bf16 or f32, arithmetic f32 (the gradients' norm: f64);
//! - no atomics on floats, sums in a fixed order: two runs give the same bits;
//! - launches return at once; only a copy to the host waits. Everything goes to one stream, in the order it was called,
//!   so memory freed on the host may still be in use by a kernel before it.

#[cfg(feature = "cuda")]
mod functions;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod libraries;
#[cfg(feature = "cuda")]
mod memory;
mod open;
#[cfg(feature = "cuda")]
mod parts;
mod switch;

#[cfg(feature = "cuda")]
pub(crate) use graph::{Graph, Places};
#[cfg(feature = "cuda")]
pub(crate) use launch::{Launch, blocks, device_of, most_shared, suffix};
#[cfg(feature = "cuda")]
pub(crate) use memory::{address, address_of_rows, uninit, upload, upload_u64};
pub use open::{memory_available, name, open, take_peak_memory};
#[cfg(feature = "cuda")]
pub(crate) use parts::Parts;
pub use switch::{ATTENTION, ATTENTION_BACKWARD, DECODE, GRAPH, LORA, Switch};
