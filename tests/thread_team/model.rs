//! The thread team's own source (`src/ops/cpu/thread_team/team.rs`) over loom's threads and atomics: every
//! interleaving, up to [`PREEMPTIONS`] a run, with every value that the memory model lets a load return.
//!
//! `Shared` stands for what ops do in a loop: tasks read what the leader wrote before it and write what the leader
//! reads after it. loom fails where one such access does not happen before the other. Each ordering that this rests on
//! is also weakened, one at a time, which must be seen.
#![cfg(test)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use team::Team;

mod sync;
#[path = "../../src/ops/cpu/thread_team/team.rs"]
mod team;

/// Most times that a run takes the core from a thread that could go on. loom's authors found 2 or 3 to show most bugs.
const PREEMPTIONS: usize = 3;

thread_local! {
    /// The operation whose ordering is `Relaxed` instead; loom runs all threads of a model on the caller's.
    static WEAKENED: Cell<&'static str> = const { Cell::new("") };
}

/// Every execution of `model`.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// What the leader gives to the tasks of a loop, and what each of them makes of it.
struct Shared {
    input: UnsafeCell<usize>,
    outputs: [UnsafeCell<usize>; 3],
}

// SAFETY: none but what the team promises, which is what is tested: loom checks each access.
unsafe impl Sync for Shared {}
// SAFETY: plain numbers.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Self {
        Self { input: UnsafeCell::new(0), outputs: std::array::from_fn(|_| UnsafeCell::new(0)) }
    }

    /// One loop of the team's, with one task an output.
    fn run(&self, team: &Team, input: usize) {
        // SAFETY: no loop runs, so that nobody reads it.
        self.input.with_mut(|place| unsafe { *place = input });
        let task = |i: usize| {
            // SAFETY: nobody writes it while the loop runs.
            let input = self.input.with(|place| unsafe { *place });
            // SAFETY: task `i` alone writes this one.
            self.outputs[i].with_mut(|place| unsafe { *place += input + i });
        };
        team.run(self.outputs.len(), &task);
    }

    fn outputs(&self) -> [usize; 3] {
        // SAFETY: no loop runs, so that nobody writes them.
        self.outputs.each_ref().map(|output| output.with(|place| unsafe { *place }))
    }
}

/// Two loops of a leader and another thread, which is then let go.
fn loops() {
    let team = Arc::new(Team::new(2));
    let shared = Shared::new();
    let worker = loom::thread::spawn({
        let team = team.clone();
        move || team.spin_until_finished()
    });
    shared.run(&team, 10);
    assert_eq!(shared.outputs(), [10, 11, 12]);
    shared.run(&team, 100);
    assert_eq!(shared.outputs(), [110, 112, 114]);
    team.finish();
    worker.join().unwrap();
}

#[test]
fn every_task_runs_once_after_what_came_before_and_before_what_comes_after() {
    check(loops);
}

#[test]
fn a_panic_of_any_thread_reaches_the_leader_once() {
    check(|| {
        let team = Arc::new(Team::new(2));
        let shared = Shared::new();
        let worker = loom::thread::spawn({
            let team = team.clone();
            move || team.spin_until_finished()
        });
        let loop_of_panics = || team.run(2, &|i| std::panic::resume_unwind(Box::new(i)));
        let payload = catch_unwind(AssertUnwindSafe(loop_of_panics)).unwrap_err();
        assert!(*payload.downcast::<usize>().unwrap() < 2);
        shared.run(&team, 5);
        assert_eq!(shared.outputs(), [5, 6, 7]);
        team.finish();
        worker.join().unwrap();
    });
}

/// Whether the model fails when this operation is `Relaxed`.
fn seen_without(operation: &'static str) -> bool {
    WEAKENED.set(operation);
    let seen = catch_unwind(|| check(loops)).is_err();
    WEAKENED.set("");
    seen
}

#[test]
fn each_ordering_is_needed() {
    for operation in ["AtomicU64::store", "AtomicU64::load", "AtomicUsize::fetch_add", "AtomicUsize::load"] {
        assert!(seen_without(operation), "{operation} may be Relaxed, says the model: it does not see what it is for");
    }
}
