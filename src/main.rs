//! parse → run → exit code.

use std::process::ExitCode;

use clsgen::ops::cpu::allocator::{self, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// About what a thread's signal stack takes, with its guard page.
const SIGNAL_STACK: usize = 3 << 12;

fn main() -> ExitCode {
    clsgen::storage::forbid_core_dumps();
    // A panic's payload could hold text of a record, so only its place is printed.
    std::panic::set_hook(Box::new(|panic| {
        // A thread for whose signal stack there is no room: the standard library panics, and would abort.
        if panic.location().is_some_and(|at| at.file().ends_with("stack_overflow.rs")) {
            allocator::out_of_memory(SIGNAL_STACK);
        }
        // A library over foreign bytes: whoever called it says which file is damaged.
        if clsgen::foreign::is_caught() {
            return;
        }
        let place =
            panic.location().map_or_else(|| "an unknown place".into(), |at| format!("{}:{}", at.file(), at.line()));
        let rank = clsgen::parallel::prefix();
        eprintln!(
            "{rank}error: internal error at {place}\n{rank}hint: this is a defect of clsgen: please report the command \
            and this line"
        );
    }));
    clsgen::cli::main()
}
