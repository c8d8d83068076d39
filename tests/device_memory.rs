//! Memory and disk that do not suffice, through the program: each command under `ulimit -v` ends with 0 or with 5,
//! whatever the limit.

mod common;

use common::{Scratch, in_scratch};

/// MB of address space: from where the program starts to where every command ends well.
const LIMITS: [u64; 10] = [32, 34, 38, 46, 54, 62, 74, 90, 110, 700];

/// A scratch directory with a model, notes, a config, and a checkpoint of one step.
struct Work(Scratch);

in_scratch!(Work);

impl Work {
    fn new() -> Self {
        let work = Self(Scratch::new());
        common::write_demo(&work.path(""), &["train", "dev", "test"], 4, 0.5);
        work
    }

    /// The program under a limit of so many MB.
    fn run(&self, megabytes: Option<u64>, arguments: &[&str]) -> common::Outcome {
        let limit = megabytes.map_or_else(|| "unlimited".into(), |megabytes| (megabytes * 1000).to_string());
        let program = common::clsgen();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("ulimit -c 0; ulimit -v {limit}; exec \"$@\""), "sh"]).arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        common::outcome(command.args(arguments).args(["--threads", "2"]).current_dir(self.path("")))
    }

    fn remove(&self, name: &str) {
        let _ = std::fs::remove_dir_all(self.path(name));
    }
}

/// Asserts 0, or 5 with an error that speaks of memory and a hint; gives the code.
#[track_caller]
fn ends_well(told: &common::Outcome, what: &str) -> i32 {
    let code = told.code.unwrap_or(-1);
    assert!([0, 5].contains(&code), "{what}: {told:?}");
    if code == 5 {
        let spoken = ["memory", "cannot start 2 threads"].iter().any(|word| told.stderr.contains(word));
        assert!(spoken && told.stderr.contains("error: ") && told.stderr.contains("hint: "), "{what}: {told:?}");
    }
    code
}

const TRAIN: &[&str] =
    &["train", "--config", "demo.toml", "--set", "train.max_steps=1", "--set", "train.objective=\"cls\""];

#[test]
fn every_command_ends_with_0_or_5_under_any_limit() {
    let work = Work::new();
    let short = [
        "--set",
        "model.max_output_tokens=24",
        "--set",
        "construct.max_output_tokens=24",
        "--set",
        "construct.trials=1",
    ];
    let trained = work.run(None, &[TRAIN, &["--run", "run"], &short].concat());
    assert_eq!(trained.code, Some(0), "{trained:?}");
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "o.jsonl", "--overwrite"];
    let construct = ["construct", "--config", "demo.toml", "--run", "constructed"];
    let eval = ["eval", "--config", "demo.toml", "--run", "run", "--compare-base", "--set", "eval.bootstrap=10"];
    let baselines = ["--baselines", "label", "--runs", "1", "--set", "eval.judge=\"model\""];
    let eval_all = [&eval[..], &baselines].concat();
    // Of each command what it makes, which is taken away before the next limit.
    let commands: [(&[&str], &str); 4] = [
        (&predict, ""),
        (&construct, "constructed"),
        (&eval_all, "run/eval"),
        (&[TRAIN, &["--run", "again"]].concat(), "again"),
    ];
    for (arguments, made) in commands {
        let mut codes = Vec::new();
        for limit in LIMITS {
            // Below what the dynamic loader needs, the program is not reached.
            if work.run(Some(limit), &["--version"]).code != Some(0) {
                continue;
            }
            if !made.is_empty() {
                work.remove(made);
            }
            let told = work.run(Some(limit), &[arguments, &short].concat());
            codes.push(ends_well(&told, &format!("{} under {limit} MB", arguments[0])));
        }
        assert!(codes.first() == Some(&5) && codes.last() == Some(&0), "{}: {codes:?}", arguments[0]);
        // What memory ended is gone on with.
        let told = work.run(None, &[arguments, &short].concat());
        let done = told.code == Some(0) || told.stderr.contains("holds a training run already");
        assert!(done, "{}: {told:?}", arguments[0]);
    }
}

