//! Libraries that panic on bytes which no writer would make.

use std::{cell::Cell, panic::AssertUnwindSafe};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a library over foreign bytes; `None` where it panics. The program's panic hook stays silent meanwhile, for the
/// caller says what is wrong with which file.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = CAUGHT.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.ok()
}

/// Whether a panic of this thread is caught by [`caught`].
pub fn is_caught() -> bool {
    CAUGHT.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_the_thread_knows_that_it_is_caught() {
        assert_eq!(caught(is_caught), Some(true));
        assert_eq!(caught(|| 2), Some(2));
        assert_eq!(caught(|| -> u8 { panic!("of a library") }), None);
        assert!(!is_caught());
    }
}
