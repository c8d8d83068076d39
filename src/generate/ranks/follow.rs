//! Every other rank: reads the models that rank 0 names and answers what it asks.

use std::{collections::VecDeque, thread};

use super::{Answer, Asked, NAP, Order, Told, open::WorkerModel, read, write};
use crate::{
    context::Context,
    device,
    error::{Error, Result},
    generate::{Completed, Engine, Generation, Request, client::Client},
    parallel::Collective,
};

/// Follows rank 0's orders until its command is done.
///
/// # Errors
/// What this rank failed at, or any other.
pub fn serve(context: &Context) -> Result<()> {
    let ranks = &context.ranks;
    let mut held: Option<WorkerModel> = None;
    loop {
        device::check_interrupted()?;
        if let Some((_, letter)) = ranks.receive() {
            answer(ranks, held.as_ref(), &letter)?;
        } else if !ranks.is_called() {
            thread::sleep(NAP);
        } else {
            match read(&ranks.broadcast(&[])?)? {
                Order::Open(number, opening) => {
                    // Two models may not fit.
                    drop(held.take());
                    held = Some(opening.hold(context, number)?);
                }
                Order::End => return Ok(()),
            }
        }
    }
}

/// Answers requests from the letter on that says they follow.
pub(super) fn answer(ranks: &Collective, held: Option<&WorkerModel>, letter: &[u8]) -> Result<()> {
    let unexpected = || Error::run("rank 0 asks for what was not agreed");
    let Asked::Begin { opening, trials, constraint } = read(letter)? else { return Err(unexpected()) };
    let held = held.filter(|held| held.number == opening).ok_or_else(unexpected)?;
    let engine = Engine::new(&held.model, &held.tokenizer, held.budget).constrained(constraint.as_ref());
    let (requests, begun) = (VecDeque::new(), Vec::new());
    engine.work(&mut Follow { ranks, trials, requests, begun, ended: false })
}

/// The client of this rank's engine, which speaks for rank 0.
struct Follow<'f> {
    ranks: &'f Collective,
    trials: bool,
    /// Requests that the engine has not taken yet.
    requests: VecDeque<(usize, Request)>,
    /// The number of each request that it took.
    begun: Vec<usize>,
    /// No more will come.
    ended: bool,
}

impl Client for Follow<'_> {
    fn wants_trials(&self) -> bool {
        self.trials
    }

    fn next(&mut self) -> Option<Request> {
        let (number, request) = self.requests.pop_front()?;
        self.begun.push(number);
        Some(request)
    }

    fn judge(&mut self, request: usize, sample: usize, generation: &Generation) -> Option<bool> {
        // What has no JSON form is refused, and missed when the request is done.
        let letter = write(&Told::Trial(self.begun[request], sample, generation.clone()));
        letter.map(|letter| self.ranks.send(0, &letter)).is_err().then_some(false)
    }

    fn emit(&mut self, completed: Completed) -> Result<()> {
        let number = self.begun[completed.index];
        self.ranks.send(0, &write(&Told::Done(Answer::new(number, completed)))?);
        Ok(())
    }

    fn between_steps(&mut self, idle: bool) -> Result<Vec<(usize, bool)>> {
        device::check_interrupted()?;
        self.ranks.check_others()?;
        let mut judged = Vec::new();
        let mut heard = false;
        // What comes behind the end may begin anew.
        while !self.ended
            && let Some((_, letter)) = self.ranks.receive()
        {
            heard = true;
            match read(&letter)? {
                Asked::Request(number, request) => self.requests.push_back((number, request)),
                Asked::Judged(number, accepted) => {
                    let taken = self.begun.iter().rposition(|begun| *begun == number);
                    judged.extend(taken.map(|request| (request, accepted)));
                }
                Asked::End => self.ended = true,
                Asked::Begin { .. } => return Err(Error::run("rank 0 begins before it has ended")),
            }
        }
        if idle && !heard {
            thread::sleep(NAP);
        }
        Ok(judged)
    }

    fn is_done(&self) -> bool {
        self.ended
    }
}
