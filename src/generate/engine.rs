//! Continuous batching over one model.
//!
//! ```text
//! requests ─▶ admit: prefill (h_n ─▶ CLS logits, LM logits of t_n) ─▶ job ─▶ a row a sample ─┐
//!                 ▲                                                                          ▼
//!                 └─ room in the budget ◀─ row leaves at its stop token ◀─ step: one token for every row
//! ```
//!
//! t_n is the prompt's last token, h_n its hidden state. A request wants one of three things: samples of an answer, the
//! classification alone (no samples), or the log-probabilities of given continuations (no samples either).

use std::{collections::VecDeque, mem};

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::{
    Completed, Request,
    batch::{ActiveSample, Batch, Budget, SequenceGroup},
    client::{Accept, Client, Emit, Local},
    constrain::Constraint,
    continuations::log_probabilities,
    ranks,
};
use crate::{
    error::{Error, Result},
    model::{Model, kv_cache::SequenceCache},
    ops::{DECODE_THREADS, Offsets, ParFor, decode_step::DecodeGraphs, sample, with_spinning_workers},
    prompt::TextTokenizer,
};

/// Prompts are prefilled together up to this many tokens: enough rows to fill the matrix units, and fewer than one long
/// note has, so that batching does not raise the peak of memory.
pub(super) const PREFILL_TOKENS: usize = 2048;

/// A request may be at most this far ahead of the oldest unfinished one, so that whoever restores the input order
/// holds few finished answers.
pub(super) const WINDOW: usize = 256;

/// Generates with one model; holds no state between runs.
pub struct Engine<'a> {
    model: &'a Model,
    tokenizer: &'a TextTokenizer,
    budget: Budget,
    constraint: Option<&'a Constraint>,
}

impl<'a> Engine<'a> {
    /// An engine on this model. `budget` bounds memory; it never changes a result.
    pub fn new(model: &'a Model, tokenizer: &'a TextTokenizer, budget: Budget) -> Self {
        Self { model, tokenizer, budget, constraint: None }
    }

    /// Forces every answer to end in the prompt's verdict line (`Classification: <label>`).
    #[must_use]
    pub fn constrained(self, constraint: Option<&'a Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// Runs requests whose samples are trials: one after another, until `accept` takes one. Results come in the order
    /// of their completion.
    pub fn run(
        &self,
        requests: impl Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.share_or_work(requests.map(Some), Some(accept), emit)
    }

    /// Runs requests whose samples are all wanted: they run side by side.
    pub fn run_all(&self, requests: impl Iterator<Item = Request>, emit: &mut Emit<'_>) -> Result<()> {
        self.run_paced(requests.map(Some), emit)
    }

    /// The same of a source that answers `None` while it waits for the result of a request that it gave before.
    pub fn run_paced(&self, requests: impl Iterator<Item = Option<Request>>, emit: &mut Emit<'_>) -> Result<()> {
        self.share_or_work(requests, None, emit)
    }

    /// With other ranks that hold the same model, or alone.
    fn share_or_work<'f>(
        &self,
        requests: impl Iterator<Item = Option<Request>>,
        accept: Option<&mut Accept<'f>>,
        emit: &mut Emit<'f>,
    ) -> Result<()> {
        match &self.model.replicas {
            Some(replicas) => ranks::share(self, replicas, requests, accept, emit),
            None => self.work(&mut Local::new(requests, accept, emit)),
        }
    }

    /// Works for a client until it is done.
    pub(super) fn work(&self, client: &mut dyn Client) -> Result<()> {
        Scheduler {
            engine: self,
            client,
            next: None,
            taken: 0,
            batch: Batch::default(),
            waiting: VecDeque::new(),
            unjudged: 0,
            graphs: DecodeGraphs::as_asked(),
        }
        .finish()
    }

    /// The constraint of its answers.
    pub(super) fn constraint(&self) -> Option<&Constraint> {
        self.constraint
    }
}

