//! How long the allocator keeps the memory that ops give back.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay` of mimalloc's `mi_option_t`, which the bindings leave out.
const PURGE_DELAY: c_int = 15;
/// Longer than most training steps.
const MILLISECONDS: c_long = 60_000;

/// Keeps freed memory for a minute before the kernel has it back. A training step frees what the next one asks for again; by
/// default it goes back after one, and where a step takes longer the kernel clears every page anew.
pub fn keep_freed_memory() {
    // SAFETY: sets one number in the allocator's table of options; an unknown option would be ignored.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}
