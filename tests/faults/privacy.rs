//! Words that stand in one place only, in every text, name, answer and key that a command reads: afterwards they are
//! found where they may be, and nowhere else.

use std::process::Command;

use serde_json::json;

use super::{
    clusters::has_strace,
    work::{Work, walk},
};
use crate::common;

/// The words, and the files of a run that may hold them: below these names, or with these ends.
const WORDS: [(&str, &[&str]); 6] = [
    // A note: where records are carried on, and in what the model says of them.
    ("ZEBRANOTE", &["construct/", "answers/", "report-with-text/"]),
    ("ZEBRACLAIM", &["construct/", "answers/"]),
    // An explanation: in construct's records, and where predictions carry it.
    ("ZEBRAWHY", &["construct/", "answers/"]),
    ("ZEBRAEXTRA", &["construct/"]),
    ("hf_ZEBRATOKEN", &[]),
    ("sk-ZEBRAKEY", &[]),
];

/// Notes in which every text is a word that can be found again.
fn plant(work: &Work) {
    for split in ["train", "dev", "test", "new"] {
        let record = |i: usize| {
            let text = format!("ZEBRANOTE The patient, number {i}, is ZEBRANOTE well.");
            let mut record = json!({"id": format!("{split}{i}"), "text": text, "label": i % 2,
                "explanation": format!("ZEBRAWHY because {i}"), "claim": "ZEBRACLAIM", "other": "ZEBRAEXTRA"});
            if split == "new" {
                record.as_object_mut().unwrap().remove("label");
            }
            record.to_string() + "\n"
        };
        work.write(&format!("data/{split}.jsonl"), (0..8).map(record).collect::<String>());
    }
    // What is wrong with these is told without a word of them.
    for (name, text) in [
        ("broken", "{\"id\": \"a\", \"text\": \"ZEBRANOTE\n"),
        ("label", "{\"id\": \"a\", \"text\": \"ZEBRANOTE\", \"label\": \"ZEBRACLAIM\"}\n"),
        ("twice", "{\"id\": \"a\", \"text\": \"ZEBRANOTE\"}\n{\"id\": \"a\", \"text\": \"ZEBRANOTE\"}\n"),
        ("control", "{\"id\": \"a\", \"text\": \"ZEBRANOTE <|im_end|> ZEBRANOTE\", \"label\": 1}\n"),
        ("empty", "{\"id\": \"a\", \"text\": \" \", \"explanation\": \"ZEBRAWHY\", \"label\": 1}\n"),
        ("array", "[{\"id\": \"a\", \"text\": \"ZEBRANOTE\"}]\n"),
        ("type", "{\"id\": \"a\", \"text\": [\"ZEBRANOTE\"], \"label\": 1}\n"),
        ("utf8", "{\"id\": \"a\", \"text\": \"ZEBRANOTE \u{1}\", \"label\": 1}\n"),
    ] {
        work.write(&format!("bad/{name}.jsonl"), text);
    }
    work.write("bad/header.csv", "ZEBRANOTE,ZEBRACLAIM\n1,ZEBRAEXTRA\n");
    work.write("bad/cells.csv", "id,text,label\n1,\"ZEBRANOTE\n");
    let long = "ZEBRANOTE".repeat(120_000);
    work.write("bad/long.jsonl", json!({"id": "a", "text": long, "label": 1}).to_string());
    work.write(
        "bad/predictions.jsonl",
        "{\"id\": \"a\", \"label\": 1, \"probability\": \"ZEBRANOTE\", \"text\": \"ZEBRAWHY\"}\n",
    );
    work.write("bad/deep.jsonl", format!("{{\"id\": \"a\", \"text\": {}\"ZEBRANOTE\"}}\n", "[".repeat(300)));
}

struct Told {
    what: String,
    text: String,
}

