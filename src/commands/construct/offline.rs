//! The teacher of batch files: its questions go to one file, its answers come from another.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::{Value, json};

use super::split::Split;
use crate::{
    data,
    error::{Error, Result},
    foreign,
    generate::{
        Accept, Completed, Emit, Generation, Request,
        construct::{Failure, Teacher},
        remote::choice,
    },
    remote::{RemoteModel, RequestFailure, batch, batch::NoAnswer},
    storage,
};

/// A teacher of files.
pub(super) struct Batch {
    pub model: RemoteModel,
    file: RefCell<Direction>,
    /// The split, and the trials before those that are asked now.
    at: RefCell<(String, usize)>,
    /// Numbers of the records whose prompts were made, in order.
    records: RefCell<VecDeque<usize>>,
    refused: Cell<Option<usize>>,
}

enum Direction {
    Out { file: storage::Writer, written: usize },
    In(Answers),
}

/// Where the answers stand in their file.
struct Answers {
    file: File,
    name: String,
    /// By `custom_id`: where the line begins, its length, its number.
    lines: HashMap<String, (u64, usize, usize)>,
}

impl Batch {
    /// Writes its questions to a file, not over what is there.
    pub fn to(model: RemoteModel, path: &Path) -> Result<Self> {
        if path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
            return Err(
                Error::usage(format!("{} is there already", path.display())).hint("remove it, or name another file")
            );
        }
        Ok(Self::new(model, Direction::Out { file: storage::create_output(path)?, written: 0 }))
    }

    /// Reads its answers from a file.
    pub fn from(model: RemoteModel, path: &Path) -> Result<Self> {
        Ok(Self::new(model, Direction::In(Answers::open(path)?)))
    }

    fn new(model: RemoteModel, file: Direction) -> Self {
        Self {
            model,
            file: RefCell::new(file),
            at: RefCell::default(),
            records: RefCell::default(),
            refused: Cell::new(None),
        }
    }

    /// From now on trials of this split are asked, after so many others.
    pub fn enter(&self, split: &Split, trials_before: usize) {
        *self.at.borrow_mut() = (split.name.clone(), trials_before);
    }

    /// The record of the next request.
    pub fn next_record(&self, number: usize) {
        self.records.borrow_mut().push_back(number);
    }

    /// Ends the file of requests; how many it holds.
    pub fn close(self) -> Result<usize> {
        match self.file.into_inner() {
            Direction::Out { file, written } => file.finish().map(|()| written),
            Direction::In(_) => Ok(0),
        }
    }

    /// `train-17-trial-2-…`: split, record, trial, and the hash of everything that decides the answer.
    fn id(&self, record: usize, request: &Request, sample: usize) -> String {
        let (split, before) = &*self.at.borrow();
        let choice = choice(request, sample);
        let decides = json!([
            self.model.name(),
            self.model.tokenizer().hash(),
            request.prompt,
            choice.max_tokens,
            choice.temperature,
            choice.top_p,
            choice.seed
        ]);
        let hash = storage::hash_bytes(decides.to_string().as_bytes());
        format!("{split}-{record}-trial-{}-{}", before + sample + 1, &hash[..16])
    }

    /// What comes of a request: `None` where an answer is missing.
    fn trials(
        &self,
        index: usize,
        record: usize,
        request: &Request,
        accept: &mut Accept<'_>,
    ) -> Result<Option<Vec<Generation>>> {
        let mut generations = Vec::new();
        for sample in 0..request.samples {
            let id = self.id(record, request, sample);
            let line = match &mut *self.file.borrow_mut() {
                Direction::Out { file, written } => {
                    let Ok(line) = batch::request(&self.model, &id, &request.prompt, choice(request, sample)) else {
                        return Ok(None);
                    };
                    file.put(format!("{line}\n").as_bytes())?;
                    *written += 1;
                    continue;
                }
                Direction::In(answers) => answers.get(&id)?,
            };
            let Some((line, place)) = line else { return Ok(None) };
            let wrong = |what: &str, hint: &str| Err(Error::data(format!("{place}: {what}")).hint(hint));
            match batch::answer(&self.model, &line, request.prompt.len(), request.max_new_tokens) {
                Ok(answer) => {
                    let generation = Generation::from(answer);
                    let accepted = accept(index, sample, &generation);
                    generations.push(generation);
                    if accepted {
                        break;
                    }
                }
                Err(NoAnswer::Failed) => return Ok(None),
                Err(NoAnswer::OtherModel) => {
                    return wrong("another model answered", "construct.teacher_name is the model that was asked");
                }
                Err(NoAnswer::OtherPrompt) => {
                    return wrong(
                        "the prompt that was answered has another number of tokens than ours",
                        "vllm run-batch wants --trust-request-chat-template, construct.teacher_tokenizer its model's",
                    );
                }
            }
        }
        Ok((!generations.is_empty()).then_some(generations))
    }
}

impl Teacher for Batch {
    fn answer(
        &self,
        requests: &mut dyn Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        for (index, request) in requests.enumerate() {
            let record = self.records.borrow_mut().pop_front().unwrap_or_default();
            let speakable = self.model.tokenizer().spell(&request.prompt).is_some();
            let out = matches!(&*self.file.borrow(), Direction::Out { .. });
            let generations = match (speakable, out) {
                (false, true) => continue,
                (false, false) => {
                    self.refused.set(Some(index));
                    Some(Vec::new())
                }
                (true, _) => self.trials(index, record, &request, accept)?,
            };
            if let Some(generations) = generations {
                emit(Completed { generations, ..Completed::of(index) })?;
            }
        }
        Ok(())
    }

    fn refusal(&self, index: usize) -> Option<Failure> {
        self.refused.take().filter(|refused| *refused == index).map(|_| RequestFailure::ControlText.into())
    }
}

impl Answers {
    /// Finds the lines of a file; of two with one id the first that is an answer counts.
    fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let fail = |e: std::io::Error| storage::error("cannot read", path, &e);
        let file = foreign::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => data::unreadable(&e).context(&name),
            _ => fail(e),
        })?;
        storage::protect(path);
        let mut lines: HashMap<String, (u64, usize, usize)> = HashMap::new();
        let mut reader = BufReader::new(&file);
        let mut start = 0u64;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(fail)?;
            if length == 0 {
                break;
            }
            if !line.trim_ascii().is_empty() {
                let value: Value = serde_json::from_slice(&line).unwrap_or_default();
                let id = value["custom_id"].as_str().filter(|_| value.get("response").is_some()).ok_or_else(|| {
                    Error::data(format!("{name}, line {number}: no line of batch answers (custom_id, response)"))
                        .hint("--batch-in takes what vllm run-batch wrote")
                })?;
                if !batch::failed(&value) {
                    lines.entry(id.to_owned()).or_insert((start, length, number));
                }
            }
            start += length as u64;
        }
        Ok(Self { file, name, lines })
    }

    /// The line of an id, and what an error calls it.
    fn get(&mut self, id: &str) -> Result<Option<(Value, String)>> {
        let Some(&(start, length, number)) = self.lines.get(id) else { return Ok(None) };
        let mut line = vec![0; length];
        let fail = |e: std::io::Error| storage::error("cannot read", Path::new(&self.name), &e);
        self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut line)).map_err(fail)?;
        Ok(Some((serde_json::from_slice(&line).unwrap_or_default(), format!("{}, line {number}", self.name))))
    }
}
