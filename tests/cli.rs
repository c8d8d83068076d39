//! The command line as users meet it: help, errors with their exit codes and hints, the resolved config.
//!
//! `tests/cli/*.trycmd` are snapshots; after a wanted change run `TRYCMD=overwrite cargo test --release --test cli`.

mod common;

use std::path::Path;

use common::{assert_fails, run};

#[test]
fn snapshots() {
    let cases = trycmd::TestCases::new();
    cases.env("COLUMNS", "100").env("NO_COLOR", "1").case("tests/cli/*.trycmd");
}

const COMMANDS: [&str; 8] = ["demo", "construct", "train", "eval", "predict", "selftest", "completions", "man"];

#[test]
fn help_names_every_command_and_every_global_flag() {
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in COMMANDS {
        assert!(help.stdout.contains(&format!("\n  {command}")), "{command}");
        assert_eq!(run(&[command, "--help"]).code, Some(0), "{command}");
    }
    let flags = [
        "--config",
        "--set",
        "--run",
        "--device",
        "--threads",
        "--seed",
        "--shard",
        "--json",
        "--quiet",
        "--verbose",
        "--dry-run",
        "--allow-network",
    ];
    for flag in flags {
        assert!(help.stdout.contains(flag), "{flag}");
    }
}

#[test]
fn nothing_and_nonsense_are_usage_errors() {
    assert_eq!(run::<&str>(&[]).code, Some(2));
    assert_fails(&run(&["trian"]), 2, &["unrecognized subcommand 'trian'", "'train'"]);
    assert_fails(&run(&["train", "--resum"]), 2, &["--resume"]);
    assert_fails(&run(&["train", "--device", "gpu"]), 2, &["use auto, cpu, cuda or cuda:N"]);
    assert_fails(&run(&["train", "--threads", "0"]), 2, &["--threads"]);
    assert_fails(&run(&["train", "--seed=-1"]), 2, &["--seed"]);
    assert_fails(&run(&["train", "--quiet", "-v"]), 2, &["cannot be used with"]);
    assert_fails(&run(&["predict"]), 2, &["--model", "--input", "--output"]);
    assert_fails(&run(&["eval", "--paper", "table9"]), 2, &["table9", "table1"]);
    assert_fails(&run(&["eval", "--dev-predictions", "x"]), 2, &["--predictions"]);
}

#[test]
fn a_config_that_is_not_there_or_not_text_is_exit_2_with_a_hint() {
    assert_fails(
        &run(&["train", "--config", "no/such.toml"]),
        2,
        &["error: cannot read config no/such.toml: No such file", "hint: "],
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, b"[task]\nname = \"\xff\"\n").unwrap();
    assert_fails(&run(&["train", "--config", path.to_str().unwrap()]), 2, &["c.toml:2: not UTF-8"]);
}

#[test]
fn every_config_problem_is_told_at_once_whatever_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "[lora]\nrnk = 8\n[train]\nepochs = 0\nlearning_rate = \"fast\"\n").unwrap();
    for command in ["construct", "train", "eval", "demo", "selftest"] {
        let told = run(&[command, "--config", path.to_str().unwrap(), "--set", "lora.dropout=2"]);
        let texts = [
            "4 problems",
            "c.toml:2: ",
            "did you mean lora.rank?",
            "c.toml:4: ",
            "c.toml:5: ",
            "--set lora.dropout=2: ",
            "\nhint: ",
        ];
        assert_fails(&told, 2, &texts);
        assert_eq!(told.stdout, "");
    }
}

#[test]
fn a_dry_run_prints_a_config_that_reads_back_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let sets = ["--set", "task.name=x", "--set", "lora.rank=3", "--seed", "9", "--run", run_dir.to_str().unwrap()];
    let first = run(&[&["train", "--dry-run"], &sets[..]].concat());
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(
        first.stdout.contains("rank = 3\n")
            && first.stdout.contains("seed = 9\n")
            && first.stdout.contains("name = \"x\"\n")
    );
    assert!(!run_dir.exists());

    let saved = dir.path().join("resolved.toml");
    std::fs::write(&saved, &first.stdout).unwrap();
    assert_eq!(run(&["train", "--dry-run", "--config", saved.to_str().unwrap()]).stdout, first.stdout);

    let json = run(&[&["train", "--dry-run", "--json"], &sets[..]].concat());
    let config: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&config["lora"]["rank"], &config["train"]["seed"]), (&3.into(), &9.into()));
}

