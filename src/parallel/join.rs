//! How a process finds out which others it works with, and where they run.

#[cfg(feature = "mpi")]
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Collective, launch::Launch};
#[cfg(feature = "mpi")]
use super::{transport::Transport, world::World};
use crate::error::{Error, Result};
#[cfg(feature = "mpi")]
use crate::storage::host_name;

/// Where a rank runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct RankLocation {
    /// Its machine.
    pub host: String,
    /// The cores it may use, as Linux lists them.
    pub cores: String,
}

impl Collective {
    /// Joins the other ranks of the job that this process was started in, if it was; `shares`: whether the command
    /// shares its work among ranks. The first call in a process joins, so there must be no other.
    ///
    /// # Errors
    /// Exit 2 where several ranks were started that would not know of each other: they would do the same work at once
    /// and fight over its files.
    pub fn join(command: &str, shares: bool) -> Result<Self> {
        let launch = Launch::of_this_process();
        if !launch.may_be_several() {
            return Ok(Self::one());
        }
        if !shares {
            return Err(Error::usage(format!(
                "`clsgen {command}` was started as {launch}, and does not share its work"
            ))
            .hint("start it without mpirun or srun; construct, train, eval and predict work over ranks"));
        }
        Self::join_ranks(&launch)
    }

    #[cfg(not(feature = "mpi"))]
    fn join_ranks(launch: &Launch) -> Result<Self> {
        if launch.ranks.is_none() {
            return Ok(Self::one());
        }
        Err(Error::usage(format!("clsgen was started as {launch}, and this build of it knows no MPI"))
            .hint("build it with --features mpi (README, \"Several GPUs\"), or start it without mpirun or srun"))
    }

    #[cfg(feature = "mpi")]
    fn join_ranks(launch: &Launch) -> Result<Self> {
        let world = World::join()?;
        if world.size() < launch.ranks.unwrap_or(1) {
            return Err(Error::usage(format!(
                "clsgen was started as {launch}, and its MPI library finds no other rank"
            ))
            .hint("start it with `srun --mpi=pmix`, or with the mpirun of the MPI library that it was built with"));
        }
        let alone = Self::new(world.rank(), vec![RankLocation::default(); world.size()], 0, Transport::Mpi(world));
        let place = RankLocation { host: host_name(), cores: cores() };
        let own = serde_json::to_vec(&place).map_err(|e| Error::run(format!("cannot describe this machine: {e}")))?;
        let all = alone.all_gather(&own)?;
        let places: Vec<RankLocation> =
            all.iter().map(|bytes| serde_json::from_slice(bytes).unwrap_or_default()).collect();
        let before = places.iter().take(alone.rank()).filter(|other| other.host == place.host).count();
        let gpu = launch.gpu(before);
        let inner = Arc::into_inner(alone.0).ok_or_else(|| Error::run("MPI was joined twice"))?;
        Ok(Self::new(inner.rank, places, gpu, inner.transport))
    }
}

/// The cores that this process may use.
#[cfg(feature = "mpi")]
fn cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}
