//! `clsgen train`.

use super::{Context, args::TrainArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &TrainArgs) -> Result<()> {
    Err(Error::run("`clsgen train` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