#[test]
fn every_shipped_config_is_accepted() {
    let configs = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")).unwrap();
    let configs = configs.map(|entry| entry.unwrap().path());
    for path in configs.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        // What line 1 leaves to the user is named.
        let named = ["--set", "model.base=no-such-model", "--set", "data.train=no-such.jsonl"];
        let told = run(&[&["train", "--dry-run", "--config", path.to_str().unwrap()], &named[..]].concat());
        // The config is accepted and printed; what its run would read is not here.
        assert!(told.code != Some(2) && told.stdout.contains("[train]\n"), "{}: {}", path.display(), told.stderr);
        let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with("# clsgen "), "{}: line 1 is the command that runs it", path.display());
    }
}

/// The build with CUDA has tests/cuda.rs.
#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_asked_for_and_not_built_in_is_exit_5() {
    let told = run(&["selftest", "--device", "cuda:7"]);
    assert_fails(&told, 5, &["this build of clsgen has no CUDA support", "hint: use --device cpu", "--features cuda"]);
}

#[test]
fn the_self_test_passes_here_in_words_and_in_json() {
    let told = run(&["selftest", "--device", "cpu"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.lines().count() > 30 && !told.stdout.contains("MISS"), "{}", told.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&run(&["selftest", "--device", "cpu", "--json", "--quiet"]).stdout).unwrap();
    assert_eq!(json["ok"], true);
    // The device is the one that was used, by its own name.
    let json: serde_json::Value =
        serde_json::from_str(&run(&["selftest", "--only", "rope", "--json", "--quiet"]).stdout).unwrap();
    assert!(json["device"] == "cpu" || json["device"] == "cuda:0", "{json}");
}

#[test]
fn the_self_test_of_some_operations_is_those_rows_alone() {
    let ops = |flags: &[&str]| {
        let told = run(&[&["selftest", "--device", "cpu", "--json", "--quiet"], flags].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        let json: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        let names: Vec<String> =
            json["rows"].as_array().unwrap().iter().map(|row| row["op"].as_str().unwrap().to_owned()).collect();
        names
    };
    for flags in [&["--only", "rope,linear"][..], &["--only", "rope", "--only", "linear"]] {
        let ops = ops(flags);
        assert!(["rope", "linear"].iter().all(|op| ops.iter().any(|name| name.starts_with(op))), "{ops:?}");
        assert!(ops.iter().all(|name| name.starts_with("rope") || name.starts_with("linear")), "{ops:?}");
    }
    assert!(ops(&["--only", "training"]).iter().all(|name| name == "tiny Llama"));
    // What was asked for is checked, or said not to be.
    let told = run(&["selftest", "--device", "cpu", "--only", "rope,attention_long"]);
    assert_fails(&told, 2, &["cpu has no check of attention_long"]);
    let told = run(&["selftest", "--device", "cpu", "--only", "rope", "--model", "nowhere"]);
    assert_fails(&told, 2, &["--model is a training pass", "hint: add training to --only"]);
    assert_fails(&run(&["selftest", "--only", "softmax"]), 2, &["softmax", "rms_norm", "training"]);
}

#[test]
fn completions_and_the_manual_page_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""));
        assert!(COMMANDS.iter().all(|command| script.stdout.contains(command)), "{shell}");
    }
    let page = run(&["man"]);
    assert!(page.stdout.contains(".TH clsgen 1"), "{}", &page.stdout[..200.min(page.stdout.len())]);
    for command in COMMANDS {
        assert!(page.stdout.contains(&format!("CLSGEN {}", command.to_uppercase())), "{command}");
    }
    for flag in ["no\\-explanation", "compare\\-base", "resume", "gate"] {
        assert!(page.stdout.contains(flag), "{flag}");
    }
}
