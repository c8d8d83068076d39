//! `clsgen construct`.

use super::{Context, args::ConstructArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &ConstructArgs) -> Result<()> {
    Err(Error::run("`clsgen construct` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
