//! Where a product is written.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// `(m, n)` numbers, or memory that holds none yet, which threads write tile by tile. Each tile is one thread's.
#[derive(Clone, Copy)]
pub(crate) struct Output<'y> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'y mut [f32]>,
}

// SAFETY: a borrowed buffer; what is written through its pointer answers for who writes where.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'y> Output<'y> {
    /// Over numbers, or onto them.
    pub fn over(y: &'y mut [f32]) -> Self {
        Self { start: y.as_mut_ptr(), len: y.len(), buffer: PhantomData }
    }

    /// Into memory that holds nothing yet: a product that adds has no place here.
    pub fn into(y: &'y mut [MaybeUninit<f32>]) -> Self {
        Self { start: y.as_mut_ptr().cast(), len: y.len(), buffer: PhantomData }
    }

    /// Numbers there is room for.
    pub fn len(self) -> usize {
        self.len
    }

    /// Where number `at` belongs.
    pub fn at(self, at: usize) -> *mut f32 {
        self.start.wrapping_add(at)
    }

    /// Writes all numbers.
    pub fn fill(self, numbers: impl Iterator<Item = f32>) {
        // SAFETY: the buffer has `len` places, and the zip ends there.
        (0..self.len).zip(numbers).for_each(|(i, number)| unsafe { self.at(i).write(number) });
    }
}
