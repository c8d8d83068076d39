//! Numbers that are none stop a training run; the others are the same whatever the machine's settings are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::work::Work;
use crate::common::{self, assert_fails};

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint() {
    let work = Work::new(8);
    let train = ["train", "--config", "demo.toml", "--set", "train.save_every_steps=1", "--set", "train.batch_size=2"];
    let more = ["--set", "train.grad_accumulation=1", "--set", "train.max_steps=3"];
    let run = |name: &'static str| [&train[..], &more, &["--run", name]].concat();
    let mut spoiled = work.command(&run("run"));
    // The last `--set` of a key counts.
    spoiled.args(more).env("CLSGEN_FAULT", "train.loss:3");
    let told = common::outcome(&mut spoiled);
    let record: Value = work.json("run/run.json");
    assert_eq!((told.code, &record["exit_code"]), (Some(1), &Value::from(1)), "{told:?}");
    assert_fails(&told, 1, &["error: train records ", ": the loss of step 3 is NaN", "hint: ", "--resume"]);
    // Which ones: those of the third step of the order that is saved.
    let state: Value = work.json("run/checkpoints/last/trainer.json");
    assert_eq!(state["step"], 2, "{state}");
    let order: Vec<u64> = state["data_order"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() + 1).collect();
    let named = format!("train records {}, {}: ", order[4], order[5]);
    assert!(told.stderr.contains(&named), "{named}: {}", told.stderr);
    let whole = clsgen::storage::verify_manifest(&work.path("run/checkpoints/last")).unwrap();
    assert!(whole && common::lines(&work.path("run/metrics.jsonl")) == 2);

    // From there on it is as if nothing had been.
    let mut resumed = work.command(&[&run("run")[..], &["--resume"]].concat());
    assert_eq!(common::outcome(resumed.args(more)).code, Some(0));
    let mut whole = work.command(&run("whole"));
    assert_eq!(common::outcome(whole.args(more)).code, Some(0));
    let adapter =
        |run: &str| std::fs::read(work.path(run).join("checkpoints/epoch-01/adapter_model.safetensors")).unwrap();
    assert!(adapter("run") == adapter("whole"));
}

/// What begins the program, its threads, its environment.
type Setting<'a> = (&'a [&'a str], &'a str, &'a [(&'a str, &'a str)]);

/// What a pipeline of all commands made, but for times: BLAKE3 of it all.
fn made(work: &Work) -> String {
    let mut hasher = blake3::Hasher::new();
    let timed = ["metrics.jsonl", "run.json", "report.html", ".lock", "manifest.json", "trainer.json"];
    for name in work.files("run") {
        let file = name.rsplit('/').next().unwrap();
        if !work.path(&name).is_file() || timed.contains(&file) || name.contains("tfevents") {
            continue;
        }
        let bytes = std::fs::read(work.path(&name)).unwrap();
        hasher.update(name.as_bytes()).update(&bytes);
    }
    let losses = work.text("run/metrics.jsonl");
    for line in losses.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for timed in ["seconds", "tokens_per_s", "mfu", "allreduce_seconds", "dev_seconds"] {
            line.as_object_mut().unwrap().remove(timed);
        }
        hasher.update(line.to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[test]
fn threads_clock_time_zone_and_language_change_no_byte() {
    let faketime = std::process::Command::new("faketime").args(["2031-02-03 04:05:06", "true"]).output();
    let faketime = faketime.is_ok_and(|output| output.status.success());
    if !faketime {
        common::skip("faketime is not here");
    }
    let clock: &[&str] = if faketime { &["faketime", "2031-02-03 04:05:06"] } else { &["env"] };
    let settings: [Setting<'_>; 8] = [
        (&["env"], "1", &[]),
        (&["env"], "2", &[]),
        (&["env"], "4", &[]),
        (&["env"], "2", &[("TZ", "Asia/Kathmandu")]),
        (&["env"], "2", &[("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8")]),
        (&["env"], "2", &[("LC_ALL", "de_DE.UTF-8"), ("LC_NUMERIC", "de_DE.UTF-8")]),
        (&["env"], "2", &[("LC_ALL", "C"), ("TZ", "America/St_Johns"), ("COLUMNS", "40"), ("NO_COLOR", "1")]),
        (clock, "2", &[]),
    ];
    let work = Work::new(8);
    let mut hashes = BTreeSet::new();
    for (wrapper, threads, environment) in settings {
        let demo = ["--config", "demo.toml", "--run", "run", "--threads", threads];
        for command in [
            &["construct", "--set", "construct.splits=[\"dev\"]"][..],
            &["train"],
            &["eval"],
            &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "run/out.jsonl"],
        ] {
            let mut command = work.under(wrapper, &[command, &demo].concat());
            let told = common::outcome(command.envs(environment.iter().copied()));
            assert_eq!(told.code, Some(0), "{wrapper:?} {threads} {environment:?}: {told:?}");
        }
        // Intervals by resampling are what a seed decides.
        let metrics: Value = work.json("run/eval/test/metrics.json");
        assert!(metrics["calibration"]["brier"]["ci95"].is_array(), "{}", metrics["calibration"]["brier"]);
        hashes.insert(made(&work));
        std::fs::remove_dir_all(work.path("run")).unwrap();
    }
    common::say(&format!("determinism: {} runs, {} hash", settings.len(), hashes.len()));
    assert_eq!(hashes.len(), 1, "{hashes:?}");
}
