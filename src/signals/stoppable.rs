//! Long computations that return no errors: a signal ends them all the same.
//!
//! The metrics are pure functions, and a bootstrap of a million records takes minutes. Between two resamples it calls
//! [`leave_if_stopped`], which unwinds to [`stoppable`]; no value that is not computed to its end is ever seen. Nothing
//! unwinds where nobody waits for it: training measures dev after a signal too, before it saves.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{check_interrupted, interrupted};
use crate::error::Result;

/// Calls of [`stoppable`] that are under way.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// What an unwinding that a signal began carries.
struct Stopped;

/// Takes itself off the count, however its call ends.
struct Waiting;

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work`, which may compute for minutes and saves nothing by itself when a signal asks to stop: then it ends with
/// that signal's error.
pub fn stoppable<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    WAITING.fetch_add(1, Ordering::SeqCst);
    let waiting = Waiting;
    let outcome = catch_unwind(AssertUnwindSafe(work));
    drop(waiting);
    match outcome {
        Ok(result) => result,
        Err(payload) if payload.is::<Stopped>() => {
            check_interrupted()?;
            resume_unwind(payload)
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Ends the computation around it if a signal asked to stop and [`stoppable`] waits for it.
pub fn leave_if_stopped() {
    if interrupted().is_some() && WAITING.load(Ordering::SeqCst) > 0 {
        // No panic: nothing went wrong, and the panic hook says nothing.
        resume_unwind(Box::new(Stopped));
    }
}
