//! `clsgen eval`, whose judge and baselines are on a server.

#[path = "../evaluation/run.rs"]
mod run;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use run::{Fixture, eval, finished_run, stderr, succeed};
use serde_json::{Value, json};

use super::fake::{Fake, Mind, Reply};

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let always = ["--set", "data.test=test.jsonl", "--set", "model.max_input_tokens=1200", "--allow-network"];
    let remote = ["--set", "remote.retries=1", "--set", "remote.concurrency=3"];
    [&always[..], &remote, more].concat()
}

fn mind(fixture: &Fixture) -> Mind {
    Mind::new(&fixture.path("base"), &["0:alive", "1:death"])
}

#[test]
fn baselines_of_a_model_on_a_server() {
    let fixture = finished_run();
    let good = Arc::new(mind(&fixture));
    let answering = good.clone();
    let fake = Fake::start(move |question| answering.answer(question));
    let url = format!("eval.baseline_model={}", fake.url);
    let prompted = "label,self_consistency,token_probability,verbalized";
    let asked = ["--baselines", prompted, "--runs", "3", "--set", &url, "--set", "eval.baseline_model_name=tiny"];
    // Not without the flag.
    let without: Vec<&str> = flags(&asked).into_iter().filter(|flag| *flag != "--allow-network").collect();
    let output = eval(&fixture, &without);
    assert_eq!((output.status.code(), fake.connections()), (Some(2), 0), "{}", stderr(&output));

    succeed(&fixture, &flags(&asked));
    let label = fixture.lines("run/eval/test/baselines/label.jsonl");
    assert_eq!(label.len(), 12);
    assert_eq!((&label[3]["id"], label[3]["runs"].as_array().unwrap().len()), (&json!("n3"), 3));
    assert!(label.iter().all(|line| line["runs"][0]["verbalized_label"].is_number()));
    let tokens = fixture.lines("run/eval/test/baselines/token_probability.jsonl");
    for line in &tokens {
        let probability = line["runs"][0]["probability"].as_f64().unwrap();
        assert!(probability > 0.0 && probability < 1.0);
    }
    // 12 records: 3 runs of two prompts, one log-probability of each label; and three to see whether they are any good.
    assert_eq!(fake.questions().len(), 12 * 3 * 2 + 12 * 2 + 3);
    // All is there: nothing is asked again, the server may be gone.
    let before = fixture.read("run/eval/test/baselines.json");
    let gone = [
        "--baselines",
        prompted,
        "--runs",
        "3",
        "--set",
        "eval.baseline_model=http://127.0.0.1:9/v1",
        "--set",
        "eval.baseline_model_name=tiny",
    ];
    succeed(&fixture, &flags(&gone));
    assert_eq!(fixture.read("run/eval/test/baselines.json"), before);
    // The base model's own answers are others.
    let own = eval(&fixture, &flags(&["--baselines", "label", "--runs", "3"]));
    assert_eq!(own.status.code(), Some(2));
    assert!(stderr(&own).contains("eval.baseline_model"), "{}", stderr(&own));
}

#[test]
fn a_server_without_log_probabilities_is_told_before_any_work() {
    let fixture = finished_run();
    let good = Arc::new(mind(&fixture));
    let ask = |status: u16| {
        let good = good.clone();
        let fake = Fake::start(move |question| {
            let echo = !question.body["echo"].is_null();
            if echo { Reply::Status(status, "", "echo?".into()) } else { good.answer(question) }
        });
        let url = format!("eval.baseline_model={}", fake.url);
        let asked = ["--baselines", "token_probability", "--set", &url, "--set", "eval.baseline_model_name=tiny"];
        let output = eval(&fixture, &flags(&asked));
        assert!(!fixture.path("run/eval").exists());
        (output.status.code(), stderr(&output))
    };
    for status in [400, 500] {
        let (code, told) = ask(status);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("token_probability") && told.contains("log-probabilities"), "{told}");
    }
    // One that is down for now says nothing of what it can do.
    let (code, told) = ask(503);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("HTTP 503") && told.contains("goes on"), "{told}");
}

