//! The destination of a matrix product, which threads write tile by tile.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// An `(m, n)` f32 buffer that a product writes, borrowed for as long as the product runs.
///
/// It may be uninitialised: a product that overwrites its output then saves zeroing it first. One that adds to its
/// output checks [`Output::is_initialised`]. It is neither `Copy` nor `Clone`, so that no two products can write the
/// same buffer.
pub(crate) struct Output<'y> {
    shared: SharedOutput<'y>,
    initialised: bool,
}

impl<'y> Output<'y> {
    /// A buffer of numbers, to be overwritten or added to.
    pub fn initialised(y: &'y mut [f32]) -> Self {
        Self { shared: SharedOutput { start: y.as_mut_ptr(), len: y.len(), buffer: PhantomData }, initialised: true }
    }

    /// A buffer to be overwritten; every element of it is initialised afterwards.
    pub fn uninit(y: &'y mut [MaybeUninit<f32>]) -> Self {
        Self {
            shared: SharedOutput { start: y.as_mut_ptr().cast(), len: y.len(), buffer: PhantomData },
            initialised: false,
        }
    }

    /// Number of elements, `m·n`.
    pub fn len(&self) -> usize {
        self.shared.len
    }

    /// Whether the buffer holds numbers that a product may add to.
    pub fn is_initialised(&self) -> bool {
        self.initialised
    }

    /// Writes every element; `numbers` must yield as many.
    pub fn fill(self, numbers: impl Iterator<Item = f32>) {
        let mut written = 0;
        for number in numbers.take(self.shared.len) {
            // SAFETY: below `len`, and `self` is the only handle to the buffer.
            unsafe { self.shared.at(written).write(number) };
            written += 1;
        }
        assert_eq!(written, self.shared.len, "a product that does not fill its output");
    }

    /// Gives the buffer to the tasks of one product.
    pub fn share(self) -> SharedOutput<'y> {
        self.shared
    }
}

/// An [`Output`] in the hands of the threads of one product: each writes, through the pointer, only elements of its own
/// tiles.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput<'y> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'y mut [f32]>,
}

// SAFETY: it is an address; whoever writes through it promises, in an `unsafe` block, that nobody else touches those
// elements.
unsafe impl Send for SharedOutput<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput<'_> {}

impl SharedOutput<'_> {
    /// Address of element `index`; dereferencing it is up to the caller.
    pub fn at(self, index: usize) -> *mut f32 {
        self.start.wrapping_add(index)
    }
}
