//! `clsgen selftest`.

use super::{Context, args::SelftestArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(context: &Context, _args: &SelftestArgs) -> Result<()> {
    context.device()?;
    Err(Error::run("`clsgen selftest` is not built yet").hint("`cargo test --release --lib ops::` runs the checks it will make"))
}
