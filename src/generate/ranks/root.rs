//! Rank 0: deals requests to all ranks and hands their answers on.

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Fuse,
    thread,
};

use super::{Command, POLL_INTERVAL, RootMessage, WorkerMessage, read, write};
use crate::{
    error::Result,
    generate::{Accept, Budget, Completed, Emit, Engine, Generation, Request, client::Client, engine::WINDOW},
    model::Replicas,
    parallel::Collective,
    signals,
};

/// Rows of the decoding batch for which a rank has requests at most: those that run, and as many to follow them.
const AHEAD: usize = 2 * Budget::ROWS;

/// Answers requests on every rank, with `accept` by trials.
pub(in crate::generate) fn share<'f>(
    engine: &Engine<'_>,
    replicas: &Replicas,
    requests: impl Iterator<Item = Option<Request>>,
    accept: Option<&mut Accept<'f>>,
    emit: &mut Emit<'f>,
) -> Result<()> {
    let ranks = &replicas.ranks;
    let trials = accept.is_some();
    let constraint = engine.constraint().cloned();
    tell_all(ranks, &RootMessage::Begin { opening: replicas.opening, trials, constraint })?;
    let mut root = Root {
        engine,
        ranks,
        requests: requests.fuse(),
        accept,
        emit,
        taken: 0,
        own: VecDeque::new(),
        begun: Vec::new(),
        loads: vec![Load::default(); ranks.size()],
        open: BTreeMap::new(),
        yielded: false,
    };
    match engine.work(&mut root) {
        Ok(()) => tell_all(ranks, &RootMessage::End),
        // Its error is this command's, which says what is saved.
        Err(error) if root.yielded => ranks.agree(Err(error)),
        Err(error) => Err(error),
    }
}

/// Lets the other ranks go, at the end of a command.
pub fn dismiss(ranks: &Collective) -> Result<()> {
    ranks.broadcast(&write(&Command::End)?).map(drop)
}

fn tell_all(ranks: &Collective, message: &RootMessage) -> Result<()> {
    let message = write(message)?;
    (1..ranks.size()).for_each(|rank| ranks.send(rank, &message));
    Ok(())
}

/// What a rank has to do.
#[derive(Clone, Copy, Default)]
struct Load {
    /// Rows of its batch, taken or to be taken.
    rows: usize,
    /// Tokens to read, and at most to write.
    tokens: usize,
}

impl Load {
    fn of(request: &Request, trials: bool) -> Self {
        // Trials run one after another.
        let samples = if trials { request.samples.min(1) } else { request.samples };
        Self { rows: samples.max(1), tokens: request.prompt.len() + samples * request.max_new_tokens }
    }
}

/// The client of rank 0's own engine, which deals in the others between its steps.
struct Root<'l, 'f, I: Iterator<Item = Option<Request>>> {
    engine: &'l Engine<'l>,
    ranks: &'l Collective,
    requests: Fuse<I>,
    accept: Option<&'l mut Accept<'f>>,
    emit: &'l mut Emit<'f>,
    /// Requests taken from the source.
    taken: usize,
    /// Requests of this rank that its engine has not taken yet.
    own: VecDeque<(usize, Request)>,
    /// The number of each request that it took.
    begun: Vec<usize>,
    loads: Vec<Load>,
    /// Requests that are under way: on which rank, and what they cost it.
    open: BTreeMap<usize, (usize, Load)>,
    /// It stopped for another rank's error.
    yielded: bool,
}

impl<I: Iterator<Item = Option<Request>>> Root<'_, '_, I> {
    /// Gives each next request to the rank with the least to do, as long as any has room.
    fn deal(&mut self) -> Result<bool> {
        let mut dispatched = false;
        let window = WINDOW * self.ranks.size();
        while self.open.first_key_value().is_none_or(|(oldest, _)| self.taken - oldest < window) {
            let ranks = self.loads.iter().enumerate().filter(|(_, load)| load.rows < AHEAD);
            let Some((rank, _)) = ranks.min_by_key(|(_, load)| load.tokens) else { break };
            let Some(request) = self.requests.next().flatten() else { break };
            self.engine.check(&request)?;
            let number = self.taken;
            let load = Load::of(&request, self.accept.is_some());
            self.taken += 1;
            self.loads[rank].rows += load.rows;
            self.loads[rank].tokens += load.tokens;
            self.open.insert(number, (rank, load));
            if rank == 0 {
                self.own.push_back((number, request));
            } else {
                self.ranks.send(rank, &write(&RootMessage::Request(number, request))?);
            }
            dispatched = true;
        }
        Ok(dispatched)
    }

    fn accepts(&mut self, number: usize, sample: usize, generation: &Generation) -> bool {
        self.accept.as_mut().is_some_and(|accept| accept(number, sample, generation))
    }

    fn done(&mut self, completed: Completed) -> Result<()> {
        if let Some((rank, load)) = self.open.remove(&completed.index) {
            self.loads[rank].rows -= load.rows;
            self.loads[rank].tokens -= load.tokens;
        }
        (self.emit)(completed)
    }
}

impl<I: Iterator<Item = Option<Request>>> Client for Root<'_, '_, I> {
    fn wants_trials(&self) -> bool {
        self.accept.is_some()
    }

    fn next(&mut self) -> Option<Request> {
        let (number, request) = self.own.pop_front()?;
        self.begun.push(number);
        Some(request)
    }

    fn judge(&mut self, request: usize, sample: usize, generation: &Generation) -> Option<bool> {
        Some(self.accepts(self.begun[request], sample, generation))
    }

    fn emit(&mut self, completed: Completed) -> Result<()> {
        self.done(Completed { index: self.begun[completed.index], ..completed })
    }

    fn between_steps(&mut self, idle: bool) -> Result<Vec<(usize, bool)>> {
        signals::check_interrupted()?;
        self.ranks.check_others().inspect_err(|_| self.yielded = true)?;
        let mut heard = false;
        while let Some((rank, message)) = self.ranks.receive() {
            heard = true;
            match read(&message)? {
                WorkerMessage::Trial(number, sample, generation) => {
                    let accepted = self.accepts(number, sample, &generation);
                    self.ranks.send(rank, &write(&RootMessage::Judged(number, accepted))?);
                }
                WorkerMessage::Done(answer) => self.done(answer.completed())?,
            }
        }
        if !self.deal()? && idle && !heard {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(Vec::new())
    }

    /// A source holds back only while something that it gave is under way.
    fn is_done(&self) -> bool {
        self.open.is_empty()
    }
}
