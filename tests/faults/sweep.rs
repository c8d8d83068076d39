//! Each command killed at points spread over everything that it stores, and begun again: every byte is that of a run
//! that was left alone. `CLSGEN_KILLS` says at how many points (10).

use std::{collections::BTreeMap, path::PathBuf};

use crate::{common, work::Work};

/// Storage operations that are spread over: all but the last few.
const BETWEEN: usize = 16;

/// Short texts, and a training of eight steps with all that is random in it.
const SETTINGS: [&str; 10] = [
    "model.max_output_tokens=24",
    "construct.max_output_tokens=48",
    "construct.trials=2",
    "construct.on_fail=rationalize",
    "eval.bootstrap=200",
    "eval.judge=model",
    "lora.dropout=0.1",
    "train.epochs=2",
    "train.batch_size=2",
    "train.save_every_steps=1",
];

fn kills() -> usize {
    std::env::var("CLSGEN_KILLS").map_or(10, |number| number.parse().unwrap())
}

/// A command that goes on where it was killed.
struct Sweep<'a> {
    work: &'a Work,
    name: &'static str,
    /// What it begins with is a copy of this folder, if any.
    from: Option<&'static str>,
    /// With `FOLDER` where it writes to.
    args: Vec<&'a str>,
    /// Beside them where it goes on.
    again: &'a [&'a str],
    /// Files that tell the time.
    but_for: &'a [&'a str],
}

impl Sweep<'_> {
    fn begin(&self, folder: &str) {
        let _ = std::fs::remove_dir_all(self.work.path(folder));
        match self.from {
            Some(from) => common::copy(&self.work.path(from), &self.work.path(folder)),
            None => std::fs::create_dir(self.work.path(folder)).unwrap(),
        }
    }

    /// Runs it in `folder`; with a point, it is killed there, unless it ends before. Says whether it was.
    fn run(&self, folder: &str, point: Option<usize>) -> bool {
        let args: Vec<String> = self.args.iter().map(|arg| arg.replace("FOLDER", folder)).collect();
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        if point.is_none() && folder == "killed" {
            args.extend(self.again);
        }
        let mut command = common::clsgen();
        command.current_dir(self.work.path("")).args(args).args(["--config", "demo.toml"]);
        SETTINGS.iter().for_each(|set| _ = command.args(["--set", set]));
        if let Some(point) = point {
            command.env("CLSGEN_FAULT", format!("any:{point}"));
        }
        let told = common::outcome(&mut command);
        assert!(told.code == Some(0) || point.is_some() && told.code.is_none(), "{} {point:?}: {told:?}", self.name);
        told.code.is_none()
    }

    fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = common::files(&self.work.path(folder), self.but_for);
        // How long a step took is not the same twice.
        files.retain(|name, _| !name.starts_with("tensorboard"));
        files
    }

    /// The last of the points, or one of the few before it.
    fn last(&self) -> usize {
        let killed = |point| {
            self.begin("tried");
            self.run("tried", Some(point))
        };
        let mut beyond = BETWEEN;
        while killed(beyond) {
            beyond *= 2;
        }
        let mut last = beyond / 2;
        while beyond - last > BETWEEN {
            let middle = last.midpoint(beyond);
            if killed(middle) { last = middle } else { beyond = middle }
        }
        last
    }

    fn sweep(&self) {
        self.begin("whole");
        self.run("whole", None);
        let whole = self.files("whole");
        let last = self.last();
        let kills = kills();
        for kill in 1..=kills {
            let point = (last * kill).div_ceil(kills);
            self.begin("killed");
            assert!(self.run("killed", Some(point)), "{} ended before point {point} of {last}", self.name);
            self.run("killed", None);
            let killed = self.files("killed");
            assert_eq!(common::differing(&whole, &killed), Vec::<&PathBuf>::new(), "{} at point {point}", self.name);
        }
        let files = whole.len();
        common::say(&format!(
            "kill sweep: {kills} points of {last} of {}, {kills} identical, {files} files",
            self.name
        ));
    }
}

#[test]
fn a_command_killed_anywhere_leaves_what_it_would_have_left() {
    let work = Work::trained(6);
    let baselines = ["--baselines", "label,verbalized,token_probability", "--runs", "2", "--compare-base"];
    let eval = [&["eval", "--run", "FOLDER"], &baselines[..]].concat();
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "FOLDER/o.jsonl"];
    let sweep = |name, from, args: &[&'static str], again, but_for| {
        Sweep { work: &work, name, from, args: args.to_vec(), again, but_for }.sweep();
    };
    sweep("construct", None, &["construct", "--run", "FOLDER"], &[], &["run.json", ".lock"]);
    let explained = work.text("data/train.jsonl").replace("\"label\":", "\"explanation\": \"A note.\", \"label\":");
    work.write("explained.jsonl", explained);
    let train = ["train", "--run", "FOLDER", "--set", "data.train=explained.jsonl"];
    sweep("train", None, &train, &["--resume"], &["run.json", "metrics.jsonl", ".lock"]);
    sweep("predict", None, &predict, &[], &["o.jsonl.meta.json"]);
    sweep("eval", Some("run"), &eval, &[], &["run.json", "report.html", ".lock"]);
}
