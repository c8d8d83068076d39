//! CUDA's libraries, opened when a device is first asked for: the program starts where there are none.
//!
//! candle has cudarc linked to the libraries. Instead of them the linker finds an archive that build.rs makes of the
//! list in `functions.rs`: each function is a jump to the address in its slot of one table. Until [`open`] puts there
//! what the library has under that name, a slot holds a function that answers "not initialized": a call too early is an
//! error of that call. A function that is not on the list is an error of the linker, which names it.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::functions::{CUBLAS, CUBLAS_LT, CUDA, CURAND, LIBRARIES};

const COUNT: usize = CUDA.len() + CUBLAS.len() + CUBLAS_LT.len() + CURAND.len();

/// The files of [`LIBRARIES`], by version: without one, a folder of another CUDA that is searched later, or of stubs to
/// link with, would come first.
const FILES: [&str; LIBRARIES.len()] = ["libcuda.so.1", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"];

unsafe extern "C" {
    /// The addresses that the jumps go to, of all functions of [`LIBRARIES`] in their order.
    static CLSGEN_CUDA_SLOTS: [AtomicPtr<c_void>; COUNT];
}

/// A library that was found.
pub struct Library {
    pub file: &'static str,
    /// Functions of the list that are not in it.
    pub lacks: Vec<&'static str>,
}

/// Opens each of [`LIBRARIES`] that the system finds, for good, and sends the jumps to its functions.
pub fn open() -> [Option<Library>; LIBRARIES.len()] {
    let mut first = 0;
    let mut files = FILES.into_iter();
    LIBRARIES.map(|(_, functions)| {
        // SAFETY: build.rs makes the array of the same list, a slot for every function. What is written there once the
        // program runs is written here, 8 bytes at a time, as the jumps read it.
        let slots = unsafe { &CLSGEN_CUDA_SLOTS[first..first + functions.len()] };
        first += functions.len();
        let file = files.next()?;
        let library = load(file)?;
        let there = |function: &str, slot: &AtomicPtr<c_void>| match address(library, function) {
            Some(address) => {
                slot.store(address, Ordering::Release);
                true
            }
            None => false,
        };
        let lacks = functions
            .iter()
            .zip(slots)
            .filter(|(function, slot)| !there(function, slot))
            .map(|(function, _)| *function);
        Some(Library { file, lacks: lacks.collect() })
    })
}

/// The library of that name, wherever the system looks for one.
fn load(file: &str) -> Option<*mut c_void> {
    let file = CString::new(file).ok()?;
    // SAFETY: the name is a C string. The library's initialisers run, as they would if the program were linked to it;
    // it is never closed.
    let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    (!library.is_null()).then_some(library)
}

fn address(library: *mut c_void, function: &str) -> Option<*mut c_void> {
    let function = CString::new(function).ok()?;
    // SAFETY: the library is one that `load` opened, and the name is a C string.
    let address = unsafe { libc::dlsym(library, function.as_ptr()) };
    (!address.is_null()).then_some(address)
}
