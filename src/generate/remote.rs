//! A model on a server in the engine's place: the same requests, asked side by side instead of in one batch.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    Accept, Completed, Emit, Generation, Request, Sampling,
    construct::{Failure, Teacher},
    in_order::in_order,
};
use crate::{
    data::Record,
    error::{Error, Result},
    prompt::{Message, Prompter, Tokens},
    remote::{Choice, Completion, Pool, PromptTransport, RequestFailure, Server},
    rng::{Rng, streams},
};

/// So many requests in a row that come to nothing are the server's trouble, not theirs.
const IN_A_ROW: usize = 32;

/// A model on a server. What a request gets is a function of the request and the server, as far as the server is one.
pub struct Remote {
    server: Arc<Server>,
    /// Messages of the prompts that were made and not asked yet, in order.
    messages: RefCell<VecDeque<Option<Vec<Message>>>>,
    /// Why the request that is being emitted came to nothing.
    refused: Cell<Option<(usize, RequestFailure)>>,
    /// How many requests were left open for the server's trouble, and what the last one's was.
    left_open: Cell<Option<(usize, RequestFailure)>>,
    /// None is: they are the records' own trouble.
    drops_failed: bool,
}

impl Remote {
    /// Asks this server.
    pub fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            messages: RefCell::default(),
            refused: Cell::new(None),
            left_open: Cell::new(None),
            drops_failed: false,
        }
    }

    /// Leaves no request open, if `drops_failed`: one whose every attempt failed has then had its answer.
    #[must_use]
    pub fn dropping(self, drops_failed: bool) -> Self {
        Self { drops_failed, ..self }
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The prompt of the next request. Requests are asked in the order in which their prompts are made here.
    pub fn prompt(&self, prompter: &Prompter, record: &Record) -> Result<Tokens> {
        if self.server.transport() == PromptTransport::Chat {
            self.messages.borrow_mut().push_back(prompter.messages(record)?);
        }
        prompter.prompt(record)
    }

    /// The same where no record may go without an answer: one that this server cannot be asked about is an error.
    pub fn prompt_of_all(&self, prompter: &Prompter, record: &Record) -> Result<Tokens> {
        let tokens = self.prompt(prompter, record)?;
        let messages = || self.messages.borrow().back().cloned().flatten();
        match self.server.question(&tokens.ids, messages(), Choice::new(1, 0.0, 1.0, 0)) {
            Ok(_) => Ok(tokens),
            Err(failure) => Err(self.error(failure).context(format!("record {}", record.place()))),
        }
    }

    /// Runs requests whose samples, or continuations, are all wanted, and emits them in order. One that comes to
    /// nothing ends the run like one that could not be made: what was asked before it is finished and emitted first.
    pub fn run_in_order(
        &self,
        requests: impl Iterator<Item = Result<Request>>,
        emit: &mut dyn FnMut(Completed) -> Result<()>,
    ) -> Result<()> {
        in_order(requests, emit, |requests, emit| RemoteScheduler::new(self, requests, None)?.finish(emit))
    }

    /// An error where records were left open: what their requests came to is the server's trouble, not theirs.
    pub fn check_none_left_open(&self) -> Result<()> {
        let Some((count, failure)) = self.left_open.get() else { return Ok(()) };
        let are = if count == 1 { "record is" } else { "records are" };
        Err(self.error(failure).context(format!("{count} {are} open for the server's reasons")).hint(
            "what is answered is kept: the same command asks only those again; remote.retries and remote.timeout_s \
                give the server longer, and remote.drop_failed = true drops what fails each time",
        ))
    }

    fn leave_open(&self, failure: RequestFailure) {
        let before = self.left_open.get().map_or(0, |(count, _)| count);
        self.left_open.set(Some((before + 1, failure)));
    }

    fn error(&self, failure: RequestFailure) -> Error {
        failure.into_error(self.server.model().key(), self.server.model().url())
    }
}

impl Teacher for Remote {
    fn answer(
        &self,
        requests: &mut dyn Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        RemoteScheduler::new(self, requests, Some(accept))?.finish(emit)
    }