#[test]
fn a_server_that_gives_tokens_their_neighbours_log_probabilities_is_refused() {
    let fixture = finished_run();
    let off = mind(&fixture).off_by_one();
    let fake = Fake::start(move |question| off.answer(question));
    let url = format!("eval.baseline_model={}", fake.url);
    let asked = ["--baselines", "token_probability", "--set", &url, "--set", "eval.baseline_model_name=tiny"];
    let output = eval(&fixture, &flags(&asked));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("or not those it writes them with"), "{}", stderr(&output));
    assert!(!fixture.path("run/eval").exists());
}

#[test]
fn a_baseline_model_may_be_a_folder() {
    let fixture = finished_run();
    let label = |more: &[&str]| {
        succeed(&fixture, &flags(&[&["--baselines", "label", "--runs", "2", "--overwrite"][..], more].concat()));
        fixture.lines("run/eval/test/baselines/label.jsonl")
    };
    let own = label(&[]);
    assert_eq!(label(&["--set", "eval.baseline_model=base"]), own, "the same files by another name");
}

/// Predictions of some tool, with explanations.
fn explained() -> String {
    let line = |i: usize| {
        json!({"id": format!("n{i}"), "label": i % 2, "probability": 0.1 * (i % 10) as f64,
            "verbalized_label": i % 2, "explanation": format!("SECRET words, {i}."),
            "text": format!("SECRET words, {i}.")})
    };
    (0..8).map(|i| line(i).to_string() + "\n").collect()
}

#[test]
fn a_judge_that_stops_answering_ends_the_command_and_goes_on() {
    let fixture = finished_run();
    fixture.write("p.jsonl", explained());
    let judge = |fake: &Fake, run: &str| {
        let url = format!("eval.judge={}", fake.url);
        let more = [
            "--predictions",
            "p.jsonl",
            "--set",
            &url,
            "--set",
            "eval.judge_name=tiny",
            "--set",
            "eval.judge_tokenizer=base",
            "--run",
            run,
        ];
        // `run` comes first in run::eval; the last one given counts.
        let mut command = super::common::clsgen();
        command.current_dir(fixture.path(".")).args(["eval", "--set", "eval.bootstrap=300"]).args(flags(&more));
        command.output().unwrap()
    };
    let good = Arc::new(mind(&fixture));
    let answering = good.clone();
    let whole = Fake::start(move |question| answering.answer(question));
    let output = judge(&whole, "whole");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fixture.lines("whole/eval/predictions/judge.jsonl").len(), 8);
    let seen = whole.questions();
    assert_eq!(seen.len(), 16);
    assert!(seen.iter().all(|question| question.body["temperature"] == 0.0));

    let answering = good.clone();
    let asked = AtomicUsize::new(0);
    let failing = Fake::start(move |question| {
        let free = question.is_probe() || question.body.is_null();
        if free || asked.fetch_add(1, Ordering::SeqCst) < 9 {
            return answering.answer(question);
        }
        Reply::Status(500, "", "SECRET words".into())
    });
    let output = judge(&failing, "broken");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("HTTP 500") && stderr(&output).contains("goes on"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("SECRET"));
    let kept = fixture.lines("broken/eval/predictions/judge.jsonl").len();
    assert!((1..8).contains(&kept), "{kept}");
    whole.forget();
    let output = judge(&whole, "broken");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(whole.questions().len(), 16 - 2 * kept, "what was kept is not asked again");
    let judged = |run: &str| fixture.read(&format!("{run}/eval/predictions/judge.jsonl"));
    assert_eq!(judged("broken"), judged("whole"));
    let metrics = |run: &str| -> Value {
        let metrics = fixture.read(&format!("{run}/eval/predictions/metrics.json"));
        serde_json::from_slice::<Value>(&metrics).unwrap()["judge"].clone()
    };
    assert_eq!(metrics("broken"), metrics("whole"));
}
