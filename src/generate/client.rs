//! Whom an engine works for: where its requests come from, and where what it made of them goes.

use std::iter::Fuse;

use super::{Completed, Generation, Request};
use crate::{error::Result, signals};

/// Decides whether a sample (of request, of trial) is good enough: `true` = no further trial of this request.
pub type Accept<'f> = dyn FnMut(usize, usize, &Generation) -> bool + 'f;

/// Receives each request's result as it completes.
pub type Emit<'f> = dyn FnMut(Completed) -> Result<()> + 'f;

/// Asks an engine. Requests are known by their place among those that were taken, from 0.
pub(super) trait Client {
    /// Whether samples are trials, one after another until one is accepted; else all are wanted, side by side.
    fn wants_trials(&self) -> bool;

    /// The next request; `None` where there is none, or none now.
    fn next(&mut self) -> Option<Request>;

    /// Whether a trial is accepted; `None` where [`Client::between_steps`] will tell.
    fn judge(&mut self, request: usize, sample: usize, generation: &Generation) -> Option<bool>;

    /// Takes what is done.
    fn emit(&mut self, completed: Completed) -> Result<()>;

    /// Called before each step of an engine, which is `idle` where it has nothing to do: an error ends the run. Tells
    /// which requests' trials are by now judged, and whether they are accepted.
    fn between_steps(&mut self, idle: bool) -> Result<Vec<(usize, bool)>>;

    /// Whether an engine that has nothing to do has come to its end.
    fn is_done(&self) -> bool;
}

/// The client of an engine without other ranks: requests from an iterator, results to `emit`.
pub(super) struct Local<'c, 'f, I: Iterator<Item = Option<Request>>> {
    requests: Fuse<I>,
    accept: Option<&'c mut Accept<'f>>,
    emit: &'c mut Emit<'f>,
}

impl<'c, 'f, I: Iterator<Item = Option<Request>>> Local<'c, 'f, I> {
    /// With `accept` samples are trials.
    pub fn new(requests: I, accept: Option<&'c mut Accept<'f>>, emit: &'c mut Emit<'f>) -> Self {
        Self { requests: requests.fuse(), accept, emit }
    }
}

impl<I: Iterator<Item = Option<Request>>> Client for Local<'_, '_, I> {
    fn wants_trials(&self) -> bool {
        self.accept.is_some()
    }

    fn next(&mut self) -> Option<Request> {
        self.requests.next().flatten()
    }

    fn judge(&mut self, request: usize, sample: usize, generation: &Generation) -> Option<bool> {
        Some(self.accept.as_mut().is_some_and(|accept| accept(request, sample, generation)))
    }

    fn emit(&mut self, completed: Completed) -> Result<()> {
        (self.emit)(completed)
    }

    fn between_steps(&mut self, _: bool) -> Result<Vec<(usize, bool)>> {
        signals::check_interrupted().map(|()| Vec::new())
    }

    /// A source holds back only while something that it gave is under way.
    fn is_done(&self) -> bool {
        true
    }
}
