//! `clsgen demo`.

use super::{Context, args::DemoArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &DemoArgs) -> Result<()> {
    Err(Error::run("`clsgen demo` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
