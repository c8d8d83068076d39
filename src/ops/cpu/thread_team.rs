//! Threads that stay awake between the many short loops of a step.
//!
//! A decoding step is some hundred and fifty parallel loops of a few tens of microseconds, a training step hundreds, and in between
//! there is a little for one thread alone: long enough for the others to fall asleep, and waking one costs as much as its share of
//! many a loop. While a step runs ([`together`]) the pool's other threads therefore wait for its next loop ([`for_each`]) by looking.
//! A loop waits for nobody who is not at work on it, so a thread that is busy elsewhere delays nothing.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::Device;
use rayon::prelude::*;

/// Threads for loops as short as a decoding step's: more would only wait for each other's turn to take a task.
pub const FEW: usize = 16;
/// Looks before a waiting thread lets others have the core: some tens of microseconds.
const LOOKS: usize = 1 << 10;

/// Bits of a loop's number of tasks, and of the next of them.
const BITS: u32 = 20;

thread_local! {
    /// The team that this thread leads, while no loop of it runs.
    static LED: Cell<*const Team> = const { Cell::new(ptr::null()) };
    /// Whether it is one of a team: it must not wait for others of its pool, who may be waiting for it.
    static MEMBER: Cell<bool> = const { Cell::new(false) };
}

/// Runs `step`, the loops of whose ops the threads of the caller's pool wait for, awake: `most` of them. With another device than the
/// CPU there is nothing for them to do.
pub fn together<T>(device: &Device, most: usize, step: impl FnOnce() -> T) -> T {
    let threads = rayon::current_num_threads().min(most);
    let wanted = device.is_cpu() && threads > 1 && !MEMBER.get();
    let (Some(leader), true) = (rayon::current_thread_index(), wanted) else { return step() };
    let team = Team::new(threads);
    rayon::in_place_scope(|scope| {
        let team = &team;
        scope.spawn_broadcast(move |_, thread| {
            // A thread that leads a team of its own comes by when that is over.
            if thread.index() != leader && thread.index() < threads && !MEMBER.replace(true) {
                team.serve();
                MEMBER.set(false);
            }
        });
        let _leading = Leading::of(team);
        step()
    })
}

