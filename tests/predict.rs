//! `clsgen predict` as a user runs it, on a tiny random checkpoint.

mod common;
#[path = "predict/fixture.rs"]
mod fixture;

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
    assert_eq!(plain, child.wait_with_output().unwrap().stdout);
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
    command.current_dir(fixture.path("")).args(["predict", "--model", "run", "--input", "in.jsonl", "--output", "b.jsonl"]);
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
    let (full, brief) = (fixture.lines("full.jsonl"), fixture.lines("brief.jsonl"));
    assert_eq!(brief.len(), 9);
    for (full, brief) in full.iter().zip(&brief) {
        assert_eq!((&full["id"], &full["logits"], &full["probability"]), (&brief["id"], &brief["logits"], &brief["probability"]));
        for key in ["text", "explanation", "verbalized_label", "agreement", "finish"] {
            assert!(brief[key].is_null(), "{key}");
        }
    }
}

#[test]
fn constrained_answers_all_parse() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(9));
    for flags in [&["--set", "generate.constrain=true"][..], &["--set", "generate.constrain=true", "--set", "generate.temperature=2.0"]] {
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
    let expected =
        ["", "invalid_json", "invalid_utf8", "empty_text", "bad_label", "bad_label", "missing_field", "missing_field", "invalid_json", ""];
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
    assert!(stderr(&strict).contains("record 2") && stderr(&strict).contains("record 9") && !fixture.path("strict.jsonl").exists());
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
    for flags in [&["--no-explanation"][..], &["--set", "generate.temperature=0.5"], &["--set", "generate.constrain=true"]] {
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
        let arguments = inner.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect::<Vec<_>>().join(" ");
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
    let mut child = fixture.command("in.jsonl", "-", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let result = child.wait_with_output().unwrap();
    assert!(result.status.code().is_some());
    assert!(!stderr(&result).contains("panic") && !stderr(&result).contains("internal error"), "{}", stderr(&result));
}

#[test]
fn an_interrupt_leaves_finished_lines_and_the_same_command_goes_on() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    let flags = ["--set", "generate.batch_tokens=1"];
    let child = fixture.command("in.jsonl", "out.jsonl", &flags).stderr(Stdio::piped()).spawn().unwrap();
    while fixture.read("out.jsonl").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let result = child.wait_with_output().unwrap();
    assert_eq!(result.status.code(), Some(130), "{}", stderr(&result));
    let left = fixture.lines("out.jsonl").len();
    assert!((1..400).contains(&left), "{left}");
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    fixture.succeed("in.jsonl", "whole.jsonl", &[]);
    assert_eq!(fixture.read("out.jsonl"), fixture.read("whole.jsonl"));
}

/// Nothing of an input is lost, whatever name it goes by.
#[test]
fn an_output_that_is_an_input_is_refused_untouched() {
    let fixture = Fixture::new();
    let case = common::shared("cases/01/notes.jsonl").map(|path| std::fs::read(path).unwrap()).unwrap_or_else(|| notes(2).into());
    fixture.write("n.jsonl", &case);
    let csv = "id,text,label\na,fever,1\nb,cough,0\n";
    fixture.write("n.csv", csv);
    std::os::unix::fs::symlink(fixture.path("n.jsonl"), fixture.path("symbolic.jsonl")).unwrap();
    std::fs::hard_link(fixture.path("n.jsonl"), fixture.path("hard.jsonl")).unwrap();
    fixture.write("sub/x", "");
    fixture.write("out.meta.json", &case);
    let checkpoint = "run/checkpoints/epoch-01";
    for name in ["run/metrics.jsonl", "run/run.json", "run/eval/metrics.json"] {
        fixture.write(name, "{}");
    }
    fixture.write("c.toml", "");
    let before = fixture.tree();
    for (input, output, told) in [
        ("n.jsonl", "n.jsonl", "input and output are the same file"),
        ("n.csv", "n.csv", "input and output are the same file"),
        ("n.jsonl", "symbolic.jsonl", "input and output are the same file"),
        ("symbolic.jsonl", "n.jsonl", "input and output are the same file"),
        ("n.jsonl", "hard.jsonl", "input and output are the same file"),
        ("n.jsonl", "sub/../n.jsonl", "input and output are the same file"),
        ("n.jsonl", "c.toml", "input and output are the same file"),
        ("n.jsonl", "base/config.json", "input and output are the same file"),
        ("n.jsonl", "base/model.safetensors", "input and output are the same file"),
        ("n.jsonl", "base/tokenizer.json", "input and output are the same file"),
        ("n.jsonl", &format!("{checkpoint}/cls_head.safetensors"), "is a file of a run or checkpoint"),
        ("n.jsonl", &format!("{checkpoint}/new.jsonl"), "is a file of a run or checkpoint"),
        ("n.jsonl", "run/checkpoints/new.jsonl", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/best.json", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/metrics.jsonl", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/run.json", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/eval/metrics.json", "is a file of a run or checkpoint"),
    ] {
        for flags in [&["--no-explanation", "--config", "c.toml"][..], &["--no-explanation", "--config", "c.toml", "--overwrite"]] {
            let result = fixture.predict(input, output, flags);
            let refused = (result.status.code(), stderr(&result).contains(told) || !flags.contains(&"--overwrite"));
            assert_eq!(refused, (Some(2), true), "{input} -> {output}: {}", stderr(&result));
            assert!(fixture.tree() == before, "{input} -> {output} changed a file");
        }
    }
    // The sidecar of `out` is the input; and a shell can make the input stdout.
    let result = fixture.predict("out.meta.json", "out", &["--overwrite"]);
    assert_eq!(result.status.code(), Some(2), "{}", stderr(&result));
    let stdout = std::fs::OpenOptions::new().append(true).open(fixture.path("n.jsonl")).unwrap();
    let result = fixture.command("n.jsonl", "-", &[]).stdout(stdout).output().unwrap();
    assert!(result.status.code() == Some(2) && stderr(&result).contains("same file"), "{}", stderr(&result));
    assert!(fixture.tree() == before);
}

#[test]
fn a_foreign_file_in_the_sidecars_place_is_kept() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    for foreign in ["my own notes", "{}", "[1]", "{\"schema\": 1}"] {
        fixture.write("out.jsonl.meta.json", foreign);
        for flags in [&[][..], &["--overwrite"]] {
            let result = fixture.predict("in.jsonl", "out.jsonl", flags);
            assert!(result.status.code() == Some(2) && stderr(&result).contains("no sidecar of ours"), "{}", stderr(&result));
            assert_eq!(fixture.read("out.jsonl.meta.json"), foreign.as_bytes());
            assert!(!fixture.path("out.jsonl").exists());
        }
    }
}

