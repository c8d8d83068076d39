//! `clsgen predict` as a user runs it, on a tiny random checkpoint.

#[path = "predict/annotated.rs"]
mod annotated;
mod common;
#[path = "predict/fixture.rs"]
mod fixture;
#[path = "predict/horizon.rs"]
mod horizon;
#[path = "predict/kept.rs"]
mod kept;
#[path = "predict/long.rs"]
mod long;
#[path = "predict/places.rs"]
mod places;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use fixture::{Fixture, mode, notes, parse_lines, stderr};
use serde_json::{Value, json};

const KEYS: [&str; 16] = [
    "id",
    "label",
    "probability",
    "calibrated_probability",
    "logits",
    "verbalized_label",
    "parsable",
    "explanation",
    "text",
    "agreement",
    "group",
    "prompt_tokens",
    "truncated_tokens",
    "generated_tokens",
    "finish",
    "error",
];

#[test]
fn a_line_a_record_in_order_with_every_key() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(12));
    let result = fixture.succeed("in.jsonl", "out.jsonl", &[]);
    let lines = fixture.lines("out.jsonl");
    assert_eq!(lines.len(), 12);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["id"], format!("n{i}"));
        assert_eq!(line["label"], i % 2);
        assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), KEYS);
        let logits: Vec<f64> = serde_json::from_value(line["logits"].clone()).unwrap();
        let softmax = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
        assert!((line["probability"].as_f64().unwrap() - softmax).abs() < 1e-12);
        assert!(line["error"].is_null() && line["calibrated_probability"].is_null());
        assert_eq!(line["parsable"].as_bool().unwrap(), line["verbalized_label"].is_u64());
        let tokens = line["generated_tokens"].as_u64().unwrap();
        assert!(tokens == 48 || line["finish"] == "stop");
    }
    let truncated = lines.iter().filter(|line| line["truncated_tokens"].as_u64().unwrap() > 0).count();
    assert!(truncated > 0 && truncated < 12);
    assert!(lines.iter().all(|line| line["prompt_tokens"].as_u64().unwrap() <= 160));
    let unparsable = lines.iter().filter(|line| line["parsable"] == false).count();
    let counts = format!("12 records, 0 errors, {truncated} truncated, {unparsable} unparsable");
    assert!(stderr(&result).contains(&counts), "{}", stderr(&result));
    assert_eq!([mode(&fixture.path("out.jsonl")), mode(&fixture.path("out.jsonl.meta.json"))], [0o600; 2]);
}

#[test]
fn the_bytes_depend_on_neither_batch_nor_threads_nor_the_channel() {
    let fixture = Fixture::new();
    let input = notes(12);
    fixture.write("in.jsonl", &input);
    let sampled = ["--set", "generate.temperature=0.9", "--set", "generate.top_p=0.95", "--seed", "5"];
    let run = |name: &str, flags: &[&str]| {
        fixture.succeed("in.jsonl", name, &[&sampled, flags].concat());
        fixture.read(name)
    };
    let plain = run("a.jsonl", &[]);
    assert_eq!(parse_lines(&plain).len(), 12);
    assert_eq!(plain, run("b.jsonl", &["--set", "generate.batch_tokens=1"]));
    assert_eq!(plain, run("c.jsonl", &["--set", "generate.batch_tokens=700", "--threads", "1"]));
    assert_eq!(plain, run("d.jsonl", &["--threads", "3"]));
    let mut child = fixture.command("-", "-", &sampled).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert_eq!(plain, common::end_of(child).stdout);
    let reversed: String = input.lines().rev().map(|line| format!("{line}\n")).collect();
    fixture.write("in.jsonl", reversed);
    let mut backwards = parse_lines(&run("e.jsonl", &[]));
    backwards.reverse();
    assert_eq!(parse_lines(&plain), backwards);
}

#[test]
fn a_run_directory_stands_for_its_best_checkpoint() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.succeed("in.jsonl", "a.jsonl", &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command
        .current_dir(fixture.path(""))
        .args(["predict", "--model", "run", "--input", "in.jsonl", "--output", "b.jsonl"]);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    assert_eq!(fixture.read("a.jsonl"), fixture.read("b.jsonl"));
    let status = fixture.command("in.jsonl", "c.jsonl", &["--model", "base"]).output().unwrap().status;
    assert_eq!(status.code(), Some(2), "--model twice");
}

