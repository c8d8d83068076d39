//! The protocol by which a team's leader hands the tasks of a loop to its waiting threads.
//!
//! Publish: the leader stores `body`, then `ticket` (Release). Take: a thread reads `ticket` (Acquire), then `body`,
//! and moves `ticket` on by a compare-exchange. Finish: it adds to `done` (Release), which the leader waits for
//! (Acquire). So a task sees what the leader wrote before the loop, and the leader sees what the tasks wrote.
//! `tests/thread_team` checks this file under loom: only [`sync`](super::sync) differs there.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, spin_loop, yield_now};

/// Bits of [`Team::ticket`] for a loop's number of tasks, and as many for the index of the next one.
pub const INDEX_BITS: u32 = 20;
/// Iterations of busy waiting (some tens of µs) before a waiting thread yields its core to others.
const SPIN_LIMIT: usize = 1 << 10;

pub type Body<'a> = &'a (dyn Fn(usize) + Sync);

/// State shared between a team's leader and its waiting threads.
pub struct Team {
    /// Loop number, number of tasks and index of the next task, packed: [`INDEX_BITS`] for each of the latter two. A
    /// thread takes tasks by a compare-exchange on it, which fails if the loop it was read in has ended meanwhile.
    ticket: AtomicU64,
    /// Points to the current loop's [`Body`], which lies in the leader's stack frame.
    body: AtomicPtr<()>,
    done: AtomicUsize,
    finished: AtomicBool,
    /// Payload of the first task that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    threads: usize,
}

impl Team {
    pub fn new(threads: usize) -> Self {
        Self {
            ticket: AtomicU64::new(0),
            body: AtomicPtr::new(ptr::null_mut()),
            done: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
            panic: Mutex::new(None),
            threads,
        }
    }

    /// Runs tasks of the current loop until all are taken; returns whether it ran any.
    fn run_tasks(&self) -> bool {
        let mut worked = false;
        loop {
            let ticket = self.ticket.load(Ordering::Acquire);
            let body = self.body.load(Ordering::Relaxed);
            let field = |bits: u32| (ticket >> bits) as usize & ((1 << INDEX_BITS) - 1);
            let tasks = field(INDEX_BITS);
            let next = field(0);
            if next == tasks {
                return worked;
            }
            // Long runs first, so that what a thread reads lies in one piece; single tasks last, so that all end
            // together.
            let take = ((tasks - next) / (2 * self.threads)).max(1);
            if self
                .ticket
                .compare_exchange_weak(ticket, ticket + take as u64, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            // SAFETY: `ticket` had not changed, so the loop that it and `body` were read in still runs: its leader
            // stays in `run` until these tasks are done too.
            let body = unsafe { *body.cast::<Body<'_>>() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (next..next + take).for_each(body))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            self.done.fetch_add(take, Ordering::Release);
            worked = true;
        }
    }

    /// Leader: publishes the loop, takes part in it and waits until every task is done.
    pub fn run(&self, tasks: usize, body: Body<'_>) {
        let number = (self.ticket.load(Ordering::Relaxed) >> (2 * INDEX_BITS)) + 1;
        self.done.store(0, Ordering::Relaxed);
        self.body.store(ptr::from_ref(&body).cast_mut().cast(), Ordering::Relaxed);
        self.ticket.store(number << (2 * INDEX_BITS) | (tasks as u64) << INDEX_BITS, Ordering::Release);
        self.run_tasks();
        let mut spins = 0;
        while self.done.load(Ordering::Acquire) != tasks {
            backoff(&mut spins);
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Leader: lets the waiting threads go.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    /// Other threads: run tasks whenever there are some, until the leader ends the team.
    pub fn spin_until_finished(&self) {
        let mut spins = 0;
        while !self.finished.load(Ordering::Acquire) {
            if self.run_tasks() {
                spins = 0;
            }
            backoff(&mut spins);
        }
    }
}

/// Waits a moment: spins at first, then yields the core.
fn backoff(spins: &mut usize) {
    *spins += 1;
    if *spins < SPIN_LIMIT { spin_loop() } else { yield_now() }
}