/// Said within seconds, before the weights are read: what is needed, what is free, what would fit.
#[test]
fn what_cannot_fit_is_refused_before_loading_by_every_command() {
    let work = Work::new();
    let trained = work.run(None, &[TRAIN, &["--run", "run"]].concat());
    assert_eq!(trained.code, Some(0), "{trained:?}");
    // As another tool leaves a checkpoint: nothing says at which window its run was scored.
    std::fs::remove_file(work.path("run/train.json")).unwrap();
    // A window whose keys and values 4 GB do not hold.
    let long = ["--set", "model.max_input_tokens=10000000", "--set", "model.allow_long=true"];
    let construct_long = ["--set", "construct.max_input_tokens=10000000", "--set", "model.allow_long=true"];
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "o.jsonl"];
    let eval = ["eval", "--config", "demo.toml", "--run", "run", "--set", "eval.bootstrap=10"];
    let construct = ["construct", "--config", "demo.toml", "--run", "constructed"];
    let cases: [(Vec<&str>, &str); 3] = [
        ([&predict[..], &long].concat(), "--set model.max_input_tokens="),
        ([&eval[..], &long].concat(), "--set model.max_input_tokens="),
        ([&construct[..], &construct_long].concat(), "--set construct.max_input_tokens="),
    ];
    for (arguments, hint) in cases {
        let told = work.run(Some(4000), &arguments);
        common::assert_fails(
            &told,
            5,
            &["not enough memory: ", "of weights) with a prompt of 10000000 tokens needs", "is free", hint],
        );
    }
    assert!(!work.path("o.jsonl").exists());
    // The tokens that the hint says would fit do.
    let told = work.run(Some(4000), &[&predict[..], &long].concat());
    let fits = told.stderr.split("model.max_input_tokens=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let fits: u64 = fits.parse().unwrap();
    let set = format!("model.max_input_tokens={}", fits / 2);
    let told = work.run(
        Some(4000),
        &[&predict[..], &["--set", &set, "--set", "model.allow_long=true", "--no-explanation"]].concat(),
    );
    assert_eq!(told.code, Some(0), "{told:?}");
}

/// The same with a model whose weights are most of what there is.
#[test]
fn smollm2_ends_with_0_or_5_under_any_limit() {
    let Some(model) = common::smollm2() else { return };
    let work = Work::new();
    let model = format!("{:?}", model.to_str().unwrap());
    let teacher = format!("construct.teacher={model}");
    let base = format!("model.base={model}");
    let short = [
        "--set",
        "construct.max_output_tokens=16",
        "--set",
        "construct.trials=1",
        "--set",
        "model.max_output_tokens=16",
    ];
    let construct = ["construct", "--config", "demo.toml", "--run", "constructed", "--set", &teacher];
    let train = [TRAIN, &["--run", "again", "--set", &base, "--set", "model.dtype=\"bf16\""]].concat();
    for limit in [100, 200, 400, 500, 600, 700, 800, 900] {
        for (arguments, made) in [(&construct[..], "constructed"), (&train, "again")] {
            work.remove(made);
            ends_well(
                &work.run(Some(limit), &[arguments, &short].concat()),
                &format!("{} under {limit} MB", arguments[0]),
            );
        }
        if limit < 500 {
            let selftest = ["selftest", "--model", model.trim_matches('"')];
            assert_eq!(ends_well(&work.run(Some(limit), &selftest), "selftest"), 5);
        }
    }
    work.remove("constructed");
    assert_eq!(ends_well(&work.run(Some(1400), &[&construct[..], &short].concat()), "construct under 1400 MB"), 0);
}

/// A disk on which the explanations cannot be written is found before the first is asked for; one that fills up ends
/// with 5 too.
#[test]
fn construct_looks_at_the_disk_first() {
    let work = Work::new();
    let place = work.path("disk");
    let Some(mount) = common::Mount::tmpfs(&place, "size=64k") else { return };
    let construct = ["construct", "--config", "demo.toml", "--run", "disk/run"];
    let many = ["--set", "construct.max_output_tokens=20000", "--set", "model.allow_long=true"];
    std::fs::write(place.join("filler"), vec![0; 24 << 10]).unwrap();
    let told = work.run(None, &[&construct[..], &many].concat());
    common::assert_fails(&told, 5, &["No space left on device", " needed, ", " free", "hint: free some space"]);
    let log = std::fs::read_to_string(place.join("run/construct/train.progress.jsonl")).unwrap_or_default();
    assert!(log.lines().count() <= 1, "nothing was asked: {log}");
    drop(mount);
}
