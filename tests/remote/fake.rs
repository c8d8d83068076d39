//! An OpenAI-compatible server that answers as a test tells it to, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clsgen::prompt::TextTokenizer;
use serde_json::{Value, json};

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// `/v1/completions`
    pub path: String,
    /// The header, as sent.
    pub authorization: Option<String>,
    /// Null without one.
    pub body: Value,
    /// How often these very bytes were asked before.
    pub before: usize,
}

impl Question {
    /// Whether a prompt is tried with one token to come.
    pub fn is_probe(&self) -> bool {
        self.body["max_tokens"] == 1 && self.body["echo"].is_null()
    }
}

/// What it does.
pub enum Reply {
    /// HTTP 200.
    Json(Value),
    /// Another status, with further header lines and a body.
    Status(u16, &'static str, String),
    /// These bytes, whatever they are, as the whole reply.
    Raw(Vec<u8>),
    /// The connection ends after the promise of a body.
    Cut,
    /// A body without end.
    Endless,
    /// Nothing, for so long.
    Silence(Duration),
}

/// A running server; its threads end with the test's process.
pub struct Fake {
    /// `http://127.0.0.1:PORT/v1`
    pub url: String,
    asked: Arc<Mutex<Vec<Question>>>,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Starts one.
    pub fn start(answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Question>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let state = (asked.clone(), connections.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, connections, answer) = state.clone();
                connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || _ = serve(&stream.unwrap(), &asked, &*answer));
            }
        });
        Self { url, asked, connections }
    }

    /// Everything it was asked so far, but for probes and `/models`.
    pub fn questions(&self) -> Vec<Question> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|question| !question.is_probe() && !question.body.is_null()).cloned().collect()
    }

    /// Forgets.
    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// How often anybody connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: &TcpStream,
    asked: &Mutex<Vec<Question>>,
    answer: &(dyn Fn(&Question) -> Reply + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    let mut authorization = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let question = {
        let mut asked = asked.lock().unwrap();
        let before = asked.iter().filter(|other| other.body == body && other.path == path).count();
        let question = Question { path, authorization, body, before };
        asked.push(question.clone());
        question
    };
    let head = |status: u16, more: &str, length: usize| {
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n")
    };
    match answer(&question) {
        Reply::Json(value) => {
            let body = value.to_string();
            stream.write_all(format!("{}{body}", head(200, "", body.len())).as_bytes())
        }
        Reply::Status(status, more, body) => {
            stream.write_all(format!("{}{body}", head(status, more, body.len())).as_bytes())
        }
        Reply::Raw(bytes) => stream.write_all(&bytes),
        Reply::Cut => stream.write_all(format!("{}{{\"choices\": [", head(200, "", 4000)).as_bytes()),
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{\"choices\": [")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
        Reply::Silence(time) => {
            std::thread::sleep(time);
            Ok(())
        }
    }
}

/// A model that is good at being a test's: what it answers is a function of prompt and seed.
pub struct Mind {
    tokenizer: TextTokenizer,
    labels: Vec<String>,
    takes_ids: bool,
    takes_text: bool,
    /// So many tokens away lies the one whose log-probability it gives.
    neighbours: usize,
}

impl Mind {
    pub fn new(tokenizer: &std::path::Path, labels: &[&str]) -> Self {
        let labels = labels.iter().map(ToString::to_string).collect();
        Self {
            tokenizer: TextTokenizer::load(tokenizer).unwrap(),
            labels,
            takes_ids: true,
            takes_text: true,
            neighbours: 0,
        }
    }

    /// One that takes text alone.
    pub fn of_text(self) -> Self {
        Self { takes_ids: false, ..self }
    }

    /// One that takes messages alone.
    pub fn of_messages(self) -> Self {
        Self { takes_ids: false, takes_text: false, ..self }
    }

    pub fn answer(&self, question: &Question) -> Reply {
        let refused = || Reply::Status(400, "", format!("you said: {}", question.body));
        let body = &question.body;
        if question.path == "/v1/models" {
            return Reply::Json(json!({"object": "list", "data": [{"id": "tiny", "max_model_len": 100_000}]}));
        }
        let ids = match (question.path.as_str(), &body["prompt"]) {
            ("/v1/completions", Value::Array(ids)) if self.takes_ids => {
                ids.iter().map(|id| id.as_u64().unwrap() as u32).collect()
            }
            ("/v1/completions", Value::String(text)) if self.takes_text => self.tokenizer.read(text).unwrap(),
            ("/v1/chat/completions", Value::Null) => vec![0; 7],
            _ => return refused(),
        };
        let tokens = ids.len();
        let hash = clsgen::rng::hash_name(&format!("{}{}{}", body["prompt"], body["messages"], body["seed"]));
        let x = self.tokenizer.read("x").unwrap();
        let read = [ids, x].concat();
        if body["echo"] == true {
            let numbers = (0..read.len())
                .map(|i| if i == 0 { Value::Null } else { log_probability(&read[..=i - self.neighbours]) });
            let numbers: Vec<Value> = numbers.collect();
            return Reply::Json(json!({
                "choices": [{"text": "", "finish_reason": "length", "logprobs": {"token_logprobs": numbers}}],
                "usage": {"prompt_tokens": tokens, "completion_tokens": 1}}));
        }
        let label = &self.labels[(hash % self.labels.len() as u64) as usize];
        let text = format!("Reason {hash} is what the findings come to.\n\nClassification: {label}\n\n");
        let (text, finish, written) =
            if body["max_tokens"] == 1 { ("x".into(), "length", 1) } else { (text, "stop", 20) };
        let mut choice = json!({"index": 0, "text": text, "finish_reason": finish});
        if body["logprobs"].is_number() {
            choice["logprobs"] = json!({"token_logprobs": [log_probability(&read)]});
        }
        if body["prompt"].is_null() {
            choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish});
        }
        Reply::Json(json!({"choices": [choice], "usage": {"prompt_tokens": tokens, "completion_tokens": written}}))
    }

    /// One that gives each token the log-probability of the token before.
    pub fn off_by_one(self) -> Self {
        Self { neighbours: 1, ..self }
    }
}

/// How likely the last of these is after the others.
fn log_probability(ids: &[u32]) -> Value {
    json!(-((clsgen::rng::hash_name(&format!("{ids:?}")) % 970) as f64) / 100.0)
}
