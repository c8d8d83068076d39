//! `generate.evidence`: what of an explanation stands in the record, against a brute-force reference
//! (`golden/evidence.py`) and through the program.

mod common;
#[path = "evaluation/run.rs"]
mod run;

use std::collections::BTreeMap;

use clsgen::metrics::evidence::{Evidence, find};
use run::{Fixture, eval, json, json_of, stderr, succeed, write_trained};
use serde_json::{Value, json};

const ASKED: [&str; 8] = [
    "--set",
    "generate.evidence=true",
    "--set",
    "generate.constrain=true",
    "--set",
    "generate.temperature=1",
    "--set",
    "model.max_output_tokens=160",
];
/// A text of random letters with a verdict behind it, long enough to hold some words.
const PLAIN: [&str; 6] = [ASKED[2], ASKED[3], ASKED[4], ASKED[5], ASKED[6], ASKED[7]];

fn evidence(value: &Value) -> Vec<Evidence> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Letters by their number.
fn part(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}

#[test]
fn it_is_what_brute_force_finds() {
    let fixtures: Value = serde_json::from_str(include_str!("golden/evidence.json")).unwrap();
    let fixtures = fixtures.as_array().unwrap();
    assert!(fixtures.len() >= 100);
    for (i, fixture) in fixtures.iter().enumerate() {
        let fields: BTreeMap<String, String> = serde_json::from_value(fixture["fields"].clone()).unwrap();
        let fields = fields.iter().map(|(field, text)| (field.as_str(), text.as_str()));
        let found = find(fields, fixture["explanation"].as_str().unwrap());
        assert_eq!(found, evidence(&fixture["evidence"]), "fixture {i}");
    }
}

#[test]
fn a_text_that_repeats_itself_for_a_megabyte_takes_no_longer_than_another() {
    let note = "no fever ".repeat(120_000);
    let said = "no fever no fever no fever no, and ".repeat(5_000) + "\"no fever no fever\"" + &" “".repeat(50_000);
    let found = find([("text", note.as_str())], &said);
    assert_eq!(found.len(), 5_001);
    assert!(found[..5_000].iter().all(|span| (span.start, span.words, span.quoted) == (Some(0), 7, false)));
    let one = "a".repeat(1 << 20);
    assert!(find([("text", one.as_str())], &note).is_empty());
}

/// Notes longer than the window; where `more` has something for one, it follows where the model does not read.
fn notes(more: &BTreeMap<String, String>) -> String {
    let note = |i: usize| {
        let id = format!("n{i}");
        let text = format!("SECRET é {}{}", "fever ".repeat(60 + i), more.get(&id).map_or("", String::as_str));
        json!({"id": id, "text": text, "label": i % 2}).to_string() + "\n"
    };
    (0..12).map(note).collect()
}

/// A run whose model is known to say in its explanations what stands in the notes, of which `dev` and `test` are.
fn saying() -> (Fixture, BTreeMap<String, String>) {
    let fixture = Fixture::new();
    fixture.write("plain.jsonl", notes(&BTreeMap::new()));
    fixture.succeed("plain.jsonl", "plain.out", &PLAIN);
    let said: BTreeMap<String, String> = fixture
        .lines("plain.out")
        .iter()
        .filter_map(|line| Some((line["id"].as_str()?.to_owned(), format!("[{}]", line["explanation"].as_str()?))))
        .collect();
    fixture.write("test.jsonl", notes(&said));
    fixture.write("dev.jsonl", notes(&said));
    fixture.succeed("dev.jsonl", "dev.out", &PLAIN);
    assert_eq!(fixture.lines("dev.out")[3]["explanation"], fixture.lines("plain.out")[3]["explanation"]);
    let dev = fixture.read("dev.out");
    fixture.write("run/checkpoints/epoch-01/dev.predictions.jsonl", dev);
    let decoding = json!({"generate.constrain": true, "generate.temperature": 1.0, "model.max_output_tokens": 160});
    write_trained(&fixture, decoding);
    (fixture, said)
}

/// Texts of the records by id.
fn texts(fixture: &Fixture) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fixture.lines("test.jsonl").iter().map(|record| (text(&record["id"]), text(&record["text"]))).collect()
}

#[test]
fn predict_says_it_when_asked_in_code_points_of_the_uncut_text() {
    let (fixture, said) = saying();
    assert!(said.len() >= 6, "most texts have an explanation: {}", said.len());
    fixture.succeed("test.jsonl", "without.out", &PLAIN);
    assert!(!String::from_utf8(fixture.read("without.out")).unwrap().contains("\"evidence\""));
    fixture.write("with.jsonl", String::from_utf8(fixture.read("test.jsonl")).unwrap() + "{\"id\": \"bad\"}\n");
    fixture.succeed("with.jsonl", "with.out", &ASKED);
    let texts = texts(&fixture);
    let mut spans = 0;
    let mut lines = fixture.lines("with.out");
    assert_eq!(lines.pop().unwrap()["evidence"], Value::Null, "an error line has every key");
    for (line, plain) in lines.iter_mut().zip(fixture.lines("without.out")) {
        let own = line.as_object_mut().unwrap().remove("evidence").unwrap();
        assert_eq!(*line, plain, "nothing else changes");
        let Some(explanation) = line["explanation"].as_str() else {
            assert!(own.is_null());
            continue;
        };
        let text = &texts[line["id"].as_str().unwrap()];
        let own = evidence(&own);
        assert_eq!(own, find([("text", text.as_str())], explanation));
        for span in own.iter().filter(|span| span.field.is_some()) {
            spans += 1;
            let there = part(text, span.start.unwrap(), span.end.unwrap());
            let here = part(explanation, span.explanation_start, span.explanation_end);
            let letters = |text: &str| text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            assert_eq!(letters(&there), letters(&here));
            assert!(span.start.unwrap() > 360 && span.words >= 3, "behind what the model read: {span:?}");
        }
    }
    assert!(spans > 0, "some explanation has six words");
    // One is not gone on with as the other.
    for (output, flags) in [("with.out", &PLAIN[..]), ("without.out", &ASKED)] {
        let input = if output == "with.out" { "with.jsonl" } else { "test.jsonl" };
        let refused = fixture.predict(input, output, flags);
        let told = stderr(&refused);
        assert!(refused.status.code() == Some(2) && told.contains("generate.evidence"), "{told}");
    }
    fixture.succeed("test.jsonl", "silent.out", &[&ASKED[..2], &["--no-explanation"]].concat());
    assert!(fixture.lines("silent.out").iter().all(|line| line["evidence"].is_null()));
}

