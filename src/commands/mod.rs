//! The subcommands ([`lcd`] is `data lcd`), each one's flags ([`args`]), and what several do alike: their output, the
//! folders that they replace, their record in `run.json`, work on several ranks. Flags that all share are resolved into
//! a [`Context`]. Layer 6.

pub mod args;
pub mod construct;
pub mod demo;
pub mod dry_run;
pub mod eval;
pub mod export;
mod folder;
pub mod lcd;
pub mod logging;
mod machine;
pub mod man;
pub mod output;
pub mod predict;
pub mod ranks;
pub mod run_json;
pub mod selftest;
pub mod train;

pub use crate::context::Context;
