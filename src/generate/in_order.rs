//! Results in the order of their requests, whatever the order of their completion.

use std::{cell::RefCell, collections::BTreeMap};

use super::{Completed, Emit, Engine, Request};
use crate::error::Result;

/// Results that may wait for their turn: a few times the engine's window.
const HELD: usize = 1024;

/// Emits results by index, holding back those whose turn has not come.
pub(super) struct InOrder<'e, T> {
    next: usize,
    held: BTreeMap<usize, T>,
    emit: &'e mut dyn FnMut(T) -> Result<()>,
}

impl<'e, T> InOrder<'e, T> {
    /// Nothing has come yet; index 0 is the first to leave.
    pub(super) fn new(emit: &'e mut dyn FnMut(T) -> Result<()>) -> Self {
        Self { next: 0, held: BTreeMap::new(), emit }
    }

    /// Whether as many results wait for their turn as may: no more are to be made before that comes.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= HELD
    }

    /// Takes the result of request `index` and emits all whose turn it is now.
    pub(super) fn put(&mut self, index: usize, result: T) -> Result<()> {
        self.held.insert(index, result);
        while let Some(result) = self.held.remove(&self.next) {
            self.next += 1;
            (self.emit)(result)?;
        }
        Ok(())
    }
}

/// Runs requests by `run` and emits their results in order. A request that could not be made ends the run: what was
/// asked before it is finished and emitted, then its error is returned.
pub(super) fn in_order(
    requests: impl Iterator<Item = Result<Request>>,
    emit: &mut dyn FnMut(Completed) -> Result<()>,
    run: impl FnOnce(&mut dyn Iterator<Item = Request>, &mut Emit<'_>) -> Result<()>,
) -> Result<()> {
    let failure = RefCell::new(None);
    let mut ordered = InOrder::new(emit);
    let mut requests = requests.map_while(|request| request.map_err(|error| *failure.borrow_mut() = Some(error)).ok());
    run(&mut requests, &mut |completed| ordered.put(completed.index, completed))?;
    failure.into_inner().map_or(Ok(()), Err)
}

impl Engine<'_> {
    /// As [`Engine::run_all`], by [`in_order`].
    pub fn run_in_order(
        &self,
        requests: impl Iterator<Item = Result<Request>>,
        emit: &mut dyn FnMut(Completed) -> Result<()>,
    ) -> Result<()> {
        in_order(requests, emit, |requests, emit| self.run_all(requests, emit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_leave_in_order_whenever_they_come() {
        let mut seen = Vec::new();
        let mut emit = |index: usize| {
            seen.push(index);
            Ok(())
        };
        let mut ordered = InOrder::new(&mut emit);
        for index in [2, 0, 1, 4, 3] {
            ordered.put(index, index).unwrap();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}
