//! Which kernel a pass takes where it has two: the usual one, or the one that an environment variable asks for.

use std::sync::atomic::{AtomicBool, Ordering};

/// Changed while [`with_other_kernels`] works.
static OTHERS: AtomicBool = AtomicBool::new(false);

/// Runs `work` by the kernels that are not taken else, where there are two; on a CPU nothing changes. For checks: one
/// at a time, though `work` may itself ask for the kernels that are taken else.
pub fn with_other_kernels<T>(work: impl FnOnce() -> T) -> T {
    OTHERS.fetch_xor(true, Ordering::Relaxed);
    let done = work();
    OTHERS.fetch_xor(true, Ordering::Relaxed);
    done
}

/// Whether a pass takes the first of its two kernels: as `variable` says, which may hold either's name, else as `usual`
/// does.
#[cfg(feature = "cuda")]
pub(crate) fn takes_first(variable: &str, [first, second]: [&str; 2], usual: bool) -> bool {
    let asked = match std::env::var_os(variable) {
        Some(value) if value == first => true,
        Some(value) if value == second => false,
        _ => usual,
    };
    asked != OTHERS.load(Ordering::Relaxed)
}
