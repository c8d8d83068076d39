//! tokenizer.json: expressions that never end, steps that double a text, maps that are none.

use serde_json::{Value, json};

use crate::bench::Bench;

const FILE: &str = "base/tokenizer.json";

fn split(regex: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

#[test]
fn a_tokenizer_is_refused_when_it_is_read() {
    let doubling = |kind: &str| json!({"type": "Sequence", kind: vec![replace("a", "aa"); 60]});
    let hostile: Vec<(&str, &str, Value)> = vec![
        ("backtracking", "pre_tokenizer", split("(a+)+$")),
        ("alternatives", "pre_tokenizer", split("(a|aa)+$")),
        ("no expression", "pre_tokenizer", split("(")),
        ("a deep expression", "pre_tokenizer", split(&format!("{}{}", "(".repeat(50_000), ")".repeat(50_000)))),
        ("a length of 0", "pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("an empty map", "normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""})),
        ("a short map", "normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("a map of zeros", "normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="})),
        ("a map said to be huge", "normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="})),
        ("an empty pattern", "normalizer", replace("", "x")),
        ("nothing many times", "normalizer", json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "x"})),
        ("doubling", "normalizer", doubling("normalizers")),
        (
            "long prefixes",
            "normalizer",
            json!({"type": "Sequence",
                "normalizers": vec![json!({"type": "Prepend", "prepend": "x".repeat(100_000)}); 99]}),
        ),
        ("a decoder that doubles", "decoder", doubling("decoders")),
        ("a decoder of an empty pattern", "decoder", replace("", "x")),
        (
            "a token that there is not",
            "post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}],
                "pair": [], "special_tokens": {}}),
        ),
    ];
    let mut bench = Bench::new("tokenizer.json");
    let whole = bench.fixture.read(FILE);
    for (what, key, value) in hostile {
        bench.set(FILE, &[key], value);
        bench.predict(what).refused(4, &["base", "tokenizer.json"]);
        bench.fixture.write(FILE, &whole);
    }
    let mut json: Value = serde_json::from_slice(&whole).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab.remove("z").unwrap();
    vocab.insert("z".repeat(1 << 20), id);
    bench.fixture.write(FILE, json.to_string());
    bench.predict("a token of a megabyte").refused(4, &["token of 1048576 bytes"]);
    bench.fixture.write(FILE, &whole);
    bench.set(FILE, &["added_tokens"], json!([{"id": 99_999, "content": "\u{1b}[2J<x>\0", "special": true}]));
    bench.predict("an escape sequence").refused(4, &["\\u{1b}[2J<x>\\u{0}"]);
    bench.fixture.write(FILE, &whole);
    bench.set(FILE, &["model", "type"], json!("\u{1b}[2J"));
    bench.predict("another kind").refused(4, &["tokenizer.json"]);
    bench.fixture.write(FILE, "[".repeat(1 << 20));
    bench.predict("brackets").refused(4, &["not valid JSON"]);
}

#[test]
fn a_text_that_a_tokenizer_stumbles_over_is_an_error_line() {
    let mut bench = Bench::new("tokenizers that stumble");
    // What is tried when it is read has no such word: only a record does.
    bench.set(FILE, &["pre_tokenizer"], split("q(z+)+$"));
    let records = [("good", "fever"), ("bad", &*format!("q{}b SECRET", "z".repeat(60))), ("good too", "cough")];
    let lines = records.map(|(id, text)| json!({"id": id, "text": text}).to_string());
    bench.fixture.write("in.jsonl", lines.join("\n"));
    bench.predict("backtracking on a record").accepted();
    let lines = bench.fixture.lines("out.jsonl");
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["error"]["kind"]).collect();
    assert_eq!(kinds, [&Value::Null, &json!("tokenizer"), &Value::Null]);
    assert!(!lines[1].to_string().contains("SECRET"), "{}", lines[1]);
}