#[test]
fn an_output_is_one_process_s_alone_by_any_name() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.write("out.jsonl", "");
    std::os::unix::fs::symlink(fixture.path("out.jsonl"), fixture.path("other.jsonl")).unwrap();
    let lock = clsgen::storage::OutputLock::acquire(&fixture.path("out.jsonl")).unwrap();
    for output in ["out.jsonl", "other.jsonl", "sub/../out.jsonl"] {
        fixture.write("sub/x", "");
        for flags in [&[][..], &["--overwrite"]] {
            let result = fixture.predict("in.jsonl", output, flags);
            let told = stderr(&result);
            assert_eq!(result.status.code(), Some(2), "{output}: {told}");
            assert!(told.contains(&format!("is locked by process {} on", std::process::id())), "{told}");
        }
    }
    assert_eq!(fixture.read("out.jsonl"), b"");
    drop(lock);
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    assert!(!fixture.path(".out.jsonl.lock").exists());
    // A hard link is another name of the same file too: the file itself is locked while it is written.
    std::fs::hard_link(fixture.path("out.jsonl"), fixture.path("hard.jsonl")).unwrap();
    std::fs::copy(fixture.path("out.jsonl.meta.json"), fixture.path("hard.jsonl.meta.json")).unwrap();
    let log = clsgen::storage::RecordLog::open(&fixture.path("out.jsonl")).unwrap();
    log.lock().unwrap();
    let result = fixture.predict("in.jsonl", "hard.jsonl", &[]);
    assert!(result.status.code() == Some(2) && stderr(&result).contains("another process"), "{}", stderr(&result));
}

#[test]
fn lines_that_were_changed_are_not_continued() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(6));
    fixture.succeed("in.jsonl", "out.jsonl", &["--no-explanation"]);
    let whole = String::from_utf8(fixture.read("out.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let flipped = whole.replacen("\"label\":0", "\"label\":1", 1);
    assert_ne!(flipped, whole);
    for changed in [flipped, lines[..3].join("\n") + "\n", lines[1..].join("\n") + "\n"] {
        fixture.write("out.jsonl", &changed);
        let result = fixture.predict("in.jsonl", "out.jsonl", &["--no-explanation"]);
        assert!(result.status.code() == Some(2) && stderr(&result).contains("was changed since"), "{}", stderr(&result));
        assert_eq!(fixture.read("out.jsonl"), changed.as_bytes());
    }
    fixture.succeed("in.jsonl", "out.jsonl", &["--no-explanation", "--overwrite"]);
    assert_eq!(fixture.read("out.jsonl"), whole.as_bytes());
}

