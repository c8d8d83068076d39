//! `clsgen demo`.

mod notes;
mod pretrain;

use super::{Context, args::DemoArgs};
use crate::error::{Error, Result};

/// Runs the command.
pub fn run(context: &Context, args: &DemoArgs) -> Result<()> {
    if let Some(dir) = &args.pretrain {
        return pretrain::run(context, dir, args.notes.map(u64::from));
    }
    Err(Error::run("`clsgen demo` is not built yet")
        .hint("`clsgen train --config FILE` trains on your own records; README.md shows a whole run"))
}
