//! Data-parallel processes: one, or the ranks of an MPI job (feature `mpi`), behind one type. Layer 1.
//!
//! ```text
//! launch: what mpirun or srun says ─▶ transport: one process · MPI ─▶ Collective: agree, sum, gather
//!                                                                      messages: from one rank to another
//! ```
//!
//! Only host slices pass through here; whoever holds tensors copies them. Every operation is a meeting of all ranks,
//! in the same order on each, and begins with a word from each whether it is well. A rank that failed anywhere says so
//! at the next meeting, whichever that is, and every rank leaves it with the same error: none waits for one that will
//! not come. A rank that dies says nothing; then whoever started the job ends the others.

mod join;
mod launch;
mod messages;
mod number;
mod status;
mod sum;
#[cfg(test)]
pub(crate) mod tests;
mod transport;
#[cfg(feature = "mpi")]
mod world;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use self::{join::RankLocation, launch::Launch, messages::Messages, transport::Transport};
use crate::error::{Error, Result};

/// What this process's lines on stderr begin with: nothing on rank 0, or where there is one process.
pub fn prefix() -> String {
    match Launch::of_this_process().rank {
        None | Some(0) => String::new(),
        Some(rank) => format!("rank {rank}: "),
    }
}

/// This process among those that work together. With one process nothing is copied and nobody waits.
#[derive(Clone)]
pub struct Collective(Arc<Inner>);

struct Inner {
    rank: usize,
    /// The ranks' machines.
    places: Vec<RankLocation>,
    /// Which GPU of its machine is this rank's.
    gpu: usize,
    /// The last meeting ended in an error that every rank knows.
    failed: AtomicBool,
    /// This rank stopped what it did for another's error.
    yields_to_other_error: AtomicBool,
    messages: Messages,
    transport: Transport,
}

impl fmt::Debug for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Collective {
    /// This process alone.
    pub fn one() -> Self {
        Self::new(0, vec![RankLocation::default()], 0, Transport::One)
    }

    fn new(rank: usize, places: Vec<RankLocation>, gpu: usize, transport: Transport) -> Self {
        let failed = AtomicBool::new(false);
        let yields_to_other_error = AtomicBool::new(false);
        let messages = Messages::new(places.len());
        Self(Arc::new(Inner { rank, places, gpu, failed, yields_to_other_error, messages, transport }))
    }

    /// This process among [`Collective::size`], from 0.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// Processes.
    pub fn size(&self) -> usize {
        self.0.places.len()
    }

    /// Is this the one that writes files and speaks to the user?
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// The GPU of this machine that is this rank's, unless the command line names one.
    pub fn gpu(&self) -> usize {
        self.0.gpu
    }

    /// The ranks' machines, one a rank.
    pub fn hosts(&self) -> Vec<&str> {
        self.0.places.iter().map(|place| place.host.as_str()).collect()
    }

    /// Ranks that share this machine's memory.
    pub fn on_this_host(&self) -> usize {
        let own = &self.0.places[self.rank()].host;
        self.0.places.iter().filter(|place| place.host == *own).count()
    }

    /// Ranks that share this rank's cores: one where each rank is bound to cores of its own.
    pub fn on_these_cores(&self) -> usize {
        let own = &self.0.places[self.rank()];
        self.0.places.iter().filter(|place| *place == own).count()
    }