#[test]
fn without_explanation_the_probability_is_the_same() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(9));
    fixture.succeed("in.jsonl", "full.jsonl", &[]);
    fixture.succeed("in.jsonl", "brief.jsonl", &["--no-explanation"]);
    let full = fixture.lines("full.jsonl");
    let brief = fixture.lines("brief.jsonl");
    assert_eq!(brief.len(), 9);
    for (full, brief) in full.iter().zip(&brief) {
        assert_eq!(
            (&full["id"], &full["logits"], &full["probability"]),
            (&brief["id"], &brief["logits"], &brief["probability"])
        );
        for key in ["text", "explanation", "verbalized_label", "agreement", "finish"] {
            assert!(brief[key].is_null(), "{key}");
        }
    }
}

/// What is there is not replaced before it is known that the input can be read.
#[test]
fn an_input_that_cannot_be_read_costs_no_earlier_output() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    let before = fixture.read("out.jsonl");
    std::fs::create_dir(fixture.path("folder")).unwrap();
    fixture.write("packed", [0x1f, 0x8b, 8, 0]);
    let folder = fixture.command("folder", "out.jsonl", &["--overwrite"]).output().unwrap();
    let mut piped = fixture.command("-", "out.jsonl", &["--overwrite"]);
    let packed = piped.stdin(std::fs::File::open(fixture.path("packed")).unwrap()).output().unwrap();
    for output in [folder, packed] {
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert_eq!(fixture.read("out.jsonl"), before, "{}", stderr(&output));
    }
}

#[test]
fn constrained_answers_all_parse() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(9));
    for flags in [
        &["--set", "generate.constrain=true"][..],
        &["--set", "generate.constrain=true", "--set", "generate.temperature=2.0"],
    ] {
        let result = fixture.succeed("in.jsonl", "out.jsonl", &[flags, &["--overwrite"]].concat());
        assert!(fixture.lines("out.jsonl").iter().all(|line| line["parsable"] == true && line["finish"] == "stop"));
        assert!(stderr(&result).contains(" 0 unparsable"));
    }
}

#[test]
fn bad_records_get_their_lines_in_place() {
    let fixture = Fixture::new();
    let mut input = Vec::new();
    let lines: [&[u8]; 10] = [
        br#"{"id": "ok1", "text": "SECRET one", "label": 1}"#,
        br#"{"id": "broken", "text": "SECRET"#,
        b"{\"id\": \"utf8\", \"text\": \"SECRET \xff\xfe\"}",
        br#"{"id": "blank", "text": " \n\t "}"#,
        br#"{"id": "two", "text": "SECRET", "label": 2}"#,
        br#"{"id": "half", "text": "SECRET", "label": 0.5}"#,
        br#"{"id": "notext", "label": 1}"#,
        br#"{"text": "SECRET without id"}"#,
        br#"["SECRET"]"#,
        br#"{"id": "ok2", "text": "SECRET <|eot|> two"}"#,
    ];
    for line in lines {
        input.extend(line);
        input.push(b'\n');
    }
    fixture.write("in.jsonl", input);
    let result = fixture.succeed("in.jsonl", "out.jsonl", &[]);
    assert!(stderr(&result).contains("10 records, 8 errors"), "{}", stderr(&result));
    let kinds: Vec<String> = fixture.lines("out.jsonl").iter().map(kind).collect();
    let expected = [
        "",
        "invalid_json",
        "invalid_utf8",
        "empty_text",
        "bad_label",
        "bad_label",
        "missing_field",
        "missing_field",
        "invalid_json",
        "",
    ];
    assert_eq!(kinds, expected);
    for (i, line) in fixture.lines("out.jsonl").iter().enumerate().filter(|(i, _)| !expected[*i].is_empty()) {
        assert_eq!(line["record"], i + 1);
        let (keys, values): (Vec<_>, Vec<_>) = line.as_object().unwrap().iter().unzip();
        assert_eq!(keys[..16].iter().map(|key| key.as_str()).collect::<Vec<_>>(), KEYS);
        assert!(values[1..15].iter().all(|value| value.is_null()));
        assert!(!line["error"]["message"].as_str().unwrap().contains("SECRET"));
    }
    let strict = fixture.predict("in.jsonl", "strict.jsonl", &["--strict"]);
    assert_eq!(strict.status.code(), Some(3));
    assert!(
        stderr(&strict).contains("record 2")
            && stderr(&strict).contains("record 9")
            && !fixture.path("strict.jsonl").exists()
    );
}