/// Runs a command as loud as it can be, with keys in its environment and a place of its own for temporaries.
fn run(work: &Work, what: &str, mut command: Command, told: &mut Vec<Told>) -> Option<i32> {
    std::fs::create_dir_all(work.path("tmp")).unwrap();
    command
        .arg("-vv")
        .env("HF_TOKEN", "hf_ZEBRATOKEN")
        .env("OPENAI_API_KEY", "sk-ZEBRAKEY")
        .env("RUST_BACKTRACE", "full");
    command.env("TMPDIR", work.path("tmp")).env("RUST_LOG", "trace");
    let outcome = common::outcome(&mut command);
    for (stream, text) in [("stdout", outcome.stdout), ("stderr", outcome.stderr)] {
        told.push(Told { what: format!("{what}: {stream}"), text });
    }
    outcome.code
}

#[test]
fn words_of_records_and_keys_are_found_where_they_may_be_alone() {
    let work = Work::new(8);
    plant(&work);
    let mut told = Vec::new();
    let demo = ["--config", "demo.toml", "--run", "run"];
    let fine: [(&str, &[&str]); 9] = [
        (
            "construct",
            &[
                "construct",
                "--set",
                "construct.splits=[\"train\",\"dev\",\"test\"]",
                "--set",
                "construct.on_fail=rationalize",
            ],
        ),
        ("train", &["train", "--set", "train.objective=joint", "--set", "data.train=data/train.jsonl"]),
        ("resume", &["train", "--resume", "--set", "train.objective=joint", "--set", "train.max_steps=3"]),
        (
            "eval",
            &[
                "eval",
                "--set",
                "eval.judge=model",
                "--baselines",
                "verbalized,label,self_consistency,token_probability",
                "--runs",
                "1",
                "--compare-base",
                "--curve",
            ],
        ),
        ("eval dev", &["eval", "--split", "dev"]),
        ("plan", &["train", "--resume", "--dry-run", "--set", "train.objective=joint"]),
        (
            "dry predict",
            &["predict", "--dry-run", "--model", "run", "--input", "data/new.jsonl", "--output", "answers/o.jsonl"],
        ),
        ("predict", &["predict", "--model", "run", "--input", "data/new.jsonl", "--output", "answers/out.jsonl"]),
        ("files", &["eval", "--predictions", "answers/scored.jsonl", "--json"]),
    ];
    std::fs::create_dir_all(work.path("answers")).unwrap();
    // Whatever the model writes, the word stands in these answers.
    let answer = |i: usize| {
        json!({"id": i.to_string(), "label": i % 2, "probability": 0.1 * i as f64, "verbalized_label": i % 2,
            "explanation": "ZEBRAWHY because", "text": "ZEBRAWHY because\n\nClassification: 1"})
        .to_string()
            + "\n"
    };
    work.write("answers/scored.jsonl", (0..8).map(answer).collect::<String>());
    for (what, args) in fine {
        let command = work.command(&[args, &demo].concat());
        assert_eq!(run(&work, what, command, &mut told), Some(0), "{what}: {}", told.last().unwrap().text);
    }
    let mut failed = 0;
    for path in work.files("bad") {
        let set = format!("data.train={path}");
        let commands: [&[&str]; 4] = [
            &["train", "--run", "bad-run", "--config", "demo.toml", "--set", &set],
            &["construct", "--run", "bad-run", "--config", "demo.toml", "--set", &set],
            &["predict", "--model", "run", "--input", &path, "--output", "-", "--no-explanation", "--strict"],
            &["eval", "--predictions", &path, "--run", "bad-run"],
        ];
        for args in commands {
            let code = run(&work, &format!("{} {path}", args[0]), work.command(args), &mut told);
            assert!(code.is_some_and(|code| code < 128), "{args:?}: {code:?} {}", told.last().unwrap().text);
            failed += usize::from(code != Some(0));
        }
        // Lines with errors, not the end of all.
        let command =
            work.command(&["predict", "--model", "run", "--input", &path, "--output", "-", "--no-explanation"]);
        run(&work, &format!("predict {path}"), command, &mut told);
    }
    assert!(failed > 40, "{failed}");
    // The machine fails, and so does the program.
    for (point, panics) in
        [("log.append", true), ("file.write", true), ("dir.write", true), ("train.step", true), ("train.step", false)]
    {
        let train = ["train", "--run", "ended", "--config", "demo.toml", "--set", "train.objective=joint"];
        let predict = [
            "predict",
            "--model",
            "run",
            "--input",
            "data/new.jsonl",
            "--output",
            "answers/ended.jsonl",
            "--overwrite",
        ];
        for args in [&train[..], &predict] {
            let mut command = work.command(args);
            command.env("CLSGEN_FAULT", point);
            if panics {
                command.env("CLSGEN_PANIC", "1");
            }
            run(&work, &format!("{point} in {}", args[0]), command, &mut told);
        }
        let _ = std::fs::remove_dir_all(work.path("ended"));
    }
    // A server that nobody may ask, and one that is not there.
    for allowed in [&[][..], &["--allow-network"]] {
        let ask = [
            "construct",
            "--run",
            "asked",
            "--config",
            "demo.toml",
            "--set",
            "construct.teacher=http://127.0.0.1:9/v1",
            "--set",
            "construct.teacher_name=x",
            "--set",
            "remote.retries=0",
            "--set",
            "construct.teacher_tokenizer=model",
        ];
        let code = run(&work, "a server", work.command(&[&ask[..], allowed].concat()), &mut told);
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
    }

    let mut looked = 0;
    let mut wrong = Vec::new();
    for Told { what, text } in &told {
        looked += 1;
        // What stdout is asked to hold.
        let answers = what.starts_with("predict") && what.ends_with("stdout");
        for (word, _) in WORDS.iter().filter(|_| !answers) {
            if text.contains(word) {
                let line = text.lines().find(|line| line.contains(word)).unwrap_or_default();
                wrong.push(format!("{what}: {}", line.chars().take(300).collect::<String>()));
            }
        }
    }
    let mut held = 0;
    walk(&work.path(""), &mut |path| {
        let name = path.strip_prefix(work.path("")).unwrap().display().to_string();
        if !path.is_file() || ["data/", "bad/", "model/"].iter().any(|own| name.starts_with(own)) {
            return;
        }
        looked += 1;
        let bytes = std::fs::read(path).unwrap();
        for (word, places) in WORDS {
            let found = bytes.windows(word.len()).any(|part| part == word.as_bytes());
            held += usize::from(found);
            let allowed = places.iter().any(|place| name.contains(place));
            if found && !allowed {
                wrong.push(format!("{name} holds {word}"));
            }
        }
    });
    assert!(std::fs::read_dir(work.path("tmp")).unwrap().next().is_none(), "something is left in TMPDIR");
    common::say(&format!(
        "canaries: {looked} outputs and files, {} commands, {held} held where they may be, {} elsewhere",
        told.len() / 2,
        wrong.len()
    ));
    assert!(wrong.is_empty() && held > 0, "\n{}", wrong.join("\n"));
}