/// `body(0)` to `body(tasks − 1)`, in any order, shared out to the threads.
pub(crate) fn for_each(tasks: usize, body: impl Fn(usize) + Sync) {
    let team = LED.get();
    if team.is_null() || tasks >> BITS > 0 {
        let most = (tasks / (8 * rayon::current_num_threads())).max(1);
        return (0..tasks).into_par_iter().with_max_len(most).for_each(&body);
    }
    // SAFETY: the team lives in the frame of `together` below this one, which takes the pointer back before it leaves.
    let team = unsafe { &*team };
    // A loop within this one is not the team's.
    LED.set(ptr::null());
    let result = catch_unwind(AssertUnwindSafe(|| team.run(tasks, &body)));
    LED.set(team);
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// What `body` makes of 0 to `tasks − 1`, in order.
pub(crate) fn map<T: Send + Sync>(tasks: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results: Vec<OnceLock<T>> = (0..tasks).map(|_| OnceLock::new()).collect();
    for_each(tasks, |i| {
        let _ = results[i].set(body(i));
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// While it lives, this thread leads a team.
struct Leading<'a>(&'a Team);

impl<'a> Leading<'a> {
    fn of(team: &'a Team) -> Self {
        LED.set(team);
        MEMBER.set(true);
        Self(team)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        LED.set(ptr::null());
        MEMBER.set(false);
        self.0.over.store(true, Ordering::Release);
    }
}

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// What a leader shows to those who wait.
struct Team {
    /// The loop's number, its tasks and the next of them, in [`BITS`] each (what is left for the number): taking a task changes
    /// it, which only succeeds while the loop that the task belongs to runs.
    turn: AtomicU64,
    /// Where the loop's body, a [`Task`], lies in the leader's stack.
    body: AtomicPtr<()>,
    done: AtomicUsize,
    over: AtomicBool,
    /// Of the first task that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    threads: usize,
}

impl Team {
    fn new(threads: usize) -> Self {
        Self {
            turn: AtomicU64::new(0),
            body: AtomicPtr::new(ptr::null_mut()),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            panic: Mutex::new(None),
            threads,
        }
    }

    /// Does tasks of the loop that runs until all are taken; whether it did any.
    fn work(&self) -> bool {
        let mut worked = false;
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let body = self.body.load(Ordering::Relaxed);
            let part = |bits: u32| (turn >> bits) as usize & ((1 << BITS) - 1);
            let (tasks, next) = (part(BITS), part(0));
            if next == tasks {
                return worked;
            }
            // Long runs first, so that what a thread reads lies in one piece; single tasks last, so that all end together.
            let take = ((tasks - next) / (2 * self.threads)).max(1);
            if self.turn.compare_exchange_weak(turn, turn + take as u64, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            // SAFETY: `turn` had not changed, so the loop that it and `body` were read in still runs: its leader stays in `run`
            // until these tasks are done too.
            let body = unsafe { *body.cast::<Task<'_>>() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (next..next + take).for_each(body))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            self.done.fetch_add(take, Ordering::Release);
            worked = true;
        }
    }

    /// What the leader does: the loop, together with whoever joins.
    fn run(&self, tasks: usize, body: Task<'_>) {
        let number = (self.turn.load(Ordering::Relaxed) >> (2 * BITS)) + 1;
        self.done.store(0, Ordering::Relaxed);
        self.body.store(ptr::from_ref(&body).cast_mut().cast(), Ordering::Relaxed);
        self.turn.store(number << (2 * BITS) | (tasks as u64) << BITS, Ordering::Release);
        self.work();
        let mut looks = 0;
        while self.done.load(Ordering::Acquire) != tasks {
            look_again(&mut looks);
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// What the others do.
    fn serve(&self) {
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if self.work() {
                looks = 0;
            }
            look_again(&mut looks);
        }
    }
}

/// Between two looks.
fn look_again(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
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
                assert_eq!(together(&Device::Cpu, FEW, || map(99, |i| i * i)), (0..99).map(|i| i * i).collect::<Vec<_>>());
                together(&Device::Cpu, FEW, || {
                    for tasks in (0..300).chain([1 << BITS]) {
                        assert!(counts(tasks).iter().all(|&count| count == 1), "{tasks} tasks, {threads} threads");
                    }
                });
                assert_eq!(counts(100), vec![1; 100]);
            });
        }
        assert_eq!(together(&Device::Cpu, FEW, || counts(7)), vec![1; 7]);
    }

    #[test]
    fn a_loop_within_a_loop_and_teams_side_by_side() {
        let inner = |_| assert_eq!(counts(10), vec![1; 10]);
        on_a_pool(3, || together(&Device::Cpu, FEW, || for_each(20, |i| together(&Device::Cpu, FEW, || for_each(5, |_| inner(i))))));
        on_a_pool(2, || rayon::join(|| together(&Device::Cpu, FEW, || counts(1000)), || together(&Device::Cpu, FEW, || counts(1000))));
    }

    #[test]
    fn a_panic_comes_back_to_the_leader_and_the_team_goes_on() {
        on_a_pool(2, || {
            together(&Device::Cpu, FEW, || {
                let panicked = catch_unwind(|| for_each(50, |i| assert!(i != 31, "task {i}")));
                assert_eq!(panicked.unwrap_err().downcast_ref::<String>().unwrap(), "task 31");
                assert_eq!(counts(50), vec![1; 50]);
            });
            assert!(catch_unwind(|| together(&Device::Cpu, FEW, || panic!("the step"))).is_err());
            assert_eq!(together(&Device::Cpu, FEW, || counts(50)), vec![1; 50]);
        });
    }
}