fn kind(line: &Value) -> String {
    line["error"]["kind"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_duplicate_id_or_a_missing_file_is_an_input_error() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3) + &notes(1));
    let result = fixture.predict("in.jsonl", "out.jsonl", &[]);
    assert_eq!(result.status.code(), Some(3), "{}", stderr(&result));
    assert!(!fixture.path("out.jsonl").exists());
    assert_eq!(fixture.predict("nowhere.jsonl", "out.jsonl", &[]).status.code(), Some(3));
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(10));
    fixture.succeed("in.jsonl", "whole.jsonl", &[]);
    let whole = fixture.read("whole.jsonl");
    for fault in ["log.append:1", "log.append:6", "log.torn:1", "log.torn:5", "log.torn:10"] {
        let output = format!("{}.jsonl", fault.replace(':', "-"));
        let killed = fixture.command("in.jsonl", &output, &[]).env("CLSGEN_FAULT", fault).output().unwrap();
        assert_eq!(killed.status.code(), None, "{fault} aborts");
        let left = fixture.read(&output);
        assert!(left.len() < whole.len());
        let result = fixture.succeed("in.jsonl", &output, &[]);
        assert_eq!(fixture.read(&output), whole, "{fault}");
        assert!(stderr(&result).contains("10 records, 0 errors"), "{}", stderr(&result));
    }
    fixture.succeed("in.jsonl", "whole.jsonl", &[]);
    assert_eq!(fixture.read("whole.jsonl"), whole, "a finished output stays as it is");
}

#[test]
fn another_output_is_refused_unless_overwritten() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(4));
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    let before = fixture.read("out.jsonl");
    for flags in
        [&["--no-explanation"][..], &["--set", "generate.temperature=0.5"], &["--set", "generate.constrain=true"]]
    {
        let result = fixture.predict("in.jsonl", "out.jsonl", flags);
        assert_eq!(result.status.code(), Some(2));
        assert!(stderr(&result).contains("settings") && stderr(&result).contains("--overwrite"), "{}", stderr(&result));
    }
    fixture.write("in.jsonl", notes(5));
    let result = fixture.predict("in.jsonl", "out.jsonl", &[]);
    assert_eq!((result.status.code(), stderr(&result).contains("input")), (Some(2), true));
    assert_eq!(fixture.read("out.jsonl"), before);
    fixture.succeed("in.jsonl", "out.jsonl", &["--overwrite"]);
    assert_eq!(fixture.lines("out.jsonl").len(), 5);
    fixture.write("foreign.jsonl", "{}\n");
    assert_eq!(fixture.predict("in.jsonl", "foreign.jsonl", &[]).status.code(), Some(2));
    assert_eq!(fixture.read("foreign.jsonl"), b"{}\n");
}

#[test]
fn a_full_disk_keeps_every_finished_line() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(20));
    fixture.succeed("in.jsonl", "whole.jsonl", &[]);
    let whole = fixture.read("whole.jsonl");
    // A file-size limit stands for the full disk: the write that crosses it comes up short, then fails.
    let limited = |output: &str| {
        let inner = fixture.command("in.jsonl", output, &[]);
        let arguments =
            inner.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect::<Vec<_>>().join(" ");
        let script = format!("trap '' XFSZ; ulimit -f 4; exec {} {arguments}", env!("CARGO_BIN_EXE_clsgen"));
        Command::new("sh").current_dir(fixture.path("")).args(["-c", &script]).output().unwrap()
    };
    let result = limited("out.jsonl");
    assert_eq!(result.status.code(), Some(5), "{}", stderr(&result));
    assert!(stderr(&result).contains("out.jsonl"));
    let left = fixture.read("out.jsonl");
    assert!(left.ends_with(b"\n") && whole.starts_with(&left) && left.len() > 1000, "{} bytes", left.len());
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    assert_eq!(fixture.read("out.jsonl"), whole);
    for output in ["/dev/full", "-"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let result = fixture.command("in.jsonl", output, &[]).stdout(full).output().unwrap();
        assert_eq!(result.status.code(), Some(5), "{output}: {}", stderr(&result));
    }
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(30));
    let mut child =
        fixture.command("in.jsonl", "-", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let result = common::end_of(child);
    assert!(result.status.code().is_some());
    assert!(!stderr(&result).contains("panic") && !stderr(&result).contains("internal error"), "{}", stderr(&result));
}

#[test]
fn an_interrupt_leaves_finished_lines_and_the_same_command_goes_on() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    let flags = ["--set", "generate.batch_tokens=1"];
    let mut child = fixture.command("in.jsonl", "out.jsonl", &flags).stderr(Stdio::piped()).spawn().unwrap();
    common::wait_for_lines(&mut child, &fixture.path("out.jsonl"), 1);
    common::send("INT", &child);
    let result = common::end_of(child);
    assert_eq!(result.status.code(), Some(130), "{}", stderr(&result));
    let left = fixture.lines("out.jsonl").len();
    assert!((1..400).contains(&left), "{left}");
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    fixture.succeed("in.jsonl", "whole.jsonl", &[]);
    assert_eq!(fixture.read("out.jsonl"), fixture.read("whole.jsonl"));
}
