//! Threads that ask: as many questions at once as are under way, no more.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use super::Server;
use crate::{
    error::{Error, Result},
    signals,
};

/// A question's place among its asker's.
type Tag = (usize, usize);

/// What a thread does with the server.
type Work<T> = Box<dyn FnOnce(&Server) -> T + Send>;

/// Threads that ask one server. They end with the pool; one that waits for an answer then is left to itself, so that a
/// signal ends the process at once.
pub struct Pool<T> {
    questions: Sender<(Tag, Work<T>)>,
    answers: Receiver<(Tag, T)>,
    under_way: usize,
    size: usize,
}

impl<T: Send + 'static> Pool<T> {
    /// As many threads as `remote.concurrency` says.
    pub fn new(server: &Arc<Server>) -> Result<Self> {
        let (questions, queue) = mpsc::channel::<(Tag, Work<T>)>();
        let (done, answers) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..server.concurrency() {
            let queue = queue.clone();
            let done = done.clone();
            let server = server.clone();
            let work = move || loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((tag, work)) = next else { return };
                if done.send((tag, work(&server))).is_err() {
                    return;
                }
            };
            std::thread::Builder::new()
                .name("remote".into())
                .spawn(work)
                .map_err(|e| Error::resources(format!("cannot start a thread: {}", crate::storage::reason(&e))))?;
        }
        Ok(Self { questions, answers, under_way: 0, size: server.concurrency() })
    }

    /// Whether another question may be asked now.
    pub fn has_room(&self) -> bool {
        self.under_way < self.size
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Asks a question.
    pub fn ask(&mut self, tag: Tag, question: impl FnOnce(&Server) -> T + Send + 'static) -> Result<()> {
        self.questions
            .send((tag, Box::new(question)))
            .map_err(|_| Error::run("no thread is left to ask the server"))?;
        self.under_way += 1;
        Ok(())
    }

    /// The next answer, whichever comes first. A signal ends the wait.
    pub fn wait(&mut self) -> Result<(Tag, T)> {
        loop {
            signals::check_interrupted()?;
            match self.answers.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => {
                    self.under_way -= 1;
                    return Ok(answer);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::run("no thread is left to ask the server")),
            }
        }
    }
}
