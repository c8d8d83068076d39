//! The subcommands (construct, train, eval, predict, demo, export, data, selftest, man) and the options that they
//! share. Layer 6.

pub mod args;
pub mod construct;
pub mod demo;
pub mod dry_run;
pub mod eval;
pub mod export;
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
