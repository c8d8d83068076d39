//! The ranks of an MPI job.

use ::mpi::{
    Threading,
    environment::Universe,
    request,
    traits::{Communicator, Destination, MatchedReceiveVec, Source},
};

use super::number::Number;
use crate::error::{Error, Result};

/// MPI's `MPI_COMM_WORLD`; MPI ends when this is dropped.
pub(super) struct World {
    universe: Universe,
    rank: usize,
    size: usize,
}

impl World {
    /// Joins the job that this process was started in. Threads of this process call MPI one at a time.
    pub fn join() -> Result<Self> {
        let joined = ::mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = joined.ok_or_else(|| Error::run("MPI was joined twice"))?;
        if threading < Threading::Serialized {
            return Err(Error::usage("the MPI library allows calls from one thread only")
                .hint("build clsgen with an MPI library that has MPI_THREAD_SERIALIZED"));
        }
        let world = universe.world();
        let number = |n: i32| usize::try_from(n).unwrap_or_default();
        let rank = number(world.rank());
        let size = number(world.size());
        Ok(Self { universe, rank, size })
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Posts every receive and every send at once and waits for all of them.
    pub fn exchange<T: Number>(&self, tag: i32, sends: Vec<(usize, &[T])>, receives: Vec<(usize, &mut [T])>) {
        let world = self.universe.world();
        request::multiple_scope(sends.len() + receives.len(), |scope, requests| {
            for (from, part) in receives {
                requests.add(world.process_at_rank(from as i32).immediate_receive_into_with_tag(scope, part, tag));
            }
            for (to, part) in sends {
                requests.add(world.process_at_rank(to as i32).immediate_send_with_tag(scope, part, tag));
            }
            requests.wait_all(&mut Vec::new());
        });
    }

    /// Whether a message of this tag waits to be received.
    pub fn holds(&self, tag: i32) -> bool {
        self.universe.world().any_process().immediate_probe_with_tag(tag).is_some()
    }

    /// The same of one rank's.
    pub fn holds_from(&self, rank: usize, tag: i32) -> bool {
        self.universe.world().process_at_rank(rank as i32).immediate_probe_with_tag(tag).is_some()
    }

    /// The next message of this rank's with this tag, if one waits to be received.
    pub fn receive_if_any(&self, from: usize, tag: i32) -> Option<Vec<u8>> {
        let waiting = self.universe.world().process_at_rank(from as i32).immediate_matched_probe_with_tag(tag)?;
        Some(waiting.matched_receive_vec().0)
    }

    /// `MPI_Abort`.
    pub fn abort(&self, code: u8) {
        self.universe.world().abort(i32::from(code))
    }
}