/// One run of the engine: the batch, and what waits to enter it.
struct Scheduler<'e, 'a> {
    engine: &'e Engine<'a>,
    client: &'e mut dyn Client,
    /// The next request, with its place among them.
    next: Option<(usize, Request)>,
    /// Requests taken from the client.
    taken: usize,
    batch: Batch,
    /// Samples (request, sample) of open jobs that have no row yet.
    waiting: VecDeque<(usize, usize)>,
    /// Open jobs whose last trial is not judged yet.
    unjudged: usize,
    graphs: DecodeGraphs,
}

impl Scheduler<'_, '_> {
    fn finish(mut self) -> Result<()> {
        let mut idle = false;
        loop {
            for (index, accepted) in self.client.between_steps(idle)? {
                self.unjudged -= 1;
                self.settle(index, accepted)?;
            }
            idle = false;
            self.start_waiting()?;
            if self.waiting.is_empty() && self.admit()? {
                continue;
            }
            if self.batch.rows.is_empty() {
                if self.client.is_done() {
                    return Ok(());
                }
                idle = true;
                continue;
            }
            let device = self.engine.model.llama.device();
            with_spinning_workers(device, DECODE_THREADS, || self.step())?;
            self.retire()?;
        }
    }

    /// Gives rows to waiting samples while there is room.
    fn start_waiting(&mut self) -> Result<()> {
        while let Some(&(index, sample)) = self.waiting.front() {
            let Some(job) = self.batch.jobs.get(&index) else {
                self.waiting.pop_front();
                continue;
            };
            if !self.batch.fits(job.request.sample_cost(), self.engine.budget) {
                return Ok(());
            }
            self.waiting.pop_front();
            let mut row = ActiveSample::new(index, sample, job);
            row.advance(
                sample::RowLogits::new(&job.first, row.draw()),
                &job.request,
                self.engine.constraint,
                self.engine.tokenizer,
            )?;
            self.batch.rows.push(row);
            self.retire()?;
        }
        Ok(())
    }

