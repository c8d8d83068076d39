//! What comes of a record whose every attempt fails: by the server's trouble it stays open, by its own it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;

use super::{
    RECORDS, Work, common,
    fake::{Fake, Reply},
    number, with_good_run, wrong,
};

/// The lines of a run's `train.jsonl` by id.
fn kept(work: &Work, run: &str) -> BTreeMap<String, Value> {
    let lines = work.lines(run, "train.jsonl").into_iter();
    lines.map(|line| (line["id"].as_str().unwrap().to_owned(), line)).collect()
}

#[test]
fn what_goes_wrong_each_time_stays_open_or_is_dropped_with_its_reason() {
    // Busy, failed, cut off, without a choice, too late: the server's. Too long, another count of tokens: the record's.
    const SERVERS: [usize; 5] = [0, 1, 3, 6, 11];
    const OWN: [(usize, &str); 2] = [(2, "server_refused"), (7, "no_answer")];
    let (work, mind) = with_good_run();
    let prompts: Arc<Mutex<Vec<String>>> = Arc::default();
    let well = Arc::new(AtomicBool::new(false));
    let state = (prompts.clone(), well.clone());
    let fake = Fake::start(move |question| {
        let right = mind.answer(question);
        let (prompts, well) = &state;
        if question.is_probe() || question.body.is_null() {
            return right;
        }
        match number(prompts, question) {
            2 => Reply::Status(413, "", format!("{} is too long", question.body["prompt"])),
            7 => wrong(7, right),
            number if SERVERS.contains(&number) && !well.load(Ordering::SeqCst) => wrong(number, right),
            _ => right,
        }
    });
    // One after another, so that the first prompts are the first records'.
    let construct = |run: &str, more: &[&str]| {
        let mut command = work.command(run, &fake.url);
        command.args(more);
        let quick = ["--set", "remote.timeout_s=2", "--set", "remote.retries=1", "--set", "remote.concurrency=1"];
        common::outcome(command.args(quick))
    };
    let outcome = construct("bad", &[]);
    let told = ["5 records are open for the server's reasons", &fake.url, "hint: what is answered is kept"];
    common::assert_fails(&outcome, 1, &told);
    assert!(!work.path("bad/construct/train.jsonl").exists());
    // The settings, and each of the others.
    let logged = common::lines(&work.path("bad/construct/train.progress.jsonl"));
    assert_eq!(logged, 1 + RECORDS as usize - SERVERS.len());

    // What a server fails on for good must not keep a split open for ever.
    let outcome = construct("dropped", &["--set", "remote.drop_failed=true"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let reasons: BTreeSet<String> = work
        .lines("dropped", "dropped.jsonl")
        .iter()
        .filter_map(|line| line["trials"].as_array().unwrap().last().unwrap().as_str().map(str::to_owned))
        .collect();
    for reason in ["server_busy", "server_failed", "server_refused", "timed_out", "no_answer"] {
        assert!(reasons.contains(reason), "{reason} of {reasons:?}");
    }

    well.store(true, Ordering::SeqCst);
    fake.forget();
    let outcome = construct("bad", &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let asked: BTreeSet<usize> = fake.questions().iter().map(|question| number(&prompts, question)).collect();
    assert_eq!(asked, BTreeSet::from(SERVERS), "what is open is asked again, nothing else");
    let dropped = work.lines("bad", "dropped.jsonl");
    for (record, reason) in OWN {
        let id = format!("note-{record:06}");
        let line = dropped.iter().find(|line| line["id"] == *id).unwrap();
        assert_eq!(line["trials"].as_array().unwrap().last().unwrap(), reason);
    }
    // Of the others nothing changed.
    let mut good = kept(&work, "good");
    good.retain(|id, _| OWN.iter().all(|(record, _)| *id != format!("note-{record:06}")));
    assert_eq!(kept(&work, "bad"), good);
}

#[test]
fn an_outage_from_the_first_record_to_the_last_finishes_nothing() {
    let (work, mind) = with_good_run();
    let well = Arc::new(AtomicBool::new(false));
    let state = well.clone();
    let fake = Fake::start(move |question| {
        if question.is_probe() || question.body.is_null() || state.load(Ordering::SeqCst) {
            return mind.answer(question);
        }
        Reply::Status(503, "", String::new())
    });
    let construct = || common::outcome(work.command("bad", &fake.url).args(["--set", "remote.retries=0"]));
    let told = ["12 records are open for the server's reasons", "HTTP 503", "asks only those again"];
    common::assert_fails(&construct(), 1, &told);
    assert!(!work.path("bad/construct/train.jsonl").exists());
    assert_eq!(common::lines(&work.path("bad/construct/train.progress.jsonl")), 1, "its settings");
    well.store(true, Ordering::SeqCst);
    let outcome = construct();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(work.outputs("bad"), work.outputs("good"));
}

#[test]
fn so_many_failures_in_a_row_end_the_run_at_once() {
    let work = Work::new();
    common::write_demo(&work.path(""), &["train"], 40, 0.4);
    let mind = work.mind();
    let fake = Fake::start(move |question| {
        let free = question.is_probe() || question.body.is_null();
        if free { mind.answer(question) } else { Reply::Status(503, "", String::new()) }
    });
    let mut command = work.command("run", &fake.url);
    command.args(["--set", "remote.retries=0", "--set", "remote.concurrency=1"]);
    common::assert_fails(&common::outcome(&mut command), 1, &["32 records in a row got no answer", "kept open"]);
    assert_eq!(fake.questions().len(), 32);
}

#[test]
fn a_server_without_tls_is_not_told_as_one_with_a_bad_certificate() {
    let work = Work::new();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v1", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let mut stream = stream.unwrap();
            // All of the hello is read: the kernel drops the reply of one who closes with something unread.
            let mut head = [0; 5];
            stream.read_exact(&mut head).unwrap();
            let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
            _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let outcome = work.construct("run", &url);
    common::assert_fails(&outcome, 1, &["does not speak TLS there", "hint: give http:// instead of https://"]);
    assert!(!outcome.stderr.contains("certificate"), "{}", outcome.stderr);
}
