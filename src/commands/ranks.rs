//! A command over the ranks of an MPI job.

use std::fmt::Debug;

use serde_json::{Value, json};

use super::{Context, machine};
use crate::{error::Result, fingerprint::Fingerprint, generate};

/// Runs a command on rank 0, whose models the other ranks read too, to answer their part of its requests.
pub fn share(context: &Context, args: &impl Debug, command: impl FnOnce() -> Result<()>) -> Result<()> {
    let ranks = &context.ranks;
    if ranks.size() == 1 {
        return command();
    }
    check_started_alike(context, &[("options", json!(format!("{args:?}")))])?;
    if !ranks.is_root() {
        return generate::ranks::serve(context);
    }
    announce(context);
    command()?;
    generate::ranks::dismiss(ranks)
}

/// Refuses ranks that were started with another program, command line or config: before anything is shared, since they
/// would not even do the same steps. `options` are the command's own.
pub(super) fn check_started_alike(context: &Context, options: &[(&str, Value)]) -> Result<()> {
    if context.ranks.size() == 1 {
        return Ok(());
    }
    let mut contents = vec![
        ("clsgen", json!(env!("CARGO_PKG_VERSION"))),
        ("executable", json!(machine::executable_hash())),
        ("--run", json!(context.run_dir.to_string_lossy())),
        ("--dry-run", json!(context.dry_run)),
        ("--allow-network", json!(context.allow_network)),
    ];
    contents.extend_from_slice(options);
    Fingerprint::of_every_key(&context.config, &contents)?.check_alike(&context.ranks)
}

/// How many work, and where.
pub(super) fn announce(context: &Context) {
    let ranks = &context.ranks;
    if ranks.size() > 1 {
        let mut hosts = ranks.hosts();
        hosts.sort_unstable();
        hosts.dedup();
        tracing::info!("ranks: {}, hosts: {}, threads a rank: {}", ranks.size(), hosts.len(), context.threads);
    }
}
