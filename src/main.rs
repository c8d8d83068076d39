//! parse → run → exit code.

use std::process::ExitCode;

/// glibc's allocator keeps freed activations of odd sizes; this one gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A panic's payload could hold text of a record, so only its place is printed.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".into(), |at| format!("{}:{}", at.file(), at.line()));
        eprintln!("error: internal error at {place}\nhint: this is a defect of clsgen: please report the command and this line");
    }));
    clsgen::cli::main()
}
