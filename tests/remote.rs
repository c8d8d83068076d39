//! A teacher, a judge and baselines on a server: one that answers well, one that does not, and none at all.

#[path = "remote/batch.rs"]
mod batch;
mod common;
#[path = "remote/evaluated.rs"]
mod evaluated;
#[path = "remote/fake.rs"]
mod fake;
#[path = "remote/outage.rs"]
mod outage;
#[path = "remote/real.rs"]
mod real;
#[path = "remote/ways.rs"]
mod ways;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Scratch, in_scratch};
use fake::{Fake, Mind, Question, Reply};
use serde_json::{Value, json};

const RECORDS: u64 = 12;
const LABELS: [&str; 2] = ["0:alive", "1:death"];
const KEY: &str = "sk-hush-5417";

/// A scratch directory with the embedded model's tokenizer, notes and a config.
struct Work(Scratch);

in_scratch!(Work);

impl Work {
    fn new() -> Self {
        let work = Self(Scratch::new());
        common::write_demo(&work.path(""), &["train"], RECORDS, 0.4);
        work
    }

    fn mind(&self) -> Mind {
        Mind::new(&self.path("model"), &LABELS)
    }

    /// `clsgen construct` into `run` by the teacher at `url`: three trials a record.
    fn command(&self, run: &str, url: &str) -> Command {
        let mut command = common::clsgen();
        command.arg("construct").arg("--config").arg(self.path("demo.toml")).arg("--run").arg(self.path(run));
        let teacher = format!("construct.teacher={url}");
        for set in [&teacher, "construct.teacher_name=tiny", "construct.trials=3", "remote.retries=2"] {
            command.args(["--set", set]);
        }
        command.env("OPENAI_API_KEY", KEY).args(["--allow-network"]);
        command
    }

    fn construct(&self, run: &str, url: &str) -> common::Outcome {
        let outcome = common::outcome(&mut self.command(run, url));
        assert!(!outcome.stderr.contains(KEY) && !outcome.stderr.contains("Name:"), "{}", outcome.stderr);
        outcome
    }

    fn finish(&self, run: &str, url: &str) -> common::Outcome {
        let outcome = self.construct(run, url);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome
    }

    fn outputs(&self, run: &str) -> [Vec<u8>; 3] {
        ["train.jsonl", "dropped.jsonl", "stats.json"]
            .map(|name| std::fs::read(self.path(run).join("construct").join(name)).unwrap())
    }

