//! What `team.rs` synchronises by, loom's; any one operation can be weakened.

pub use loom::hint::spin_loop;
pub use loom::sync::Mutex;
use loom::sync::atomic;
pub use loom::thread::yield_now;
use std::sync::atomic::Ordering;

use super::WEAKENED;

fn ordering(operation: &str, wanted: Ordering) -> Ordering {
    if WEAKENED.get() == operation { Ordering::Relaxed } else { wanted }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub struct $name(atomic::$name);

        impl $name {
            pub fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            pub fn load(&self, wanted: Ordering) -> $value {
                self.0.load(ordering(concat!(stringify!($name), "::load"), wanted))
            }

            pub fn store(&self, value: $value, wanted: Ordering) {
                self.0.store(value, ordering(concat!(stringify!($name), "::store"), wanted));
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);

/// The pointer to the body of the current loop.
pub struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub fn new(value: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(value))
    }

    /// Before a loop was seen to begin, a body that fails rather than a null pointer, which would end the process.
    pub fn load(&self, wanted: Ordering) -> *mut T {
        static NONE: &(dyn Fn(usize) + Sync) = &|i| panic!("task {i} of a loop that has not begun");
        let pointer = self.0.load(wanted);
        if pointer.is_null() { (&raw const NONE).cast_mut().cast() } else { pointer }
    }

    pub fn store(&self, value: *mut T, wanted: Ordering) {
        self.0.store(value, wanted);
    }
}

impl AtomicU64 {
    pub fn compare_exchange_weak(&self, from: u64, to: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange_weak(from, to, ordering("AtomicU64::compare_exchange", success), failure)
    }
}

impl AtomicUsize {
    pub fn fetch_add(&self, value: usize, wanted: Ordering) -> usize {
        self.0.fetch_add(value, ordering("AtomicUsize::fetch_add", wanted))
    }
}