#[test]
fn no_command_connects_to_anything_unless_it_may() {
    if !has_strace() {
        return;
    }
    let work = Work::new(8);
    let demo = ["--config", "demo.toml", "--run", "run"];
    let server = [
        "--set",
        "eval.judge=http://127.0.0.1:9/v1",
        "--set",
        "eval.judge_name=x",
        "--set",
        "eval.judge_tokenizer=model",
    ];
    let hub = ["--set", "model.base=org/model"];
    let mut commands = 0;
    for args in [
        &[&["construct", "--set", "construct.splits=[\"dev\"]"][..], &demo].concat(),
        &[&["train"][..], &demo].concat(),
        &[&["eval"][..], &demo].concat(),
        &[&["eval"][..], &demo, &server].concat(),
        &[&["train"][..], &["--config", "demo.toml", "--run", "other"], &hub].concat(),
        &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "-"].to_vec(),
        &["selftest"].to_vec(),
    ] {
        let log = work.path("strace.log");
        let wrapper = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", "trace=connect,socket,sendto"];
        let mut command = work.under(&wrapper, args);
        command.env("HF_TOKEN", "hf_ZEBRATOKEN").env("HF_HOME", work.path("hub"));
        let told = common::outcome(&mut command);
        let log = std::fs::read_to_string(&log).unwrap();
        let calls: Vec<&str> =
            log.lines().filter(|line| line.contains("connect(") || line.contains("socket(")).collect();
        assert!(calls.is_empty(), "{args:?}: {calls:#?}\n{told:?}");
        commands += 1;
    }
    common::say(&format!("network: {commands} commands, 0 connects"));
}