#[test]
fn an_output_name_that_is_not_utf8_is_a_name() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.jsonl");
    let mut command = fixture.command("in.jsonl", "placeholder", &[]);
    command.arg("--no-explanation").arg("--json");
    let arguments: Vec<_> = command.get_args().map(|arg| if arg == "placeholder" { name.to_owned() } else { arg.to_owned() }).collect();
    for _ in 0..2 {
        let result = Command::new(command.get_program()).current_dir(fixture.path("")).args(&arguments).output().unwrap();
        assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
        assert_eq!(parse_lines(&std::fs::read(fixture.path("").join(name)).unwrap()).len(), 3);
    }
}

#[test]
fn every_stopping_signal_leaves_finished_lines_and_its_code() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    for (signal, code) in [("HUP", 129), ("USR1", 138), ("USR2", 140), ("TERM", 143), ("XCPU", 152)] {
        let output = format!("{signal}.jsonl");
        let child = fixture.command("in.jsonl", &output, &["--set", "generate.batch_tokens=1"]).stderr(Stdio::piped()).spawn().unwrap();
        while fixture.read(&output).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let result = child.wait_with_output().unwrap();
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(code), "{told}");
        assert!(told.contains(&format!("stopped by SIG{signal}")) && told.contains("holds what is done"), "{told}");
        assert!((1..400).contains(&fixture.lines(&output).len()));
    }
}

#[test]
fn an_output_that_is_removed_is_not_written_to_in_the_dark() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    let child = fixture.command("in.jsonl", "out.jsonl", &["--set", "generate.batch_tokens=1"]).stderr(Stdio::piped()).spawn().unwrap();
    while fixture.read("out.jsonl").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    std::fs::remove_file(fixture.path("out.jsonl")).unwrap();
    let result = child.wait_with_output().unwrap();
    assert!(result.status.code() == Some(1) && stderr(&result).contains("was removed or replaced"), "{}", stderr(&result));
    assert!(!fixture.path("out.jsonl").exists());
}

#[test]
fn a_checkpoint_that_stepped_aside_is_read_where_it_is() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    let checkpoints = fixture.path("run/checkpoints");
    std::fs::rename(checkpoints.join("epoch-01"), checkpoints.join(".epoch-01.old")).unwrap();
    fixture.succeed("in.jsonl", "aside.jsonl", &[]);
    assert_eq!(fixture.read("aside.jsonl"), fixture.read("out.jsonl"));
}

/// Small files that were read wrongly or refused in riddles.
#[test]
fn forms_of_records_are_read_by_what_they_say_or_refused_by_name() {
    let Some(cases) = common::shared("cases") else { return };
    let fixture = Fixture::new();
    let at = |file: &str| cases.join(file).display().to_string();
    for (file, id) in [
        ("03/p_u32.parquet", "3000000000"),
        ("03/p_u64.parquet", "10254939386542155531"),
        ("03/p_deciint_id.parquet", "101.50"),
        ("03/p_date_id.parquet", "2020-01-01"),
        ("03/p_ts_id.parquet", "2020-01-01T01:01:00"),
        ("07/p_brotli.parquet", "a"),
    ] {
        let output = format!("{}.jsonl", id.replace(':', "-"));
        fixture.succeed(&at(file), &output, &["--no-explanation"]);
        assert_eq!(fixture.lines(&output)[0]["id"], id, "{file}");
    }
    fixture.succeed(&at("03/p_deciint_label.parquet"), "labels.jsonl", &["--no-explanation"]);
    let lines = fixture.lines("labels.jsonl");
    assert_eq!((&lines[0]["label"], &lines[1]["label"]), (&json!(1), &json!(0)));
    assert_eq!(lines[2]["error"]["kind"], "bad_label");
    for (file, told) in [
        ("08/c_names.csv", "Note ID, Note-Text"),
        ("08/c_semi.csv", "separated by `;`"),
        ("08/c_tab.csv", "separated by tabs"),
        ("08/p_list.parquet", "column text is a list"),
        ("09/c_gz.csv", "gzip-compressed"),
        ("09/j_gz.jsonl.gz", "gzip-compressed"),
        ("09/j_zst.jsonl", "zstd-compressed"),
        ("09/j_array.json", "is a JSON array"),
    ] {
        let result = fixture.predict(&at(file), "refused.jsonl", &["--no-explanation"]);
        assert_eq!(result.status.code(), Some(3), "{file}");
        assert!(stderr(&result).contains(told) && stderr(&result).contains("hint: "), "{file}: {}", stderr(&result));
    }
}