    fn lines(&self, run: &str, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(run).join("construct").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Everything below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn without_the_flag_no_socket_is_opened() {
    let work = Work::new();
    let mind = work.mind();
    let fake = Fake::start(move |question| mind.answer(question));
    // Baselines need a run: remote/evaluated.rs has one.
    for (command, key) in [("construct", "construct.teacher"), ("eval", "eval.judge")] {
        let mut asked = common::clsgen();
        asked.arg(command).arg("--config").arg(work.path("demo.toml")).arg("--run").arg(work.path("run"));
        asked.args(["--set", &format!("{key}={}", fake.url), "--set", &format!("{key}_name=tiny")]);
        if command == "eval" {
            let predictions =
                "{\"id\":\"a\",\"label\":1,\"probability\":0.5}\n{\"id\":\"b\",\"label\":0,\"probability\":0.5}\n";
            std::fs::write(work.path("p.jsonl"), predictions).unwrap();
            asked.arg("--predictions").arg(work.path("p.jsonl"));
        }
        common::assert_fails(&common::outcome(&mut asked), 2, &[key, "--allow-network"]);
        // The kernel's own word, where it can be had.
        let trace = work.path("trace");
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=socket,connect", "-o"]).arg(&trace).arg(asked.get_program());
        traced.args(asked.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
        match traced.status() {
            Ok(status) => {
                assert_eq!(status.code(), Some(2));
                let trace = std::fs::read_to_string(trace).unwrap();
                assert!(!trace.contains("socket(") && !trace.contains("connect("), "{trace}");
            }
            Err(_) => common::skip("strace is not here"),
        }
    }
    assert_eq!(fake.connections(), 0);
    assert!(!work.path("run/construct").exists());
}

#[test]
fn a_teacher_is_asked_by_token_ids_until_a_trial_is_right() {
    let work = Work::new();
    let mind = work.mind();
    let fake = Fake::start(move |question| mind.answer(question));
    let outcome = work.finish("run", &fake.url);
    assert!(outcome.stderr.contains("teacher_tokenizer is not set"), "{}", outcome.stderr);

    let questions = fake.questions();
    let kept = work.lines("run", "train.jsonl");
    let dropped = work.lines("run", "dropped.jsonl");
    assert_eq!(kept.len() + dropped.len(), RECORDS as usize);
    let trials: u64 = kept.iter().map(|line| line["trial"].as_u64().unwrap()).sum::<u64>() + 3 * dropped.len() as u64;
    assert_eq!(questions.len() as u64, trials, "no trial after the first that is right");
    assert!(kept.iter().any(|line| line["trial"] != 1), "some first trials are wrong");
    assert!(dropped.iter().all(|line| line["trials"] == json!(vec!["wrong_label"; 3])), "{dropped:?}");

    let tokenizer = clsgen::prompt::TextTokenizer::load(&work.path("model")).unwrap();
    for question in &questions {
        let body = &question.body;
        assert_eq!(question.authorization.as_deref(), Some(&*format!("Bearer {KEY}")));
        let ids: Vec<u32> = serde_json::from_value(body["prompt"].clone()).unwrap();
        assert!(ids.len() > 100 && tokenizer.decode(&ids).unwrap().contains("Discharge"));
        for (field, neutral) in [
            ("top_k", json!(tokenizer.vocab_size())),
            ("min_p", json!(0.0)),
            ("repetition_penalty", json!(1.0)),
            ("repeat_penalty", json!(1.0)),
            ("presence_penalty", json!(0.0)),
            ("frequency_penalty", json!(0.0)),
            ("temperature", json!(0.6)),
            ("top_p", json!(0.95)),
            ("max_tokens", json!(160)),
            ("model", json!("tiny")),
        ] {
            assert_eq!(body[field], neutral, "{field}");
        }
        assert!(body["stop"].as_array().unwrap().contains(&json!("<|im_end|>")), "{}", body["stop"]);
    }
    let seeds: std::collections::BTreeSet<String> =
        questions.iter().map(|question| format!("{}{}", question.body["seed"], question.body["prompt"])).collect();
    assert_eq!(seeds.len(), questions.len(), "each trial has a seed of its own");

    // The key is nowhere; the address and the name are in run.json.
    for file in files(&work.path("run")) {
        assert!(!String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains(KEY), "{}", file.display());
    }
    let record: Value = serde_json::from_slice(&std::fs::read(work.path("run/run.json")).unwrap()).unwrap();
    let construct = &record["config"]["construct"];
    assert_eq!((&construct["teacher"], &construct["teacher_name"]), (&json!(fake.url), &json!("tiny")));

    // Finished, it asks nothing; the same model at another address is the same.
    let connections = fake.connections();
    work.finish("run", "http://127.0.0.1:9/v1");
    assert_eq!(fake.connections(), connections);
    // Another name is not.
    let mut other = work.command("run", &fake.url);
    other.args(["--set", "construct.teacher_name=huge", "--set", "construct.teacher_tokenizer=model"]);
    common::assert_fails(&common::outcome(&mut other), 2, &["construct.teacher"]);
}

/// A prompt's number among all, whatever its trial.
fn number(prompts: &std::sync::Mutex<Vec<String>>, question: &Question) -> usize {
    let mut prompts = prompts.lock().unwrap();
    let prompt = question.body["prompt"].to_string();
    let known = prompts.iter().position(|known| *known == prompt);
    known.unwrap_or_else(|| {
        prompts.push(prompt);
        prompts.len() - 1
    })
}

/// What a server can do wrong.
fn wrong(kind: usize, right: Reply) -> Reply {
    let Reply::Json(mut right) = right else { panic!("a right answer") };
    match kind {
        0 => Reply::Status(429, "Retry-After: 0\r\n", "busy".into()),
        1 => Reply::Status(500, "", "Traceback: Name: SECRET".into()),
        2 => Reply::Status(503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", String::new()),
        3 => Reply::Cut,
        4 => Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html".to_vec()),
        5 => Reply::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        6 => Reply::Json(json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})),
        7 => {
            right["usage"]["prompt_tokens"] = json!(3);
            Reply::Json(right)
        }
        8 => {
            right["choices"][0]["finish_reason"] = json!("content_filter");
            Reply::Json(right)
        }
        9 => {
            right["usage"]["completion_tokens"] = json!(100_000);
            Reply::Json(right)
        }
        10 => Reply::Endless,
        _ => Reply::Silence(Duration::from_secs(30)),
    }
}

/// What a server without a fault gives, in the run `good`, and what it answers.
fn with_good_run() -> (Work, Arc<Mind>) {
    let work = Work::new();
    let mind = Arc::new(work.mind());
    let good = mind.clone();
    let fake = Fake::start(move |question| good.answer(question));
    work.finish("good", &fake.url);
    (work, mind)
}

#[test]
fn whatever_goes_wrong_once_changes_no_byte() {
    let (work, mind) = with_good_run();
    let prompts = std::sync::Mutex::new(Vec::new());
    let fake = Fake::start(move |question| {
        let right = mind.answer(question);
        if question.is_probe() || question.body.is_null() || question.before > 0 {
            return right;
        }
        wrong(number(&prompts, question) % 12, right)
    });
    let mut command = work.command("bad", &fake.url);
    let outcome = common::outcome(command.args(["--set", "remote.timeout_s=4"]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("SECRET"), "{}", outcome.stderr);
    assert_eq!(work.outputs("bad"), work.outputs("good"));
    assert!(fake.questions().iter().filter(|question| question.before > 0).count() >= 12);
}

#[test]
fn a_server_that_is_not_there_or_goes_away_costs_nothing() {
    let work = Work::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = work.construct("run", &format!("http://{free}/v1"));
    common::assert_fails(&outcome, 1, &["construct.teacher", "cannot be reached", "hint:"]);
    assert!(!work.path("run/construct/train.jsonl").exists());
    // One that answers five times and then fails at everything: what it failed at stays open.
    let mind = Arc::new(work.mind());
    let good = mind.clone();
    let answered = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |question| {
        let asked = question.is_probe() || question.body.is_null();
        if asked || answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 5 {
            return good.answer(question);
        }
        Reply::Status(401, "", "who are you?".into())
    });
    let outcome = work.construct("run", &fake.url);
    common::assert_fails(&outcome, 1, &["HTTP 401", "remote.key_env"]);
    let logged = common::lines(&work.path("run/construct/train.progress.jsonl"));
    assert!((2..=6).contains(&logged), "{logged}");
    let good = mind.clone();
    let fake = Fake::start(move |question| good.answer(question));
    work.finish("run", &fake.url);
    work.finish("whole", &fake.url);
    assert_eq!(work.outputs("run"), work.outputs("whole"));
    // A redirect is not followed, whereto it may lead.
    let fake = Fake::start(move |_| Reply::Status(307, "Location: http://127.0.0.1:9/v1/models\r\n", String::new()));
    common::assert_fails(&work.construct("moved", &fake.url), 1, &["HTTP 307", "redirects are not followed"]);
}

#[test]
fn a_kill_after_every_record_asks_no_logged_answer_again() {
    let work = Work::new();
    let mind = work.mind();
    let fake = Fake::start(move |question| mind.answer(question));
    work.finish("whole", &fake.url);
    let mut prompts: BTreeMap<usize, Value> = BTreeMap::new();
    let log = work.path("killed/construct/train.progress.jsonl");
    let logged = || -> Vec<usize> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines()
            .skip(1)
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].as_u64().unwrap() as usize)
            .collect()
    };
    for written in 1..=RECORDS as usize {
        let before = logged();
        fake.forget();
        let mut command = work.command("killed", &fake.url);
        let status =
            command.args(["--set", "remote.concurrency=1"]).env("CLSGEN_FAULT", "log.append:2").output().unwrap();
        assert_eq!(status.status.code(), None);
        assert_eq!(common::lines(&log), written);
        for question in fake.questions() {
            for record in &before {
                assert_ne!(prompts.get(record), Some(&question.body["prompt"]), "record {record} was logged");
            }
        }
        // With one at a time the record that is logged now is the one that was asked first.
        if let Some(new) = logged().iter().find(|record| !before.contains(record)) {
            prompts.insert(*new, fake.questions()[0].body["prompt"].clone());
        }
    }
    common::say(&format!("kill sweep: {RECORDS} points, log.append at each record of construct by a server"));
    work.finish("killed", &fake.url);
    assert_eq!(work.outputs("killed"), work.outputs("whole"));
}

#[test]
fn a_signal_ends_the_wait_for_an_answer() {
    let work = Work::new();
    let mind = work.mind();
    let fake = Fake::start(move |question| {
        if question.is_probe() || question.body.is_null() {
            mind.answer(question)
        } else {
            Reply::Silence(Duration::from_secs(600))
        }
    });
    let mut child = work.command("run", &fake.url).stderr(Stdio::piped()).spawn().unwrap();
    common::wait_until(&mut child, "a question", || !fake.questions().is_empty());
    common::send("INT", &child);
    let output = common::end_of(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}