    fn refusal(&self, index: usize) -> Option<Failure> {
        self.refused.take().filter(|(refused, _)| *refused == index).map(|(_, failure)| failure.into())
    }
}

/// A request that is not done.
struct Open {
    request: Request,
    messages: Option<Vec<Message>>,
    /// By sample.
    generations: BTreeMap<usize, Generation>,
}

impl Open {
    fn complete(self, index: usize) -> Completed {
        Completed { generations: self.generations.into_values().collect(), ..Completed::of(index) }
    }
}

/// What a server made of a sample, or of all continuations of a request.
enum Made {
    Text(Completion),
    Scores(Vec<f64>),
}

impl From<Completion> for Generation {
    /// Its token ids are the server's own.
    fn from(answer: Completion) -> Self {
        let Completion { text, finish, generated_tokens } = answer;
        Self { ids: Vec::new(), text, finish, generated_tokens }
    }
}

/// One run: the requests that a server works on, and what waits to be asked.
struct RemoteScheduler<'e, 'f> {
    remote: &'e Remote,
    requests: &'e mut dyn Iterator<Item = Request>,
    /// With it samples are trials, asked one after another.
    accept: Option<&'e mut Accept<'f>>,
    pool: Pool<Result<Made, RequestFailure>>,
    /// Requests taken from the source.
    taken: usize,
    exhausted: bool,
    open: BTreeMap<usize, Open>,
    /// Samples (request, sample) that are to be asked.
    waiting: VecDeque<(usize, usize)>,
    /// How many requests came to nothing since the server's last answer.
    failed_in_a_row: usize,
    /// Those of them whose own trouble it is: they wait to be emitted until an answer shows that the server is there.
    failures: Vec<(Completed, RequestFailure)>,
    /// The first request of all that came to nothing, where none may.
    failed: Option<(usize, RequestFailure)>,
}

impl<'e, 'f> RemoteScheduler<'e, 'f> {
    fn new(
        remote: &'e Remote,
        requests: &'e mut dyn Iterator<Item = Request>,
        accept: Option<&'e mut Accept<'f>>,
    ) -> Result<Self> {
        let pool = Pool::new(&remote.server)?;
        Ok(Self {
            remote,
            requests,
            accept,
            pool,
            taken: 0,
            exhausted: false,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            failed_in_a_row: 0,
            failures: Vec::new(),
            failed: None,
        })
    }

    fn finish(mut self, emit: &mut Emit<'_>) -> Result<()> {
        loop {
            while self.pool.has_room() && self.ask_next(emit)? {}
            if self.pool.is_idle() {
                break;
            }
            let ((index, sample), answer) = self.pool.wait()?;
            match answer {
                Ok(made) => self.answered(index, sample, made, emit)?,
                Err(failure) => self.came_to_nothing(index, failure, emit)?,
            }
            // Nothing behind a failure is wanted any more.
            if self.failed.is_some() && self.open.is_empty() {
                break;
            }
        }
        self.let_go(emit)?;
        self.failed.map_or(Ok(()), |(_, failure)| Err(self.remote.error(failure)))
    }

    /// Asks the next sample; false where there is none to ask now.
    fn ask_next(&mut self, emit: &mut Emit<'_>) -> Result<bool> {
        let Some((index, sample)) = self.waiting.pop_front().or_else(|| self.take()) else { return Ok(false) };
        let Some(open) = self.open.get(&index) else { return Ok(true) };
        if !open.request.continuations.is_empty() {
            let Request { prompt, continuations, .. } = open.request.clone();
            self.pool.ask((index, sample), move |server| scores(server, &prompt, &continuations).map(Made::Scores))?;
            return Ok(true);
        }
        let choice = choice(&open.request, sample);
        match self.remote.server.question(&open.request.prompt, open.messages.clone(), choice) {
            Ok(question) => self.pool.ask((index, sample), move |server| server.ask(&question).map(Made::Text))?,
            Err(failure) => self.came_to_nothing(index, failure, emit)?,
        }
        Ok(true)
    }

