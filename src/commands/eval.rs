//! `clsgen eval`.

use super::{Context, args::EvalArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &EvalArgs) -> Result<()> {
    Err(Error::run("`clsgen eval` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
