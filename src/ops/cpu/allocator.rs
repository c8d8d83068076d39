//! The process's allocator: mimalloc, told how long to keep what ops give back, and an exit code where memory runs out.
//!
//! Rust ends a process whose allocation fails by SIGABRT. Nothing of ours goes on without memory that it asked for,
//! so the failed call itself ends the process as every other lack of resources does (exit 5). What
//! was finished is on disk, and the same command goes on with it, as after a kill.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ffi::{c_int, c_long},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use mimalloc::MiMalloc;

/// Options of mimalloc's `mi_option_t` that the bindings leave out.
const PURGE_DELAY: c_int = 15;
const ARENA_RESERVE: c_int = 23;
/// Longer than most training steps.
const MILLISECONDS: c_long = 60_000;
/// The parts of a limited address space of which the allocator reserves one at a time.
const PARTS: u64 = 16;

/// Keeps freed memory for a minute before the kernel has it back. A training step frees what the next one asks for
/// again; by default it goes back after one, and where a step takes longer the kernel clears every page anew.
pub fn keep_freed_memory() {
    // SAFETY: sets one number in the allocator's table of options; an unknown option would be ignored.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}

thread_local! {
    /// Bytes that this thread may still ask for, and what becomes true when it asks for more.
    static ALLOWANCE: Cell<(usize, *const AtomicBool)> = const { Cell::new((usize::MAX, ptr::null())) };
}

/// Runs `work`, which may ask for so many bytes in all; what it gives back does not count. When it asks for more,
/// `exceeded` becomes true and this thread stops for ever, holding what it has: Rust has no other way out of an
/// allocation than to end the process. So this is for a thread that somebody waits for; see [`super::confined`].
pub(super) fn limited<T>(bytes: usize, exceeded: &AtomicBool, work: impl FnOnce() -> T) -> T {
    let before = ALLOWANCE.replace((bytes, ptr::from_ref(exceeded)));
    let result = work();
    ALLOWANCE.set(before);
    result
}

/// Takes an allocation off the thread's allowance.
#[inline]
fn spend(size: usize) {
    let (left, exceeded) = ALLOWANCE.get();
    if left != usize::MAX {
        match left.checked_sub(size) {
            Some(left) => ALLOWANCE.set((left, exceeded)),
            None => stop(exceeded),
        }
    }
}

#[cold]
fn stop(exceeded: *const AtomicBool) -> ! {
    // SAFETY: `limited` was given a reference that lives as long as its call, which is under way and never returns.
    unsafe { &*exceeded }.store(true, Ordering::SeqCst);
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// mimalloc, but memory that it cannot give ends the process with exit 5. (glibc's allocator keeps freed activations
/// of odd sizes.)
pub struct Allocator;

// SAFETY: every call is mimalloc's, whose contract this is; a null pointer is never returned.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        begin();
        spend(layout.size());
        // SAFETY: the caller's layout.
        given(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        begin();
        spend(layout.size());
        // SAFETY: the caller's layout.
        given(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's pointer, which came from here.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        spend(size);
        // SAFETY: the caller's pointer, which came from here.
        given(unsafe { MiMalloc.realloc(pointer, layout, size) }, size)
    }
}

#[inline]
fn given(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() { out_of_memory(size) } else { pointer }
}

#[inline]
fn begin() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    if !BEGUN.load(Ordering::Relaxed) {
        BEGUN.store(true, Ordering::Relaxed);
        reserve_in_parts();
    }
}

/// By default mimalloc reserves a GiB of addresses before the first byte. Under `ulimit -v` that is most of what
/// there is, for small objects alone, and nobody could say any more what is free.
#[cold]
fn reserve_in_parts() {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid place for the answer, and nothing here allocates.
    if unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return;
    }
    let kib = (limit.rlim_cur / PARTS / 1024).clamp(1, 1 << 20);
    // SAFETY: as in `keep_freed_memory`.
    unsafe { libmimalloc_sys::mi_option_set(ARENA_RESERVE, kib as c_long) };
    // glibc, which libraries in C allocate by, would reserve 64 MB a thread.
    // SAFETY: sets one number, before there is a second thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Says so on stderr and ends the process, without an allocation. Destructors do not run, as after a kill.
#[cold]
#[inline(never)]
pub fn out_of_memory(size: usize) -> ! {
    static TOLD: AtomicBool = AtomicBool::new(false);
    // Where several threads fail at once, one of them tells; the others end with the process.
    while TOLD.swap(true, Ordering::SeqCst) {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
    let mut digits = [0u8; 20];
    for part in ["error: out of memory: ", decimal(size, &mut digits), MESSAGE] {
        // SAFETY: the text is valid for its length; a stderr that cannot be written is nothing to stop for.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(5) }
}

const MESSAGE: &str = " bytes more cannot be had\nhint: what is finished is kept, the same command goes on with it: \
    raise the memory \
                       limit (ulimit -v, the batch system's), or use fewer --threads, shorter windows or a smaller \
                       model\n";

/// A number in decimal digits, in room that is there.
fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[at..]).unwrap_or("some");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_an_allocation() {
        for number in [0, 7, 10, 4_294_967_296, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
    }
}
