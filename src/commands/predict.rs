//! `clsgen predict`.

use super::{Context, args::PredictArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &PredictArgs) -> Result<()> {
    Err(Error::run("`clsgen predict` is not built yet").hint("this version cannot do it; see `clsgen --help` for what works"))
}
