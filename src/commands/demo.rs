//! `clsgen demo`.

use super::{Context, args::DemoArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(_context: &Context, _args: &DemoArgs) -> Result<()> {
    Err(Error::run("`clsgen demo` is not built yet")
        .hint("`clsgen train --config FILE` trains on your own records; README.md shows a whole run"))
}