    /// Prefills the next prompts that fit. False when none does or none is left.
    fn admit(&mut self) -> Result<bool> {
        let group = self.next_group()?;
        if group.is_empty() {
            return Ok(false);
        }
        let promised = group.iter().map(|(_, request)| request.cost()).sum();
        let limit = self.batch.room_for_prefixes(promised, self.engine.budget);
        let (prefill_only, generating): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|(_, request)| request.samples == 0);
        let (scored, prefill_only): (Vec<_>, Vec<_>) =
            prefill_only.into_iter().partition(|(_, request)| !request.continuations.is_empty());
        for (index, request) in scored {
            let Self { engine, batch, .. } = self;
            let llama = &engine.model.llama;
            let found = log_probabilities(llama, &mut batch.prefixes, &request.prompt, &request.continuations)?;
            self.client.emit(Completed { log_probabilities: found, ..Completed::of(index) })?;
        }
        if !prefill_only.is_empty() {
            let caches = self.lookup_or_prefill(&prefill_only, limit)?;
            let hidden = self.engine.prefill_only(&prefill_only, &caches)?;
            for ((index, request), logits) in prefill_only.iter().zip(self.engine.cls_logits(&hidden)?) {
                let logits = request.want_probability.then_some(logits);
                self.client.emit(Completed { logits, ..Completed::of(*index) })?;
            }
        }
        let caches = self.lookup_or_prefill(&generating, limit)?;
        for (index, job) in self.engine.prefill(generating, caches)? {
            // Of such logits the head's say enough; samples of the others' could only fail.
            if job.logits.iter().flatten().any(|logit| !logit.is_finite()) {
                self.client.emit(job.complete(index))?;
                continue;
            }
            let first_wave = if self.client.wants_trials() { 1 } else { job.request.samples };
            self.waiting.extend((0..first_wave).map(|sample| (index, sample)));
            self.batch.jobs.insert(index, job);
        }
        Ok(true)
    }

    /// A sequence for each prompt, starting with its cached prefix; see
    /// [`PrefixCache::lookup_or_prefill`](super::PrefixCache::lookup_or_prefill).
    fn lookup_or_prefill(&mut self, group: &[(usize, Request)], limit: usize) -> Result<Vec<SequenceCache>> {
        let prompts: Vec<&[u32]> = group.iter().map(|(_, request)| &request.prompt[..]).collect();
        self.batch.prefixes.lookup_or_prefill(&self.engine.model.llama, &prompts, limit)
    }

    /// Takes requests off the queue: up to [`PREFILL_TOKENS`] (at least one), within the budget and the window. A
    /// prompt that fits only without the cached prefixes takes their place.
    fn next_group(&mut self) -> Result<Vec<(usize, Request)>> {
        let mut group: Vec<(usize, Request)> = Vec::new();
        let mut prefill = 0;
        let mut promised = 0;
        while let Some((index, prompt, cost)) =
            self.peek().map(|(index, request)| (*index, request.prompt.len(), request.cost()))
        {
            let first = group.first().map(|(index, _): &(usize, Request)| *index);
            let oldest = self.batch.jobs.first_key_value().map(|(index, _)| *index).or(first).unwrap_or(index);
            let room =
                group.is_empty() || (prefill + prompt <= PREFILL_TOKENS && group.len() < self.engine.budget.rows);
            let alone = group.is_empty() && self.batch.rows.is_empty() && self.unjudged == 0;
            if alone && !self.fits_with(cost, 0) {
                self.batch.prefixes.clear();
            }
            if index - oldest >= WINDOW || !room || !(alone || self.fits_with(promised + cost, group.len())) {
                break;
            }
            prefill += prompt;
            promised += cost;
            group.extend(self.next.take());
        }
        group.iter().try_for_each(|(_, request)| self.engine.check(request))?;
        Ok(group)
    }

    /// The next request; none at the end, or while the client holds back.
    fn peek(&mut self) -> Option<&(usize, Request)> {
        if self.next.is_none() {
            self.next = self.client.next().map(|request| (self.taken, request));
            self.taken += usize::from(self.next.is_some());
        }
        self.next.as_ref()
    }

    fn fits_with(&self, tokens: usize, rows: usize) -> bool {
        let budget = self.engine.budget;
        self.batch.rows.len() + rows < budget.rows && self.batch.tokens() + tokens <= budget.tokens
    }

    /// One token for every row.
    fn step(&mut self) -> Result<()> {
        let Self { engine, batch, graphs, .. } = self;
        // Each row has drawn its first token from its prompt's logits.
        let last = |row: &ActiveSample| {
            row.ids.last().copied().ok_or_else(|| Error::run("a row decodes before its first token"))
        };
        let ids: Vec<u32> = batch.rows.iter().map(last).collect::<Result<_>>()?;
        let mut caches: Vec<&mut SequenceCache> = batch.rows.iter_mut().map(|row| &mut row.cache).collect();
        let logits = engine.model.llama.decode_to_logits(&ids, &mut caches, graphs)?;
        let draws = batch.rows.iter().map(ActiveSample::draw).collect();
        let logits = sample::Rows::new(logits, draws)?;
        let jobs = &batch.jobs;
        // Rows choose on all cores: each choice depends on its own logits alone.
        let chosen = batch.rows.par_iter_mut().zip(logits.all()).par_map(|(row, logits)| match jobs.get(&row.job) {
            Some(job) => row.advance(logits, &job.request, engine.constraint, engine.tokenizer),
            None => Err(Error::run("a row has outlived its request")),
        });
        chosen.into_iter().collect()
    }

    /// Takes finished rows out of the batch, in order; queues the next trial or emits the finished request.
    fn retire(&mut self) -> Result<()> {
        let (done, running): (Vec<ActiveSample>, Vec<ActiveSample>) =
            mem::take(&mut self.batch.rows).into_iter().partition(ActiveSample::is_done);
        self.batch.rows = running;
        for row in done {
            let index = row.job;
            let sample = row.sample;
            let generation = row.finish(self.engine.tokenizer)?;
            let trials = self.client.wants_trials();
            let accepted = if trials { self.client.judge(index, sample, &generation) } else { Some(false) };
            let Some(job) = self.batch.jobs.get_mut(&index) else { continue };
            job.file(sample, generation);
            match accepted {
                Some(accepted) => self.settle(index, accepted)?,
                None => self.unjudged += 1,
            }
        }
        Ok(())
    }

    /// Emits a request whose samples are all there, or one of whose trials was accepted; else queues its next trial.
    fn settle(&mut self, index: usize, accepted: bool) -> Result<()> {
        let Some(job) = self.batch.jobs.get(&index) else { return Ok(()) };
        let written = job.written();
        if accepted || written == job.request.samples {
            let done = self.batch.jobs.remove(&index).map(|job| job.complete(index));
            return done.map_or(Ok(()), |done| self.client.emit(done));
        }
        if self.client.wants_trials() {
            self.waiting.push_front((index, written));
        }
        Ok(())
    }
}