#[test]
fn eval_measures_it_and_the_report_marks_it() {
    let (fixture, _) = saying();
    let data = ["--set", "data.test=test.jsonl", "--set", "data.dev=dev.jsonl"];
    succeed(&fixture, &[&data[..], &PLAIN].concat());
    assert!(json(&fixture, "metrics.json").get("evidence").is_none());
    let refused = eval(&fixture, &[&data[..], &ASKED].concat());
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("generate.evidence"), "{}", stderr(&refused));
    succeed(&fixture, &[&data[..], &ASKED, &["--overwrite", "--card"]].concat());
    let lines = fixture.lines("run/eval/test/predictions.jsonl");
    let told: Vec<Vec<Evidence>> =
        lines.iter().filter(|line| !line["evidence"].is_null()).map(|line| evidence(&line["evidence"])).collect();
    let with = told.iter().filter(|spans| spans.iter().any(|span| span.field.is_some())).count();
    let metrics = json(&fixture, "metrics.json")["evidence"].clone();
    assert_eq!(metrics["with_evidence"]["n"], told.len());
    assert!((metrics["with_evidence"]["value"].as_f64().unwrap() - with as f64 / told.len() as f64).abs() < 1e-12);
    assert!(with > 0 && fixture.path("run/eval/test/tables/evidence.csv").is_file());
    let card = String::from_utf8(fixture.read("run/eval/test/tripod-llm.md")).unwrap();
    assert!(card.contains("- Explanations with evidence: "), "{card}");
    // Dev's predictions are the checkpoint's, and gain it; so does a report what it marks.
    let page = |split: &str| String::from_utf8(fixture.read(&format!("run/eval/{split}/report.html"))).unwrap();
    succeed(&fixture, &[&["--split", "dev"], &data[2..], &ASKED, &["--include-text"]].concat());
    let dev = fixture.lines("run/eval/dev/predictions.jsonl");
    assert!(dev.iter().zip(&lines).all(|(dev, test)| dev["evidence"] == test["evidence"]));
    assert!(page("dev").contains("\"evidence\":[{\"field\":\"text\",\"start\":") && page("dev").contains("SECRET"));
    assert!(!page("test").contains("\"evidence\":[") && !page("test").contains("SECRET"));
    fixture.write("gate.toml", "evidence.with_evidence = 1.01\n");
    let missed = eval(&fixture, &[&data[..], &ASKED, &["--gate", "gate.toml"]].concat());
    let told = stderr(&missed);
    assert!(missed.status.code() == Some(1) && told.contains("evidence.with_evidence = "), "{told}");
}

#[test]
fn any_tools_predictions_may_say_it() {
    let fixture = Fixture::new();
    let of = |found: usize, field: Value| {
        let start = if field.is_null() { Value::Null } else { json!(3) };
        json!({"field": field, "start": start, "end": start, "explanation_start": 0, "explanation_end": 9,
            "quoted": true, "words": 4, "found": found})
    };
    let line = |i: usize| {
        let evidence = match i % 4 {
            0 => json!([of(4, json!("text")), of(0, Value::Null)]),
            1 => json!([of(2, Value::Null)]),
            2 => json!([]),
            _ => Value::Null,
        };
        let said = if evidence.is_null() { Value::Null } else { json!("said") };
        json!({"id": i.to_string(), "label": i % 3 / 2, "probability": 0.05 * i as f64, "explanation": said,
            "evidence": evidence})
        .to_string()
            + "\n"
    };
    fixture.write("other.jsonl", (0..16).map(line).collect::<String>());
    succeed(&fixture, &["--predictions", "other.jsonl"]);
    let metrics = json_of(&fixture, "predictions/metrics.json")["evidence"].clone();
    assert_eq!((&metrics["with_evidence"]["n"], &metrics["quoted_words"]["n"]), (&json!(12), &json!(8)));
    let value = |key: &str| metrics[key]["value"].as_f64().unwrap();
    assert!((value("with_evidence") - 4.0 / 12.0).abs() < 1e-12 && (value("quoted_words") - 0.5).abs() < 1e-12);
    assert!(metrics["with_evidence"]["ci95"].is_array());
    fixture.write("bad.jsonl", line(0).replace("\"words\":4", "\"words\":\"SECRET\""));
    let refused = eval(&fixture, &["--predictions", "bad.jsonl", "--overwrite"]);
    let told = stderr(&refused);
    assert!(refused.status.code() == Some(3) && told.contains("line 1") || told.contains("record 1"), "{told}");
    assert!(told.contains("field evidence"), "{told}");
}
