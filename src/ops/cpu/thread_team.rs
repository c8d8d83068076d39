//! A thread team that spins between the many short parallel loops of one step, instead of sleeping.
//!
//! A decoding step is about 150 parallel loops of some 20–50 µs each, a training step several hundred, with a little
//! serial work in between. That is long enough for rayon's workers to fall asleep, and waking one costs as much as its
//! share of many a loop. Inside [`with_spinning_workers`] the other threads of the caller's pool therefore spin until
//! the leader starts the next loop ([`for_each`]). A loop never waits for a thread that has not taken any of its tasks,
//! so a thread that is busy elsewhere delays nothing.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::OnceLock;

use candle_core::Device;
use rayon::prelude::*;
use team::{INDEX_BITS, Team};

mod team;

/// What [`team`] synchronises by. `tests/thread_team` compiles the same file over loom's, which tries every
/// interleaving.
mod sync {
    pub(super) use std::hint::spin_loop;
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
    pub(super) use std::thread::yield_now;
}

/// Most threads for the loops of a decoding step: they are so short that more would only contend for the task counter.
pub const DECODE_THREADS: usize = 16;

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
        self.0.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
