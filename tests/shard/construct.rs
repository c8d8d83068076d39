//! `construct --shard` and `--merge`: several processes in one run directory, and the files that one would have made.

use std::process::{Child, Command, Stdio};

use clsgen::demo::notes::{NoteSettings, Notes};
use serde_json::Value;

use super::common::{self, Outcome, Scratch, assert_fails, in_scratch};

const TRAIN: u64 = 16;
const DEV: u64 = 4;
const FILES: [&str; 4] = ["train.jsonl", "dev.jsonl", "dropped.jsonl", "stats.json"];

/// A scratch directory with the embedded model, two splits and a config.
struct Work(Scratch);

in_scratch!(Work);

impl Work {
    fn new() -> Self {
        let work = Self(Scratch::new());
        common::write_demo(&work.path(""), &["train"], TRAIN, 0.4);
        let notes = Notes::new(3, NoteSettings { words: 120, prevalence: 0.4, typos: 0.0 });
        let notes = notes.range(TRAIN..TRAIN + DEV);
        let lines: String = notes.iter().map(|note| format!("{}\n", Value::Object(note.record.to_json()))).collect();
        std::fs::write(work.path("data/dev.jsonl"), lines).unwrap();
        work
    }

    /// `clsgen construct` of both splits into `run`: two short trials a record, two records at a time.
    fn command(&self, run: &str, args: &[&str]) -> Command {
        let mut command = common::clsgen();
        command.current_dir(self.path("")).args(["construct", "--config", "demo.toml", "--run", run]);
        for set in [
            "construct.trials=2",
            "construct.max_output_tokens=64",
            "construct.splits=[\"train\", \"dev\"]",
            "generate.batch_tokens=1200",
        ] {
            command.args(["--set", set]);
        }
        command.args(args);
        command
    }

    fn construct(&self, run: &str, args: &[&str]) -> Outcome {
        common::outcome(&mut self.command(run, args))
    }

    #[track_caller]
    fn succeed(&self, run: &str, args: &[&str]) -> Outcome {
        let outcome = self.construct(run, args);
        assert_eq!(outcome.code, Some(0), "{args:?} {outcome:?}");
        outcome
    }

    fn killed(&self, run: &str, args: &[&str], fault: &str) {
        let status = self.command(run, args).stderr(Stdio::null()).env("CLSGEN_FAULT", fault).status().unwrap();
        assert_eq!(status.code(), None, "{fault}");
    }

