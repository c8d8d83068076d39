//! A thread team that spins between the many short parallel loops of one step, instead of sleeping.
//!
//! A decoding step is about 150 parallel loops of some 20–50 µs each, a training step several hundred, with a little
//! serial work in between. That is long enough for rayon's workers to fall asleep, and waking one costs as much as its
//! share of many a loop. Inside [`with_spinning_workers`] the other threads of the caller's pool therefore spin until
//! the leader starts the next loop ([`for_each`]). A loop never waits for a thread that has not taken any of its tasks,
//! so a thread that is busy elsewhere delays nothing.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::Device;
use rayon::prelude::*;

/// Most threads for the loops of a decoding step: they are so short that more would only contend for the task counter.
pub const DECODE_THREADS: usize = 16;
/// Iterations of busy waiting (some tens of µs) before a waiting thread yields its core to others.
const SPIN_LIMIT: usize = 1 << 10;

/// Bits of [`Team::ticket`] for a loop's number of tasks, and as many for the index of the next one.
const INDEX_BITS: u32 = 20;

thread_local! {
    /// The team that this thread leads; null while one of its loops runs.
    static CURRENT_TEAM: Cell<*const Team> = const { Cell::new(ptr::null()) };
    /// Whether this thread belongs to a team: it must not start another and wait for threads that may be waiting for
    /// it.
    static IN_TEAM: Cell<bool> = const { Cell::new(false) };
}

/// Runs `step` while up to `max_threads` threads of the caller's rayon pool spin, ready for the loops of its ops.
///
/// Without a pool of several threads around it, on another device than the CPU, or inside another team, it only runs
/// `step`.
pub fn with_spinning_workers<T>(device: &Device, max_threads: usize, step: impl FnOnce() -> T) -> T {
    let threads = rayon::current_num_threads().min(max_threads);
    let wanted = device.is_cpu() && threads > 1 && !IN_TEAM.get();
    let (Some(leader), true) = (rayon::current_thread_index(), wanted) else { return step() };
    let team = Team::new(threads);
    rayon::in_place_scope(|scope| {
        let team = &team;
        scope.spawn_broadcast(move |_, thread| {
            // A thread that leads a team of its own gets here when that is finished.
            if thread.index() != leader && thread.index() < threads && !IN_TEAM.replace(true) {
                team.spin_until_finished();
                IN_TEAM.set(false);
            }
        });
        let _guard = LeaderGuard::of(team);
        step()
    })
}

/// Calls `body(0)` to `body(tasks − 1)`, in any order, by the current team's threads, or by rayon where there is
/// none.
pub(crate) fn for_each(tasks: usize, body: impl Fn(usize) + Sync) {
    let team = CURRENT_TEAM.get();
    if team.is_null() || tasks >> INDEX_BITS > 0 {
        let most = (tasks / (8 * rayon::current_num_threads())).max(1);
        return (0..tasks).into_par_iter().with_max_len(most).for_each(&body);
    }
    // SAFETY: the team lives in the frame of `with_spinning_workers` below this one, which takes the pointer back
    // before it leaves.
    let team = unsafe { &*team };
    // A loop within this one is not the team's.
    CURRENT_TEAM.set(ptr::null());
    let result = catch_unwind(AssertUnwindSafe(|| team.run(tasks, &body)));
    CURRENT_TEAM.set(team);
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// The results of `body(0)` to `body(tasks − 1)`, in that order.
pub(crate) fn map<T: Send + Sync>(tasks: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results: Vec<OnceLock<T>> = (0..tasks).map(|_| OnceLock::new()).collect();
    for_each(tasks, |i| {
        let _ = results[i].set(body(i));
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Makes this thread the leader of a team until it is dropped, which also ends the team.
struct LeaderGuard<'a>(&'a Team);

impl<'a> LeaderGuard<'a> {
    fn of(team: &'a Team) -> Self {
        CURRENT_TEAM.set(team);
        IN_TEAM.set(true);
        Self(team)
    }
}

impl Drop for LeaderGuard<'_> {
    fn drop(&mut self) {
        CURRENT_TEAM.set(ptr::null());
        IN_TEAM.set(false);
        self.0.finished.store(true, Ordering::Release);
    }
}

type Body<'a> = &'a (dyn Fn(usize) + Sync);

/// State shared between a team's leader and its waiting threads.
struct Team {
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
    fn new(threads: usize) -> Self {
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
            let (tasks, next) = (field(INDEX_BITS), field(0));
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
    fn run(&self, tasks: usize, body: Body<'_>) {
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

    /// Other threads: run tasks whenever there are some, until the leader ends the team.
    fn spin_until_finished(&self) {
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
    if *spins < SPIN_LIMIT { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_pool<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    /// How often each task of a loop ran.
    fn counts(tasks: usize) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        for_each(tasks, |i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once_with_a_team_and_without() {
        for threads in [1, 2, 3, 20] {
            on_a_pool(threads, || {
                assert_eq!(counts(100), vec![1; 100]);
                assert_eq!(
                    with_spinning_workers(&Device::Cpu, DECODE_THREADS, || map(99, |i| i * i)),
                    (0..99).map(|i| i * i).collect::<Vec<_>>()
                );
                with_spinning_workers(&Device::Cpu, DECODE_THREADS, || {
                    for tasks in (0..300).chain([1 << INDEX_BITS]) {
                        assert!(counts(tasks).iter().all(|&count| count == 1), "{tasks} tasks, {threads} threads");
                    }
                });
                assert_eq!(counts(100), vec![1; 100]);
            });
        }
        assert_eq!(with_spinning_workers(&Device::Cpu, DECODE_THREADS, || counts(7)), vec![1; 7]);
    }

    #[test]
    fn a_loop_within_a_loop_and_teams_side_by_side() {
        let inner = |_| assert_eq!(counts(10), vec![1; 10]);
        on_a_pool(3, || {
            with_spinning_workers(&Device::Cpu, DECODE_THREADS, || {
                for_each(20, |i| with_spinning_workers(&Device::Cpu, DECODE_THREADS, || for_each(5, |_| inner(i))))
            })
        });
        on_a_pool(2, || {
            rayon::join(
                || with_spinning_workers(&Device::Cpu, DECODE_THREADS, || counts(1000)),
                || with_spinning_workers(&Device::Cpu, DECODE_THREADS, || counts(1000)),
            )
        });
    }

    #[test]
    fn a_panic_comes_back_to_the_leader_and_the_team_goes_on() {
        on_a_pool(2, || {
            with_spinning_workers(&Device::Cpu, DECODE_THREADS, || {
                let panicked = catch_unwind(|| for_each(50, |i| assert!(i != 31, "task {i}")));
                assert_eq!(panicked.unwrap_err().downcast_ref::<String>().unwrap(), "task 31");
                assert_eq!(counts(50), vec![1; 50]);
            });
            assert!(
                catch_unwind(|| with_spinning_workers(&Device::Cpu, DECODE_THREADS, || panic!("the step"))).is_err()
            );
            assert_eq!(with_spinning_workers(&Device::Cpu, DECODE_THREADS, || counts(50)), vec![1; 50]);
        });
    }
}