impl Engine<'_> {
    /// Refuses a request whose cap cannot hold an answer.
    pub(super) fn check(&self, request: &Request) -> Result<()> {
        let least = self.constraint.map_or(1, Constraint::min_new_tokens);
        if request.samples > 0 && request.max_new_tokens < least {
            return Err(Error::usage(format!(
                "model.max_output_tokens = {} is too small: at least {least}",
                request.max_new_tokens
            )));
        }
        Ok(())
    }

    /// Prefills prompts that will generate: what of each its cache does not hold yet.
    fn prefill(
        &self,
        group: Vec<(usize, Request)>,
        mut caches: Vec<SequenceCache>,
    ) -> Result<Vec<(usize, SequenceGroup)>> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let llama = &self.model.llama;
        let (ids, offsets) = concatenate(&group, &caches);
        let hidden = llama.prefill(&ids, &offsets, &mut caches)?;
        let first = self.lm_logits(&hidden)?;
        let cls = if group.iter().any(|(_, request)| request.want_probability) {
            self.cls_logits(&hidden)?.into_iter().map(Some).collect()
        } else {
            vec![None; group.len()]
        };
        let jobs = group.into_iter().zip(caches).zip(first.into_iter().zip(cls));
        let open = |(((index, request), cache), (first, cls)): (((usize, Request), _), (_, Option<_>))| {
            let logits = cls.filter(|_| request.want_probability);
            (index, SequenceGroup::new(request, cache, first, logits))
        };
        Ok(jobs.map(open).collect())
    }

    /// h_n of prompts that want no text: nothing is kept, no LM head.
    fn prefill_only(&self, group: &[(usize, Request)], caches: &[SequenceCache]) -> Result<Tensor> {
        let (ids, offsets) = concatenate(group, caches);
        self.model.llama.prefill_hidden_behind(&ids, &offsets, caches)
    }

    /// The CLS head on h_n: `(n, hidden)` → n × classes.
    fn cls_logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        let (logits, _) = self.model.head.forward(&hidden.to_dtype(DType::F32)?, None)?;
        Ok(logits.to_dtype(DType::F32)?.to_vec2()?)
    }

    /// The LM head on the last rows of prompts: `(n, hidden)` → n × vocab, on the host, where samples start from it
    /// again and again.
    fn lm_logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        Ok(self.model.llama.decode_logits(hidden)?.to_dtype(DType::F32)?.to_vec2()?)
    }
}

/// The tokens of each prompt that its cache does not hold yet, one after another.
fn concatenate(group: &[(usize, Request)], caches: &[SequenceCache]) -> (Vec<u32>, Offsets) {
    let rests: Vec<&[u32]> =
        group.iter().zip(caches).map(|((_, request), cache)| &request.prompt[cache.len()..]).collect();
    (rests.concat(), Offsets::from_lengths(&rests.iter().map(|rest| rest.len()).collect::<Vec<_>>()))
}