    /// All ranks agree how to go on. Where all are well each has its own value; else none has, and all have the error
    /// of the first that failed, its rank and machine named unless all failed alike.
    pub fn agree<T>(&self, result: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return result;
        }
        let statuses = match &result {
            Ok(_) => self.round(&[]),
            Err(error) => self.tell(error),
        };
        let error = status::first_error(&statuses, &self.hosts());
        let error = error.or_else(|| status::closed_early(&statuses, &self.hosts()));
        self.0.failed.store(error.is_some(), Ordering::Relaxed);
        error.map_or(result, Err)
    }

    /// For long work of this rank's own between two meetings: an error as soon as another rank waits at the next one
    /// with an error of its own.
    pub fn check_others(&self) -> Result<()> {
        if !self.0.transport.holds_failure() {
            return Ok(());
        }
        self.0.yields_to_other_error.store(true, Ordering::Relaxed);
        Err(Error::run("another rank failed"))
    }

    /// Does `work` on rank 0 alone, before any rank goes on; what fails there fails everywhere. `None` on other ranks.
    pub fn on_rank_0<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.agree(if self.is_root() { work().map(Some) } else { Ok(None) })
    }

    /// Adds up `values` over the ranks, in rank order: the same bits on every rank, and in every run of as many.
    pub fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.agree(Ok(()))?;
        sum::in_rank_order(&self.0.transport, self.rank(), self.size(), values);
        Ok(())
    }

    /// The same for a few numbers in f64.
    pub fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let parts = self.all_gather(&own)?;
        for (i, value) in values.iter_mut().enumerate() {
            let of = |part: &Vec<u8>| part.get(8 * i..8 * i + 8).and_then(|bytes| bytes.try_into().ok());
            *value = parts.iter().map(|part| of(part).map_or(f64::NAN, f64::from_le_bytes)).sum();
        }
        Ok(())
    }

    /// Every rank's bytes, on every rank.
    pub fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.agree(Ok(()))?;
        Ok(self.round(own))
    }

    /// Every rank's bytes on rank 0; nothing on the others.
    pub fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.agree(Ok(()))?;
        let lengths = self.0.transport.all_to_all(self.rank(), self.size(), own.len() as u64, false);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        if self.is_root() {
            parts.push(own.to_vec());
            parts.extend(lengths[1..].iter().map(|&length| vec![0; length as usize]));
            let receives = parts.iter_mut().enumerate().skip(1).map(|(rank, part)| (rank, part.as_mut_slice()));
            self.0.transport.exchange(Vec::new(), receives.collect());
        } else {
            self.0.transport.exchange(vec![(0, own)], Vec::new());
        }
        Ok(parts)
    }

    /// Rank 0's bytes, on every rank.
    pub fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>> {
        let mut parts = self.all_gather(if self.is_root() { own } else { &[] })?;
        Ok(parts.swap_remove(0))
    }

    /// The items that fall to this rank: dealt out in turn, so that each rank has long and short ones alike.
    pub fn round_robin<'a, T>(&self, items: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        items.iter().skip(self.rank()).step_by(self.size())
    }

    /// What each rank made of what was dealt to it, an item a value, in the order of the items; nothing on other ranks
    /// than 0.
    pub fn gather_round_robin(&self, own: Vec<Vec<u8>>) -> Result<Option<Vec<Vec<u8>>>> {
        if self.size() == 1 {
            return Ok(Some(own));
        }
        let own: Vec<u8> =
            own.iter().flat_map(|value| [&(value.len() as u64).to_le_bytes(), &value[..]].concat()).collect();
        let parts = self.gather(&own)?;
        if !self.is_root() {
            return Ok(None);
        }
        let mut rest: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut values = Vec::new();
        for rank in (0..self.size()).cycle() {
            let Some((length, bytes)) = rest[rank].split_first_chunk::<8>() else { break };
            let (value, others) = bytes.split_at(u64::from_le_bytes(*length) as usize);
            values.push(value.to_vec());
            rest[rank] = others;
        }
        Ok(Some(values))
    }

    /// What a rank does last but for its report: it waits for the others. What failed on one rank has then failed on
    /// all, and the files of all are written.
    pub fn close<T>(&self, result: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return result;
        }
        // An error that the others have not heard of yet is told first, at whatever meeting they are.
        let known = self.0.failed.load(Ordering::Relaxed);
        let mut result = if known { result } else { result.map_err(|error| self.told(&error)) };
        loop {
            let statuses = self.round(status::CLOSING);
            let error = status::first_error(&statuses, &self.hosts());
            result = result.and_then(|value| error.map_or(Ok(value), Err));
            if statuses.iter().all(|status| status == status::CLOSING) {
                return result;
            }
        }
    }

    /// The error that all ranks have once they have heard of this one.
    fn told(&self, error: &Error) -> Error {
        status::first_error(&self.tell(error), &self.hosts()).unwrap_or_else(|| error.clone())
    }

    /// A meeting to which this rank brings an error.
    fn tell(&self, error: &Error) -> Vec<Vec<u8>> {
        let yields_to_other_error = self.0.yields_to_other_error.swap(false, Ordering::Relaxed);
        self.round_of(&status::failed(error, yields_to_other_error), true)
    }

    /// Waits until every rank has said what it has to say: none may end with an error before, since whoever started
    /// the job kills the others then.
    pub fn leave(self) {
        if self.size() > 1 {
            self.round(&[]);
        }
    }

    /// Ends every rank at once with this exit code, where this one cannot meet the others any more. Returns where there
    /// is no other.
    pub fn abort(&self, code: u8) {
        self.0.transport.abort(code);
    }

    /// Every rank's bytes on every rank, whatever they are.
    fn round(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.round_of(own, false)
    }

    /// The same; `failure`: this rank's are an error, which others can see coming.
    fn round_of(&self, own: &[u8], failure: bool) -> Vec<Vec<u8>> {
        let lengths = self.0.transport.all_to_all(self.rank(), self.size(), own.len() as u64, failure);
        let mut parts: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length as usize]).collect();
        parts[self.rank()].copy_from_slice(own);
        let others = || (0..self.size()).filter(|&rank| rank != self.rank());
        let sends = others().filter(|_| !own.is_empty()).map(|rank| (rank, own)).collect();
        let receives = parts.iter_mut().enumerate().filter(|(rank, part)| *rank != self.rank() && !part.is_empty());
        self.0.transport.exchange(sends, receives.map(|(rank, part)| (rank, part.as_mut_slice())).collect());
        parts
    }

    /// Ranks that are threads of one process.
    #[cfg(test)]
    pub fn threads(size: usize) -> Vec<Self> {
        let place = |rank| RankLocation { host: format!("host{}", rank / 2), cores: "0-3".into() };
        let places: Vec<RankLocation> = (0..size).map(place).collect();
        let transports = transport::Threads::connected(size).into_iter().enumerate();
        transports.map(|(rank, threads)| Self::new(rank, places.clone(), 0, Transport::Threads(threads))).collect()
    }
}
