//! Every other rank: reads the models that rank 0 names and answers what it asks.

use std::{collections::VecDeque, thread};

use super::{Command, CompletedMessage, POLL_INTERVAL, RootMessage, WorkerMessage, open::WorkerModel, read, write};
use crate::{
    context::Context,
    error::{Error, Result},
    generate::{Completed, Engine, Generation, Request, client::Client},
    parallel::Collective,
    signals,
};

/// Follows rank 0's orders until its command is done.
///
/// # Errors
/// What this rank failed at, or any other.
pub fn serve(context: &Context) -> Result<()> {
    let ranks = &context.ranks;
    let mut held: Option<WorkerModel> = None;
    loop {
        signals::check_interrupted()?;
        if let Some((_, message)) = ranks.receive() {
            answer(ranks, held.as_ref(), &message)?;
        } else if !ranks.is_called() {
            thread::sleep(POLL_INTERVAL);
        } else {
            match read(&ranks.broadcast(&[])?)? {
                Command::Open(number, opening) => {
                    // Two models may not fit.
                    drop(held.take());
                    held = Some(opening.hold(context, number)?);
                }
                Command::End => return Ok(()),
            }
        }
    }
}

/// Answers requests from the message on that says they follow.
pub(super) fn answer(ranks: &Collective, held: Option<&WorkerModel>, message: &[u8]) -> Result<()> {
    let unexpected = || Error::run("rank 0 asks for what was not agreed");
    let RootMessage::Begin { opening, trials, constraint } = read(message)? else { return Err(unexpected()) };
    let held = held.filter(|held| held.number == opening).ok_or_else(unexpected)?;
    let engine = Engine::new(&held.model, &held.tokenizer, held.budget).constrained(constraint.as_ref());
    engine.work(&mut Worker { ranks, trials, requests: VecDeque::new(), begun: Vec::new(), ended: false })
}

/// The client of this rank's engine, which speaks for rank 0.
struct Worker<'f> {
    ranks: &'f Collective,
    trials: bool,
    /// Requests that the engine has not taken yet.
    requests: VecDeque<(usize, Request)>,
    /// The number of each request that it took.
    begun: Vec<usize>,
    /// No more will come.
    ended: bool,
}

impl Client for Worker<'_> {
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
        let message = write(&WorkerMessage::Trial(self.begun[request], sample, generation.clone()));
        message.map(|message| self.ranks.send(0, &message)).is_err().then_some(false)
    }

    fn emit(&mut self, completed: Completed) -> Result<()> {
        let number = self.begun[completed.index];
        self.ranks.send(0, &write(&WorkerMessage::Done(CompletedMessage::new(number, completed)))?);
        Ok(())
    }

    fn between_steps(&mut self, idle: bool) -> Result<Vec<(usize, bool)>> {
        signals::check_interrupted()?;
        self.ranks.check_others()?;
        let mut judged = Vec::new();
        let mut heard = false;
        // What comes behind the end may begin anew.
        while !self.ended
            && let Some((_, message)) = self.ranks.receive()
        {
            heard = true;
            match read(&message)? {
                RootMessage::Request(number, request) => self.requests.push_back((number, request)),
                RootMessage::Judged(number, accepted) => {
                    let taken = self.begun.iter().rposition(|begun| *begun == number);
                    judged.extend(taken.map(|request| (request, accepted)));
                }
                RootMessage::End => self.ended = true,
                RootMessage::Begin { .. } => return Err(Error::run("rank 0 begins before it has ended")),
            }
        }
        if idle && !heard {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(judged)
    }

    fn is_done(&self) -> bool {
        self.ended
    }
}