    /// Takes a request from the source: its first sample, the others behind it in the queue.
    fn take(&mut self) -> Option<(usize, usize)> {
        let oldest = self.open.first_key_value().map_or(self.taken, |(index, _)| *index);
        let ahead = self.accept.is_none() && self.taken - oldest >= 4 * self.remote.server.concurrency();
        if self.exhausted || ahead || self.failed.is_some() {
            return None;
        }
        let Some(request) = self.requests.next() else {
            self.exhausted = true;
            return None;
        };
        let index = self.taken;
        self.taken += 1;
        let messages = self.remote.messages.borrow_mut().pop_front().flatten();
        if self.accept.is_none() {
            self.waiting.extend((1..request.samples).map(|sample| (index, sample)));
        }
        self.open.insert(index, Open { request, messages, generations: BTreeMap::new() });
        Some((index, 0))
    }

    fn answered(&mut self, index: usize, sample: usize, made: Made, emit: &mut Emit<'_>) -> Result<()> {
        self.failed_in_a_row = 0;
        self.let_go(emit)?;
        let Some(open) = self.open.get_mut(&index) else { return Ok(()) };
        let generation: Generation = match made {
            Made::Text(answer) => answer.into(),
            Made::Scores(log_probabilities) => {
                self.open.remove(&index);
                return emit(Completed { log_probabilities, ..Completed::of(index) });
            }
        };
        let accepted = self.accept.as_mut().is_some_and(|accept| accept(index, sample, &generation));
        open.generations.insert(sample, generation);
        if accepted || open.generations.len() == open.request.samples {
            if let Some(open) = self.open.remove(&index) {
                emit(open.complete(index))?;
            }
        } else if self.accept.is_some() {
            self.waiting.push_front((index, sample + 1));
        }
        Ok(())
    }

    fn came_to_nothing(&mut self, index: usize, failure: RequestFailure, emit: &mut Emit<'_>) -> Result<()> {
        let Some(open) = self.open.remove(&index) else { return Ok(()) };
        let model = self.remote.server.model();
        if self.accept.is_none() {
            self.failed = self.failed.filter(|(failed, _)| *failed < index).or(Some((index, failure)));
            let first = self.failed.map_or(index, |(failed, _)| failed);
            self.open.retain(|index, _| *index < first);
            return Ok(());
        }
        failure.raise_if_everyones(model.key(), model.url())?;
        if failure == RequestFailure::ControlText {
            self.remote.refused.set(Some((index, failure)));
            return emit(open.complete(index));
        }
        if failure.is_the_servers() && !self.remote.drops_failed {
            self.remote.leave_open(failure);
        } else {
            self.failures.push((open.complete(index), failure));
        }
        self.failed_in_a_row += 1;
        if self.failed_in_a_row < IN_A_ROW {
            return Ok(());
        }
        Err(self
            .remote
            .error(failure)
            .context(format!("{IN_A_ROW} records in a row got no answer, they are kept open")))
    }

    /// Emits what came to nothing: it was not the server that is gone.
    fn let_go(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        for (completed, failure) in self.failures.drain(..) {
            self.remote.refused.set(Some((completed.index, failure)));
            emit(completed)?;
        }
        Ok(())
    }
}

/// log p(continuation | prompt) of each.
fn scores(server: &Server, prompt: &[u32], continuations: &[Vec<u32>]) -> Result<Vec<f64>, RequestFailure> {
    let score = |continuation: &Vec<u32>| {
        let numbers = server.log_probabilities(&[prompt, continuation].concat(), continuation.len())?;
        Ok(numbers.iter().sum())
    };
    continuations.iter().map(score).collect()
}

/// How the tokens of one sample are chosen: by a seed of its own, of 31 bits, which every server takes.
pub fn choice(request: &Request, sample: usize) -> Choice {
    let Sampling { temperature, top_p, seed } = request.sampling;
    let seed = Rng::new(seed, streams::SAMPLING).word(request.key.wrapping_add(sample as u64), 0) >> 1;
    Choice::new(request.max_new_tokens, temperature, top_p, seed)
}