    fn start(&self, run: &str, args: &[&str]) -> Child {
        self.command(run, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn file(&self, run: &str, name: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("construct").join(name)).unwrap_or_else(|e| panic!("{run}, {name}: {e}"))
    }

    fn files(&self, run: &str) -> [Vec<u8>; 4] {
        FILES.map(|name| self.file(run, name))
    }
}

#[test]
fn merged_parts_are_what_one_process_writes() {
    let work = Work::new();
    let whole = work.succeed("whole", &[]);
    let files = work.files("whole");
    assert!(files.iter().all(|file| !file.is_empty()), "some records of each kind");
    // Seven processes at once: one of dev's parts at least is empty.
    let seven: Vec<String> = (1..=7).map(|part| format!("{part}/7")).collect();
    let children: Vec<Child> = seven.iter().map(|shard| work.start("seven", &["--shard", shard])).collect();
    for child in children {
        let told = common::end_of(child);
        assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    }
    work.succeed("two", &["--shard", "2/2"]);
    let told = work.succeed("two", &["--shard", "1/2"]);
    assert!(told.stdout.contains("demo (train, part 1/2)"), "{}", told.stdout);
    for (run, of) in [("seven", 7), ("two", 2)] {
        assert!(FILES.iter().all(|name| !work.path(run).join("construct").join(name).exists()), "{run}");
        assert!(!work.path(run).join("run.json").exists(), "no process speaks for all");
        let told = work.succeed(run, &["--merge"]);
        assert_eq!(told.stdout, whole.stdout.replace("whole/construct", &format!("{run}/construct")));
        assert!(work.files(run) == files, "{run}");
        let part = |name: &str, part: usize| work.file(run, &format!("{name}.part-{part}-of-{of}.jsonl"));
        for (name, merged) in [("train", &files[0]), ("dev", &files[1])] {
            assert!((1..=of).map(|i| part(name, i)).collect::<Vec<_>>().concat() == *merged, "{run}, {name}");
        }
        // A further command finds nothing to do, and changes nothing.
        work.succeed(run, &["--merge"]);
        work.succeed(run, &["--shard", "1/3"]);
        work.succeed(run, &[]);
        assert!(work.files(run) == files, "{run}");
        // The run's record: the command that merged, and under it each process.
        let record = work.json(&format!("{run}/run.json"));
        let merging = std::iter::once(&record).chain(record["earlier"].as_array().unwrap());
        let merging = merging.filter(|record| record["shards"].is_array()).collect::<Vec<_>>();
        assert_eq!(merging.len(), 1, "{run}");
        let shards = merging[0]["shards"].as_array().unwrap();
        let named: Vec<&str> = shards.iter().map(|shard| shard["shard"].as_str().unwrap()).collect();
        assert_eq!(named, (1..=of).map(|part| format!("{part}/{of}")).collect::<Vec<_>>());
        assert!(shards.iter().all(|shard| shard["outcome"] == "ok" && shard["hardware"]["cores"].is_u64()), "{run}");
    }
}

#[test]
fn a_rationalized_run_is_the_same_in_parts_and_train_waits_for_the_merge() {
    let work = Work::new();
    let set = ["--set", "construct.on_fail=rationalize", "--set", "construct.splits=[\"train\"]"];
    work.succeed("whole", &set);
    for shard in ["1/3", "2/3", "3/3"] {
        work.succeed("parts", &[&set[..], &["--shard", shard]].concat());
    }
    let train = || {
        let mut command = common::clsgen();
        command.current_dir(work.path("")).args(["train", "--config", "demo.toml", "--run", "parts"]);
        common::outcome(command.args(["--dry-run", "--set", "data.dev=data/dev.jsonl"]))
    };
    assert_fails(&train(), 2, &["parts of train", "hint: ", "--merge"]);
    work.succeed("parts", &[&set[..], &["--merge"]].concat());
    for name in ["train.jsonl", "dropped.jsonl", "stats.json"] {
        assert!(work.file("parts", name) == work.file("whole", name), "{name}");
    }
    assert_eq!(train().code, Some(0));
}

#[test]
fn parts_of_one_run_are_made_at_once_each_by_one_process() {
    let work = Work::new();
    let mut first = work.start("run", &["--shard", "1/2"]);
    common::wait_for_lines(&mut first, &work.path("run/construct/train.part-1-of-2.progress.jsonl"), 2);
    common::send("STOP", &first);
    let same = work.construct("run", &["--shard", "1/2"]);
    assert_fails(&same, 2, &["train.part-1-of-2.jsonl is locked by process", "hint: ", "--shard"]);
    for alone in [&[][..], &["--merge"]] {
        let told = work.construct("run", alone);
        let text = if alone.is_empty() {
            "processes that each work on a part of it"
        } else {
            "part 1/2 of train is unfinished"
        };
        assert_fails(&told, 2, &[text, "hint: "]);
    }
    work.succeed("run", &["--shard", "2/2"]);
    common::send("CONT", &first);
    assert_eq!(common::end_of(first).status.code(), Some(0));
    work.succeed("run", &["--merge"]);
    work.succeed("whole", &[]);
    assert!(work.files("run") == work.files("whole"));
}

#[test]
fn a_part_that_was_killed_goes_on_and_so_does_a_merge() {
    let work = Work::new();
    work.succeed("whole", &[]);
    work.succeed("run", &["--shard", "2/2"]);
    let log = work.path("run/construct/train.part-1-of-2.progress.jsonl");
    // The logs of both splits begin with their settings.
    for written in [1, 1, 2, 3, 4] {
        work.killed("run", &["--shard", "1/2"], "log.append:2");
        assert_eq!(common::lines(&log), written);
    }
    let told = work.construct("run", &["--merge"]);
    assert_fails(&told, 2, &["part 1/2 of train is unfinished", "part 1/2 of dev is unfinished"]);
    let mut stopped = work.start("run", &["--shard", "1/2"]);
    common::wait_for_lines(&mut stopped, &log, 5);
    common::send("TERM", &stopped);
    let told = common::end_of(stopped);
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(143) && stderr.contains("what is done is saved"), "{stderr}");
    // Train's own file, its dropped list, its statistics; then dev's statistics.
    for fault in ["log.torn:2", "file.write:2", "file.renamed:2", "file.write:3", "file.renamed:3", "file.write:4"] {
        work.killed("run", &["--shard", "1/2"], fault);
    }
    work.succeed("run", &["--shard", "1/2"]);
    // Before and after run.json, train, dev, the dropped list, stats.json; what is there is not written again.
    for n in [1, 2, 2, 2, 3] {
        work.killed("run", &["--merge"], &format!("file.write:{n}"));
        work.killed("run", &["--merge"], &format!("file.renamed:{n}"));
    }
    work.succeed("run", &["--merge"]);
    assert!(work.files("run") == work.files("whole"));
}

