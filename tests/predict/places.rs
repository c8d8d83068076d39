//! Where a bad record is: messages name its number and, where that does not lead to it, its line.

use std::process::{Command, Output};

use super::{Fixture, json, stderr};

/// What the error lines of a prediction say: `record` and the message.
fn errors(fixture: &Fixture, input: &str) -> Vec<(u64, String)> {
    fixture.succeed(input, "out.jsonl", &["--no-explanation", "--overwrite"]);
    let lines = fixture.lines("out.jsonl");
    let bad = lines.iter().filter(|line| !line["error"].is_null());
    bad.map(|line| (line["record"].as_u64().unwrap(), line["error"]["message"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn blank_lines_are_no_records_and_every_message_names_the_line_behind_them() {
    let fixture = Fixture::new();
    let good = |id: &str| json!({"id": id, "text": "a note", "label": 0}).to_string();
    let lines = [&good("a"), "{\"id\": \"b\"}", "", " \t", "{broken", &good("c"), "", "{\"id\": 1}", &good("a")];
    fixture.write("in.jsonl", lines[..8].join("\n"));
    let told = errors(&fixture, "in.jsonl");
    let found: Vec<(u64, &str)> =
        told.iter().map(|(record, message)| (*record, message.split_once(": ").unwrap().0)).collect();
    assert_eq!(found, [(2, "record 2, field text"), (3, "record 3 (line 5)"), (5, "record 5 (line 8), field text")]);
    let strict = fixture.predict("in.jsonl", "-", &["--no-explanation", "--strict"]);
    assert_eq!(strict.status.code(), Some(3));
    for (_, message) in &told {
        assert!(stderr(&strict).contains(&format!("in.jsonl, {message}")), "{message}: {}", stderr(&strict));
    }
    fixture.write("in.jsonl", lines.join("\n"));
    let twice = fixture.predict("in.jsonl", "-", &["--no-explanation"]);
    assert_eq!(twice.status.code(), Some(3));
    let what = "record 6 (line 9), field id: the same as record 1's";
    assert!(stderr(&twice).contains(what), "{}", stderr(&twice));
}

#[test]
fn a_csv_file_is_counted_by_records_too() {
    let fixture = Fixture::new();
    // Two lines in one cell, a blank line, ends of every kind; a record is named by the line that it begins on.
    fixture.write("in.csv", "id,text\r\na,one\nb\nc,\"two\nlines\"\rd\n\r\n\ne,\"three\r\nmore\r\nlines\"\n\nf\n");
    assert_eq!(
        errors(&fixture, "in.csv"),
        [
            (2, "record 2: has 1 cells where the header has 2".to_owned()),
            (4, "record 4 (line 6): has 1 cells where the header has 2".to_owned()),
            (6, "record 6 (line 13): has 1 cells where the header has 2".to_owned()),
        ]
    );
}

/// All that follows would be one bad record, and the rest of the file gone with an exit code of 0.
#[test]
fn a_quote_that_is_never_closed_ends_the_run() {
    let fixture = Fixture::new();
    let rows = |from: usize, to: usize| (from..to).map(|i| format!("{i},\"SECRET {i}\"\n")).collect::<String>();
    for (before, told) in [("", "record 4"), ("\n\n", "record 4 (line 7)")] {
        fixture.write("in.csv", format!("id,text\n{before}{}3,\"SECRET\n4,plain\n5,plain\n", rows(0, 3)));
        let told = format!("{told}: a quoted cell is never closed: everything from line {}", 5 + before.len());
        for flags in [&["--no-explanation"][..], &["--no-explanation", "--shard", "1/3"]] {
            let result = fixture.predict("in.csv", "-", flags);
            assert_eq!(result.status.code(), Some(3), "{}", stderr(&result));
            assert!(
                stderr(&result).contains(&told) && stderr(&result).contains("hint: a quoted cell ends in"),
                "{told}"
            );
            assert!(result.stdout.is_empty(), "a file is read through before any work");
        }
    }
    // The records before it are those of a pipe, and what follows them is an error too.
    let mut piped = fixture.command("-", "-", &["--no-explanation"]);
    let result = piped.stdin(std::fs::File::open(fixture.path("in.csv")).unwrap()).output().unwrap();
    assert!(result.status.code() == Some(3) && stderr(&result).contains("never closed"), "{}", stderr(&result));
    assert_eq!(super::parse_lines(&result.stdout).len(), 3);
}

/// The quote that opens a later cell closes it: the records between would be gone with one bad record.
#[test]
fn a_quote_that_a_later_cell_closes_ends_the_run() {
    let fixture = Fixture::new();
    for (opened, later) in [("\"SECRET", "\"quoted\""), ("\"SECRET", "\", quoted\""), ("\"a\n\"SECRET", "plain")] {
        fixture.write("in.csv", format!("id,text\n1,one\n2,{opened}\n3,three\n4,{later}\n5,five\n"));
        let result = fixture.predict("in.csv", "-", &["--no-explanation"]);
        let told =
            "record 2: a quote is out of place in a record of several lines: records behind line 3 may have been";
        assert_eq!(result.status.code(), Some(3), "{}", stderr(&result));
        assert!(stderr(&result).contains(told) && !stderr(&result).contains("SECRET"), "{}", stderr(&result));
    }
    // A quote within one line costs its own record alone, and quotes in cells without them are text.
    fixture.write("in.csv", "id,text\n1,\"one\" more\n2,5\" wide\n3,\"two\nlines, \"\"so\"\"\"\n");
    assert_eq!(errors(&fixture, "in.csv"), [(1, "record 1: text follows a closing quote".to_owned())]);
}

#[test]
fn a_prompt_that_does_not_fit_is_named_like_any_other() {
    let fixture = Fixture::new();
    let long = "x".repeat((1 << 20) + 1);
    let record = |id: &str, text: &str| json!({"id": id, "text": text}).to_string() + "\n";
    fixture.write("in.jsonl", format!("{}\n\n{}", record("a", "a note"), record("b", &long)));
    let told = errors(&fixture, "in.jsonl");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == 2 && told[0].1.starts_with("record 2 (line 4), field text: "), "{told:?}");
}

#[test]
fn a_folder_is_no_output_and_leaves_nothing_in_it() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", super::notes(2));
    std::fs::create_dir(fixture.path("there")).unwrap();
    let before = fixture.tree();
    for output in ["there", "there/", "new/"] {
        let told = fixture.predict("in.jsonl", output, &["--no-explanation"]);
        assert_eq!(told.status.code(), Some(2), "{output}: {}", stderr(&told));
        assert!(stderr(&told).contains("hint: "), "{output}: {}", stderr(&told));
    }
    assert_eq!(fixture.tree(), before);
}

#[test]
fn given_labels_and_prompts_are_the_checkpoints_or_refused() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", super::notes(2));
    let own = "task.labels=[\"0:alive\", \"1:death\"]";
    fixture.succeed("in.jsonl", "out.jsonl", &["--no-explanation", "--set", own]);
    fixture.write("other.toml", "user = \"{document}\"\nquestion = \"Well?\"\nformat = \"plain\"\n");
    for other in ["task.labels=[\"no\", \"yes\"]", "task.prompt=other.toml"] {
        for more in [&[][..], &["--dry-run"]] {
            let flags = [&["--no-explanation", "--set", other], more].concat();
            let told = fixture.predict("in.jsonl", "other.jsonl", &flags);
            assert_eq!(told.status.code(), Some(2), "{other}: {}", stderr(&told));
            let key = other.split_once('=').unwrap().0;
            assert!(stderr(&told).contains(&format!("{key} is not what")), "{other}: {}", stderr(&told));
        }
    }
    assert!(!fixture.path("other.jsonl").exists());
}

fn eval(fixture: &Fixture, predictions: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
    command.current_dir(fixture.path("")).args(["eval", "--run", "scored", "--predictions", predictions]);
    command.output().unwrap()
}

#[test]
fn a_prediction_file_is_read_likewise() {
    let fixture = Fixture::new();
    let line = |id: &str, rest: &str| format!("{{\"id\": \"{id}\", \"label\": 0, {rest}}}");
    let good = line("a", "\"probability\": 0.5");
    for (bad, what) in [
        (line("b", "\"probability\": 2"), "field probability: is not a number"),
        (line("a", "\"probability\": 0.5"), "field id: the same as record 1's"),
        (line("b", "\"probability\": null"), "field probability: is null"),
    ] {
        fixture.write("p.jsonl", format!("{good}\n\n\n{}\n{bad}\n", good.replace("\"a\"", "\"z\"")));
        let output = eval(&fixture, "p.jsonl");
        assert_eq!(output.status.code(), Some(3));
        let what = format!("p.jsonl, record 3 (line 5), {what}");
        assert!(stderr(&output).contains(&what), "{what}: {}", stderr(&output));
    }
}

/// A prompt may hold notes as examples.
#[test]
fn a_damaged_prompt_is_told_without_a_word_of_it() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n");
    let path = "run/checkpoints/epoch-01/clsgen.json";
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture.path(path)).unwrap()).unwrap();
    let mut prompt = info["prompt"].clone();
    prompt["format"] = "Mrs SECRET".into();
    for (key, value) in [("prompt", "Mrs SECRET".into()), ("prompt", prompt), ("truncate", "Mrs SECRET".into())] {
        let mut wrong = info.clone();
        wrong[key] = value;
        fixture.write(path, wrong.to_string());
        let result = fixture.predict("in.jsonl", "out.jsonl", &[]);
        assert_eq!(result.status.code(), Some(4), "{key}");
        let told = stderr(&result);
        assert!(told.contains("has a value that its key does not take") && !told.contains("SECRET"), "{told}");
    }
}
