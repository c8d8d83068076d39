//! `clsgen selftest`.

use super::{Context, args::SelftestArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &SelftestArgs) -> Result<()> {
    Err(Error::run("`clsgen selftest` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