#[test]
fn a_merge_names_the_parts_that_are_missing_or_other() {
    let work = Work::new();
    let one = ["--set", "construct.splits=[\"train\"]", "--set", "construct.trials=1"];
    let with = |more: &[&'static str]| [&one[..], more].concat();
    let merge = || work.construct("run", &with(&["--merge"]));
    assert_fails(&merge(), 2, &["no part of train", "hint: "]);
    work.succeed("run", &with(&["--shard", "1/3"]));
    work.succeed("run", &[&with(&["--shard", "2/3"])[..], &["--set", "construct.min_words=2"]].concat());
    let told = merge();
    assert_fails(&told, 2, &["part 2/3 of train was made with other settings: construct.min_words (", "hint: "]);
    assert_fails(&told, 2, &["part 3/3 of train is missing"]);
    assert!(!told.stderr.contains("part 1/3"), "{}", told.stderr);
    // Nor does a part go on with what other settings made, or as another part.
    let told = work.construct("run", &with(&["--shard", "2/3"]));
    assert_fails(&told, 2, &["made with other settings: construct.min_words"]);
    let construct = work.path("run/construct");
    for name in ["jsonl", "stats.json", "dropped.jsonl"] {
        std::fs::remove_file(construct.join(format!("train.part-2-of-3.{name}"))).unwrap();
    }
    let from = construct.join("train.part-1-of-3.stats.json");
    std::fs::copy(from, construct.join("train.part-2-of-3.stats.json")).unwrap();
    assert_fails(&merge(), 2, &["part 2/3 of train was made with other settings: shard (\"1/3\" → \"2/3\")"]);
    std::fs::remove_file(construct.join("train.part-2-of-3.stats.json")).unwrap();
    work.succeed("run", &with(&["--shard", "2/3"]));
    work.succeed("run", &with(&["--shard", "3/3"]));
    // Parts of another number would make it a guess which count.
    std::fs::write(construct.join("train.part-1-of-2.progress.jsonl"), "").unwrap();
    assert_fails(&merge(), 2, &["different numbers of parts, 2 and 3"]);
    std::fs::remove_file(construct.join("train.part-1-of-2.progress.jsonl")).unwrap();
    // A file that was changed, a file of somebody else's.
    let path = construct.join("train.part-3-of-3.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes[..], b"{}\n"].concat()).unwrap();
    assert_fails(&merge(), 3, &["train.part-3-of-3.jsonl", "was changed since", "--shard 3/3"]);
    std::fs::write(&path, bytes).unwrap();
    for name in ["train.jsonl", "dropped.jsonl"] {
        std::fs::write(construct.join(name), "mine\n").unwrap();
        assert_fails(&merge(), 2, &[name, "is there already", "hint: "]);
        assert_eq!(work.file("run", name), b"mine\n");
        std::fs::remove_file(construct.join(name)).unwrap();
    }
    let plan = work.succeed("run", &with(&["--merge", "--dry-run"]));
    assert!(plan.stdout.contains("parts of train: 3") && !construct.join("train.jsonl").exists(), "{}", plan.stdout);
    assert_eq!(merge().code, Some(0));
    work.succeed("whole", &one);
    for name in ["train.jsonl", "dropped.jsonl", "stats.json"] {
        assert!(work.file("run", name) == work.file("whole", name), "{name}");
    }
    // A split that is finished is refused under other settings, merged or not.
    let told = work.construct("run", &[&with(&["--merge"])[..], &["--set", "construct.min_words=2"]].concat());
    assert_fails(&told, 2, &["stats.json: made with other settings: construct.min_words"]);
}

/// A teacher whose template prints the minute: processes on two sides of the world write one date into their prompts.
#[test]
fn processes_of_one_run_agree_on_the_date_of_their_prompts() {
    let work = Work::new();
    let clock = "{{ strftime_now('%Y-%m-%d %H:%M') }} {% for m in messages %}{{ m.content }} {% endfor %}";
    std::fs::write(work.path("model/chat_template.jinja"), clock).unwrap();
    let set = ["--set", "construct.splits=[\"dev\"]", "--set", "construct.trials=1"];
    let start = |shard: &str, zone: &str| {
        let mut command = work.command("run", &[&set[..], &["--shard", shard]].concat());
        command.env("TZ", zone).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start("1/2", "Pacific/Kiritimati"), start("2/2", "Etc/GMT+12")];
    for child in both {
        let told = common::end_of(child);
        assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    }
    work.succeed("run", &[&set[..], &["--merge"]].concat());
    let date = |name: &str| work.json(&format!("run/{name}"))["prompt_date"].clone();
    assert!(date("run.json").is_string());
    for part in [1, 2] {
        assert_eq!(date(&format!("construct/part-{part}-of-2.run.json")), date("run.json"));
    }
}
