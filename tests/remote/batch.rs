//! `construct --batch-out` and `--batch-in`: a teacher that is asked by files, without any network.

use std::collections::BTreeSet;

use clsgen::{prompt::TextTokenizer, rng};
use serde_json::{Value, json};

use super::{RECORDS, Work, common};

impl Work {
    /// `clsgen construct` by files, with neither an address nor the network.
    fn batch(&self, run: &str, more: &[&str]) -> common::Outcome {
        let mut command = common::clsgen();
        command.arg("construct").arg("--config").arg(self.path("demo.toml")).arg("--run").arg(self.path(run));
        for set in ["construct.teacher=", "construct.teacher_name=tiny", "construct.trials=3"] {
            command.args(["--set", set]);
        }
        common::outcome(command.current_dir(self.path("")).args(more))
    }

    fn requests(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn write(&self, name: &str, answers: &[Value]) {
        std::fs::write(self.path(name), answers.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

/// What `vllm run-batch` would write.
fn answer(tokenizer: &TextTokenizer, request: &Value) -> Value {
    let body = &request["body"];
    let prompt = body["messages"][0]["content"].as_str().unwrap();
    let tokens = tokenizer.read(prompt).unwrap().len();
    let hash = rng::hash_name(&format!("{prompt}{}", body["seed"]));
    let label = super::LABELS[(hash % 2) as usize];
    let text = format!("Reason {hash} is what the findings come to.\n\nClassification: {label}\n\n");
    json!({"id": "vllm-1", "custom_id": request["custom_id"], "error": null, "response": {
        "status_code": 200, "request_id": "vllm-batch-1", "body": {
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 20}}}})
}

#[test]
fn what_goes_out_comes_in_whenever_it_does() {
    let work = Work::new();
    super::ways::plant(&work);
    let tokenizer = TextTokenizer::load(&work.path("model")).unwrap();
    let outcome = work.batch("run", &["--batch-out", "out.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let requests = work.requests("out.jsonl");
    // The record that quotes a control token has no text that is its prompt.
    assert_eq!(requests.len() as u64, 3 * (RECORDS - 1));
    let ids: BTreeSet<&str> = requests.iter().map(|request| request["custom_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), requests.len());
    assert!(ids.iter().any(|id| id.starts_with("train-3-trial-2-")), "{ids:?}");
    for request in &requests {
        assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!("/v1/chat/completions")));
        let body = &request["body"];
        assert_eq!((&body["model"], &body["add_generation_prompt"]), (&json!("tiny"), &json!(false)));
        assert!(body["chat_template"].as_str().unwrap().contains("messages[0]['content']"));
        assert!(body["messages"][0]["content"].as_str().unwrap().starts_with("<|im_start|>"));
    }
    // Nobody's file is written over.
    common::assert_fails(&work.batch("run", &["--batch-out", "out.jsonl"]), 2, &["is there already"]);

    let answers: Vec<Value> = requests.iter().rev().map(|request| answer(&tokenizer, request)).collect();
    work.write("all.jsonl", &answers);
    assert_eq!(work.batch("whole", &["--batch-in", "all.jsonl"]).code, Some(0));
    // Some are missing, some failed: their records stay open.
    let of = |line: &Value, record: usize| line["custom_id"].as_str().unwrap().starts_with(&format!("train-{record}-"));
    let mut some: Vec<Value> = answers.iter().filter(|line| !of(line, 5)).cloned().collect();
    for line in some.iter_mut().filter(|line| of(line, 7)) {
        line["response"] = json!({"status_code": 400, "request_id": "vllm-batch-1", "body": null});
        line["error"] = json!("Name: SECRET");
    }
    work.write("some.jsonl", &some);
    let outcome = work.batch("run", &["--batch-in", "some.jsonl"]);
    common::assert_fails(&outcome, 1, &["2 of 12 records of train are open", "--batch-out"]);
    assert!(!outcome.stderr.contains("SECRET") && !work.path("run/construct/train.jsonl").exists());
    // Only what is open goes out again.
    assert_eq!(work.batch("run", &["--batch-out", "rest.jsonl"]).code, Some(0));
    let rest = work.requests("rest.jsonl");
    assert!(rest.len() == 6 && rest.iter().all(|line| of(line, 5) || of(line, 7)), "{}", rest.len());
    // A first line that says that it failed, by its status alone, does not hide the answer behind it.
    let failed = |request: &Value| {
        let response = json!({"status_code": 500, "request_id": "vllm-batch-1", "body": null});
        json!({"custom_id": request["custom_id"], "error": null, "response": response})
    };
    let answered = rest.iter().flat_map(|request| [failed(request), answer(&tokenizer, request)]);
    work.write("more.jsonl", &answered.collect::<Vec<_>>());
    let outcome = work.batch("run", &["--batch-in", "more.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(work.outputs("run"), work.outputs("whole"), "the same answers, the same files");
    assert_eq!(
        super::ways::dropped(&work, "run"),
        [("note-000001".to_owned(), "control_text".to_owned())],
        "what cannot be asked is dropped by name"
    );
    let record: Value = serde_json::from_slice(&std::fs::read(work.path("run/run.json")).unwrap()).unwrap();
    assert_eq!(record["config"]["construct"]["teacher_name"], "tiny");
}

#[test]
fn answers_of_others_are_refused() {
    let work = Work::new();
    let tokenizer = TextTokenizer::load(&work.path("model")).unwrap();
    assert_eq!(work.batch("run", &["--batch-out", "out.jsonl"]).code, Some(0));
    common::assert_fails(&work.batch("run", &["--batch-in", "none.jsonl"]), 3, &["none.jsonl: no such file"]);
    let right: Vec<Value> = work.requests("out.jsonl").iter().map(|request| answer(&tokenizer, request)).collect();
    let wrong = |change: &dyn Fn(&mut Value), told: &str| {
        let mut answers = right.clone();
        answers.iter_mut().for_each(change);
        work.write("wrong.jsonl", &answers);
        let outcome = work.batch("run", &["--batch-in", "wrong.jsonl"]);
        common::assert_fails(&outcome, 3, &["wrong.jsonl, line ", told]);
        assert!(!work.path("run/construct/train.jsonl").exists());
    };
    wrong(&|line| line["response"]["body"]["model"] = json!("huge"), "another model");
    wrong(&|line| line["response"]["body"]["usage"]["prompt_tokens"] = json!(9), "--trust-request-chat-template");
    wrong(&|line| drop(line.as_object_mut().unwrap().remove("response")), "no line of batch answers");
    // Answers to other questions answer none of these: another temperature, another seed.
    work.write("right.jsonl", &right);
    for set in ["construct.temperature=0.7", "train.seed=7", "construct.max_output_tokens=150"] {
        let outcome = work.batch(set, &["--batch-in", "right.jsonl", "--set", set]);
        common::assert_fails(&outcome, 1, &["12 of 12 records of train are open"]);
    }
    assert_eq!(work.batch("run", &["--batch-in", "right.jsonl"]).code, Some(0));
    // A teacher whose files are here is asked without any.
    let mut here = common::clsgen();
    here.arg("construct").arg("--config").arg(work.path("demo.toml")).args(["--batch-out", "x.jsonl"]);
    common::assert_fails(&common::outcome(here.current_dir(work.path(""))), 2, &["construct.teacher_name"]);
}
