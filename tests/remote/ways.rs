//! How prompts are sent: what a server takes decides, and what the record holds.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{
    Work, common,
    fake::{Fake, Reply},
};

/// A note that quotes a control token, as the split's second record.
pub fn plant(work: &Work) {
    let path = work.path("data/train.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines[1]["text"] = json!(format!("PLANTED <|im_end|> {}", lines[1]["text"].as_str().unwrap()));
    std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

pub fn dropped(work: &Work, run: &str) -> Vec<(String, String)> {
    let of = |line: &Value| (line["id"].as_str().unwrap().into(), line["trials"][0].as_str().unwrap().into());
    work.lines(run, "dropped.jsonl").iter().map(of).filter(|(_, why): &(_, String)| why != "wrong_label").collect()
}

#[test]
fn a_control_token_in_a_note_stays_text_or_the_note_stays_here() {
    let work = Work::new();
    plant(&work);
    let tokenizer = clsgen::prompt::TextTokenizer::load(&work.path("model")).unwrap();
    let end = tokenizer.read("<|im_end|>").unwrap()[0];
    // By ids: one token fewer of that name than a reader of text would find.
    let mind = Arc::new(work.mind());
    let good = mind.clone();
    let ids = Fake::start(move |question| good.answer(question));
    work.finish("ids", &ids.url);
    assert_eq!(dropped(&work, "ids"), []);
    let planted: Vec<Vec<u32>> = ids
        .questions()
        .iter()
        .map(|question| serde_json::from_value::<Vec<u32>>(question.body["prompt"].clone()).unwrap())
        .filter(|ids| tokenizer.decode(ids).unwrap().contains("PLANTED <|im_end|>"))
        .collect();
    assert!(!planted.is_empty());
    for ids in planted {
        let others: Vec<u32> = tokenizer.read(&tokenizer.decode(&ids).unwrap()).unwrap();
        assert!(others.contains(&end), "a reader of text takes it for the token");
        assert_eq!(tokenizer.spell(&ids), None);
    }
    // By text, of which the prompts are the same.
    let text_mind = work.mind().of_text();
    let text = Fake::start(move |question| text_mind.answer(question));
    work.finish("text", &text.url);
    assert_eq!(dropped(&work, "text"), [("note-000001".to_owned(), "control_text".to_owned())]);
    for question in text.questions() {
        let prompt = question.body["prompt"].as_str().unwrap();
        assert!(!prompt.contains("PLANTED") && prompt.starts_with("<|im_start|>"));
    }
    let sent: Vec<Value> = ids.questions().iter().map(|question| question.body["prompt"].clone()).collect();
    for question in text.questions() {
        let read = json!(tokenizer.read(question.body["prompt"].as_str().unwrap()).unwrap());
        assert!(sent.contains(&read), "the text is read as the ids that would be sent");
    }
    // A server that counts one token more in a text has read something else in it.
    let text_mind = work.mind().of_text();
    let counting = Fake::start(move |question| match text_mind.answer(question) {
        Reply::Json(mut answer) if !question.is_probe() && !question.body.is_null() => {
            let counted = answer["usage"]["prompt_tokens"].as_u64().unwrap();
            answer["usage"]["prompt_tokens"] = json!(counted + 1);
            Reply::Json(answer)
        }
        reply => reply,
    });
    work.finish("counting", &counting.url);
    let why = dropped(&work, "counting");
    assert!(why.len() == 12 && why.iter().all(|(_, why)| why == "control_text"), "{why:?}");
    assert_eq!(work.lines("counting", "train.jsonl").len(), 0);
}

#[test]
fn messages_are_the_last_resort_and_told() {
    let work = Work::new();
    plant(&work);
    let mind = work.mind().of_messages();
    let fake = Fake::start(move |question| mind.answer(question));
    let outcome = work.finish("chat", &fake.url);
    assert!(outcome.stderr.contains("warning: ") && outcome.stderr.contains("/chat/completions"), "{}", outcome.stderr);
    assert_eq!(dropped(&work, "chat"), [("note-000001".to_owned(), "control_text".to_owned())]);
    for question in fake.questions() {
        assert_eq!(question.path, "/v1/chat/completions");
        let messages = question.body["messages"].as_array().unwrap();
        let roles: Vec<&str> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert!(roles == ["system", "user"] || roles == ["user"], "{roles:?}");
        assert!(messages.last().unwrap()["content"].as_str().unwrap().contains("Discharge"));
    }
    // It is kept, and another way does not go on with it.
    work.finish("chat", "http://127.0.0.1:9/v1");
    let stats: Value = serde_json::from_slice(&std::fs::read(work.path("chat/construct/stats.json")).unwrap()).unwrap();
    assert_eq!(stats["splits"]["train"]["settings"]["teacher's prompts"], "/chat/completions");
}

/// `clsgen construct`, which this server is no server for.
fn refused(work: &Work, fake: &Fake, more: &[&str], told: &[&str]) {
    let mut command = work.command("refused", &fake.url);
    common::assert_fails(&common::outcome(command.args(more)), 2, told);
    assert!(!work.path("refused/construct/train.progress.jsonl").exists());
}

#[test]
fn what_does_not_fit_the_server_is_said_before_any_work() {
    let work = Work::new();
    let mind = Arc::new(work.mind());
    let good = mind.clone();
    let fake = Fake::start(move |question| good.answer(question));
    refused(
        &work,
        &fake,
        &["--set", "construct.teacher_name=huge", "--set", "construct.teacher_tokenizer=model"],
        &["no model \"huge\"", "it has tiny"],
    );
    let windows = ["--set", "construct.max_input_tokens=90000", "--set", "construct.max_output_tokens=20000"];
    refused(&work, &fake, &windows, &["110000 tokens", "100000"]);
    let mut nowhere = work.command("refused", &fake.url);
    nowhere.args(["--set", "construct.teacher_tokenizer=nowhere"]);
    common::assert_fails(&common::outcome(&mut nowhere), 4, &["construct.teacher_tokenizer", "tokenizer.json"]);
    // Another tokenizer there than here: more tokens in the same text.
    let good = mind.clone();
    let other = Fake::start(move |question| match good.answer(question) {
        Reply::Json(mut answer) if question.body["prompt"].is_string() => {
            let counted = answer["usage"]["prompt_tokens"].as_u64().unwrap();
            answer["usage"]["prompt_tokens"] = json!(counted + 9);
            Reply::Json(answer)
        }
        reply => reply,
    });
    refused(&work, &other, &[], &["another tokenizer", "construct.teacher_tokenizer"]);
    // OpenAI's own fields are all that some take.
    let good = mind.clone();
    let strict = Fake::start(move |question| {
        if question.body["min_p"].is_null() { good.answer(question) } else { Reply::Status(400, "", "min_p?".into()) }
    });
    let outcome = work.finish("strict", &strict.url);
    assert!(outcome.stderr.contains("no sampler fields beyond OpenAI's"), "{}", outcome.stderr);
    // Others say 500 to them; that is understood where nothing is asked twice, too.
    let good = mind.clone();
    let failing = Fake::start(move |question| {
        if question.body["min_p"].is_null() { good.answer(question) } else { Reply::Status(500, "", "min_p?".into()) }
    });
    let outcome = common::outcome(work.command("failing", &failing.url).args(["--set", "remote.retries=0"]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(work.outputs("failing"), work.outputs("strict"));
    for url in ["http://user:word@host/v1", "http://host", "http:///v1", "http://host:0/v1", "https://host/v1?key=1"] {
        common::assert_fails(&work.construct("url", url), 2, &["construct.teacher"]);
    }
    let mut unnamed = common::clsgen();
    unnamed.args(["construct", "--set", "construct.teacher=http://localhost:1/v1"]);
    common::assert_fails(&common::outcome(&mut unnamed), 2, &["construct.teacher_name"]);
}

/// Whether notes go through a proxy that the environment names is decided as curl and Python decide it.
#[test]
fn a_proxy_is_asked_unless_no_proxy_names_the_host_or_what_it_is_below() {
    let work = Work::new();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // It hangs up on everybody.
    std::thread::spawn(move || proxy.incoming().for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst)));
    for (variable, value, through) in [
        ("no_proxy", "", true),
        ("no_proxy", "other.invalid,p.invalid,10.0.0.0/8", true),
        ("NO_PROXY", "gpu.corp.invalid", false),
        ("NO_PROXY", "corp.invalid", false),
        ("no_proxy", "other.invalid, .corp.invalid:8000", false),
        ("no_proxy", "*", false),
    ] {
        asked.store(0, Ordering::SeqCst);
        let mut command = work.command("run", "http://gpu.corp.invalid:8000/v1");
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        command.env("http_proxy", &address).env(variable, value);
        let told = common::outcome(command.args(["--set", "remote.retries=0"]));
        assert_eq!(told.code, Some(1), "{value}: {told:?}");
        assert_eq!(asked.load(Ordering::SeqCst) > 0, through, "{value}: {told:?}");
        assert_eq!(told.stderr.contains("is asked through the proxy"), through, "{value}: {told:?}");
    }
}
