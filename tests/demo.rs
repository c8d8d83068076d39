//! `clsgen demo` as a stranger runs it, on few notes: what it prints, what it leaves, and that it can be given again.

mod common;

use std::{os::unix::fs::PermissionsExt, path::Path};

use common::{assert_fails, run};
use serde_json::Value;

fn demo(dir: &Path, more: &[&str]) -> common::Outcome {
    let mut args =
        vec!["demo", "--out", dir.to_str().unwrap(), "--set", "train.epochs=1", "--set", "eval.bootstrap=200"];
    args.extend(more);
    run(&args)
}

fn each_file(dir: &Path, check: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { each_file(&path, check) } else { check(&path) }
    }
}

#[test]
fn the_whole_method_runs_leaves_its_files_and_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    let told = demo(&dir, &["--notes", "48"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    for text in [
        "AUROC",
        "Parsable",
        "AUROC-Align",
        "κ (head, text)",
        "Before tuning",
        "Best reachable",
        "probability of death",
        "eval/test/report.html",
    ] {
        assert!(told.stdout.contains(text), "stdout lacks {text:?}: {}", told.stdout);
    }
    let first = told.stdout;
    for name in [
        "demo.toml",
        "data/train.jsonl",
        "data/risk.jsonl",
        "model/config.json",
        "construct/train.jsonl",
        "best.json",
        "eval/test/metrics.json",
        "predictions.jsonl",
        "run.json",
    ] {
        assert!(dir.join(name).is_file(), "{name}");
    }
    each_file(&dir, &mut |path| {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    });
    // No word of a note on stderr: every note has this section.
    assert!(!told.stderr.contains("Chief Complaint"), "{}", told.stderr);

    let metrics = std::fs::read(dir.join("eval/test/metrics.json")).unwrap();
    let predictions = std::fs::read(dir.join("predictions.jsonl")).unwrap();
    let again = demo(&dir, &["--notes", "48", "--json"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(std::fs::read(dir.join("eval/test/metrics.json")).unwrap(), metrics);
    assert_eq!(std::fs::read(dir.join("predictions.jsonl")).unwrap(), predictions);
    let json: Value = serde_json::from_str(&again.stdout).expect("one document");
    assert_eq!(json["after"]["n"], 12);
    assert!(json["reachable"]["auroc"]["value"].is_number() && json["before"]["auroc"]["n"] == 12, "{json}");

    // The directory is a worked example: the command it ends with, which help prints too, trains by hand.
    assert!(!first.contains(" minutes") && first.contains(" s. In "), "{first}");
    let advice = first.lines().find_map(|line| line.strip_prefix("Train on them by hand: clsgen ")).unwrap();
    assert_eq!(
        advice,
        format!("train --config {}/demo.toml --run runs/mine --set data.train=construct/train.jsonl", dir.display())
    );
    let help = run(&["demo", "--help"]).stdout;
    assert!(
        help.contains("clsgen train --config DIR/demo.toml --run runs/mine")
            && help.contains("--set data.train=construct/train.jsonl")
    );
    let mine = |more: &[&str]| {
        let args: Vec<&str> =
            advice.split(' ').chain(["--set", "train.max_steps=1"]).chain(more.iter().copied()).collect();
        common::outcome(common::clsgen().current_dir(root.path()).args(args))
    };
    let planned = mine(&["--dry-run"]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.stdout.contains("# run directory: runs/mine") && !root.path().join("runs").exists(), "{planned:?}");
    let told = mine(&[]);
    assert_eq!(told.code, Some(0), "{told:?}");

    // Another demonstration does not go into the same directory.
    assert_fails(&demo(&dir, &["--notes", "60"]), 2, &["other settings", "hint: choose another directory with --out"]);
    assert_fails(
        &demo(&dir, &["--notes", "48", "--objective", "cls"]),
        2,
        &["demo.toml belongs to a demonstration with other settings"],
    );
}

#[test]
fn a_dry_run_makes_nothing_and_prints_config_and_plan() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    for more in [&["--notes", "48"][..], &["--objective", "cls"]] {
        let told = demo(&dir, &[more, &["--dry-run"]].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(
            told.stdout.contains("[train]\n")
                && told.stdout.contains("# run directory: ")
                && told.stdout.contains("# synthetic notes: ")
        );
    }
    let told = demo(&dir, &["--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&json["dry_run"]["command"], &json["train"]["epochs"]), (&"demo".into(), &1.into()));
    let pretrain = root.path().join("base");
    let pretrain = ["demo", "--dry-run", "--pretrain", pretrain.to_str().unwrap()];
    for (flags, seed) in [(&[][..], 7), (&["--seed", "3"], 3), (&["--set", "train.seed=5"], 5)] {
        let told = run(&[&pretrain[..], &["--json"], flags].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        assert_eq!(serde_json::from_str::<Value>(&told.stdout).unwrap()["train"]["seed"], seed);
    }
    let told = run(&[&pretrain[..], &["--config", "configs/demo.toml"]].concat());
    assert_fails(&told, 2, &["--pretrain brings its own config"]);
    assert_fails(&demo(&dir, &["--dry-run", "--notes", "10"]), 2, &["--notes 10"]);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    assert_fails(&demo(&dir, &["--notes", "10"]), 2, &["--notes 10", "hint: "]);
    assert_fails(&demo(&dir, &["--config", "configs/demo.toml"]), 2, &["brings its own config", "hint: "]);
    assert_fails(&demo(&dir, &["--objective", "both"]), 2, &["joint, cls, lm"]);
    assert!(!dir.exists());
}

/// The hint of an interrupted demonstration is what works: it has no `--resume`.
#[test]
fn an_interrupted_demonstration_says_what_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    let mut command = common::clsgen();
    command
        .args(["demo", "--notes", "40", "--set", "train.epochs=1", "--set", "eval.bootstrap=200", "--out"])
        .arg(&dir);
    let log = dir.join("metrics.jsonl");
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    common::wait_for_lines(&mut child, &log, 1);
    common::send("INT", &child);
    let told = common::end_of(child);
    let stderr = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains("hint: the same `clsgen demo` command goes on") && !stderr.contains("--resume"),
        "{stderr}"
    );
    let again = common::outcome(&mut command);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("AUROC"), "{again:?}");
}

/// A file of the user's under a name of the demonstration's is left alone, and so is all beside it; a folder behind a
/// link too.
#[test]
fn a_demonstration_replaces_no_file_of_the_users() {
    let pretrain = ["demo", "--notes", "40", "--pretrain"];
    let plain = ["demo", "--notes", "40", "--out"];
    for (args, name) in [
        (plain, "model/model.safetensors"),
        (plain, "model/config.json"),
        (plain, "model/tokenizer.json"),
        (plain, "model/tokenizer_config.json"),
        (plain, "model/generation_config.json"),
        (plain, "prompts/lcd30.toml"),
        (plain, "data/risk.jsonl"),
        (pretrain, "corpus.jsonl"),
        (pretrain, "pretrain.toml"),
        (pretrain, "prompts/demo-pretrain.toml"),
        (pretrain, "base/config.json"),
        (pretrain, "base/tokenizer.json"),
        (pretrain, "model/config.json"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        let file = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mine = root.path().join("mine");
        std::fs::create_dir(&mine).unwrap();
        if file.parent() != Some(&dir) {
            std::os::unix::fs::symlink(&mine, file.parent().unwrap()).unwrap();
        }
        std::fs::write(&file, "mine").unwrap();
        let told = run(&[&args[..], &[dir.to_str().unwrap()]].concat());
        let named = if args == pretrain { name.trim_start_matches("model/config.json") } else { name };
        assert_fails(&told, 2, &[named, "hint: choose another directory"]);
        let mut files = Vec::new();
        each_file(root.path(), &mut |path| files.push(path.canonicalize().unwrap()));
        files.dedup();
        assert_eq!(files, [file.canonicalize().unwrap()], "{name}");
        assert_eq!(std::fs::read(&file).unwrap(), b"mine", "{name}");
    }
}

/// A user's file beside the weights is found before anything is trained, not removed with the earlier model.
#[test]
fn a_pretrained_model_is_replaced_only_where_it_is_all_of_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("d");
    let pretrain =
        |more: &[&str]| run(&[&["demo", "--notes", "2", "--pretrain", dir.to_str().unwrap()][..], more].concat());
    for _ in ["new", "again"] {
        let told = pretrain(&[]);
        assert_eq!(told.code, Some(0), "{told:?}");
    }
    let mine = dir.join("model/README.md");
    std::fs::write(&mine, "mine").unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let told = pretrain(more);
        assert_fails(&told, 2, &["model holds README.md, which demo --pretrain did not write", "hint: move that away"]);
        assert!(!told.stderr.contains("resuming"), "{told:?}");
    }
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
}
